"""Neighbourhood Distillation, Table 3 on a small scale: sparse layers.

  jaxdistill --config=configs/neighbourhood/digits_sparse.py

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: the student is the teacher, a ResNet-14 that has seen 1,000 images.
Every convolution except the stem's is a neighbourhood. The fraction of zeros
rises by the cubic schedule over the first half of 600 steps. KD trains the
whole network with the same schedule. The classifier is dense, and there is no
fine-tuning. The rates were not tuned.

Hardware and time: one CPU core, 9 minutes for all rows and seeds. Nothing is
downloaded.

Test accuracy with 50, 80, 90 and 95 % zeros: neighbourhoods 98.10 ± 0.10, 94.14
± 0.17, 88.39 ± 0.19 and 44.78 ± 6.18; kd 98.27 ± 0.10, 96.87 ± 0.19, 96.93 ±
0.26 and 96.26 ± 0.39; teacher 97.65.
"""

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}


def get_config():
  """Returns Neighbourhood Distillation and KD for each sparsity."""
  rows = {}
  for sparsity in SPARSITIES:
    gradual = {
      'name': 'gradual',
      'final': sparsity,
      'skip': ('stem',),
      'every': 10,
    }
    label = f'{sparsity:.0%}'
    rows[f'neighbourhoods, {label}'] = {
      'name': 'neighbourhood',
      'by_layers': True,
      'initial': 'teacher',
      'statistics_steps': 20,
      'neighbourhood_optimizer': {
        **gradual,
        'optimizer': {**SGD, 'schedule': {'name': 'cosine', 'rate': 0.1}},
      },
    }
    rows[f'kd, {label}'] = {
      'name': 'from_teacher',
      'method': {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}},
      'optimizer': {
        **gradual,
        'optimizer': {**SGD, 'schedule': {'name': 'cosine', 'rate': 0.01}},
      },
    }
  network = {'name': 'resnet14', 'stem_width': 8, 'widths': (8, 16, 32)}
  return {
    'data': {'name': 'digits'},
    'teacher': {
      **network,
      'training': {
        'epochs': 20,
        'optimizer': SGD,
        'schedule': {'name': 'cosine', 'rate': 0.1},
      },
    },
    'student': network,
    'batch_size': 50,
    'epochs': 30,
    'evaluate_every': 30,
    'seeds': 3,
    'methods': rows,
  }
