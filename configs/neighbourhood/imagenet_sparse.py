"""Neighbourhood Distillation's Table 3: ImageNet, a sparse ResNet-50.

  jaxdistill --config=configs/neighbourhood/imagenet_sparse.py
  jaxdistill --config=configs/neighbourhood/imagenet_sparse.py:search

Every convolution but the stem's is a neighbourhood and begins with the
teacher's weights; the share of zeros rises by the cubic schedule over 20,000
steps and stays for 20,000 more; the classifier is dense. KD has the same
schedule end to end. No fine-tuning. The rates are ours. The second command is
Figure 7: all sparsities of all layers at once, and students of their parts,
which `analysis.curves.tradeoff` shows beside those of one sparsity. Made for
GPUs; not run yet.

Paper, ND and KD: 0.1: 76.00 75.63; 0.2: 76.03 75.94; 0.3: 75.82 75.69; 0.4:
75.63 75.45; 0.5: 75.26 75.20; 0.6: 73.78 74.60; 0.7: 69.52 69.61; 0.8: 49.83
70.33; 0.9: 0.60 0.10.
"""

import ml_collections

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DROPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
EPOCH = 1271167 // 32  # steps
ARGUMENTS = ('table', 'search')


def get_config(of='table'):
  """Two rows for each sparsity, or the search; the teacher can be given."""
  if of not in ARGUMENTS:
    raise ValueError(f'{of!r} is none of {", ".join(ARGUMENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'tfds',
    'dataset': 'imagenet2012',
    'validation': 10000,
    'image_size': 256,
  }
  config.augment = {'name': 'imagenet'}
  config.teacher = {
    'name': 'resnet50',
    'training': {
      'epochs': 200,
      'schedule': {
        'name': 'step',
        'rate': 0.02,
        'boundaries': tuple(e / 200 for e in range(30, 200, 30)),
        'factor': 0.2,
      },
    },
  }
  config.student = {'name': 'resnet50'}
  config.batch_size = 32
  config.epochs = 40000 / EPOCH
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {'name': 'constant', 'rate': 1e-3}
  if of == 'search':
    config.method = {
      'name': 'student_search',
      'sparsities': (0.0, *SPARSITIES),
      'drops': DROPS,
      'by_layers': True,
      'statistics_steps': 0,
    }
    return config
  rows = {}
  for sparsity in SPARSITIES:
    gradual = {
      'name': 'gradual',
      'final': sparsity,
      'skip': ('stem',),
      'until': 0.5,
      'optimizer': {
        'name': 'sgd',
        'nesterov': False,
        'weight_decay': 1e-4,
        'schedule': {'name': 'constant', 'rate': 1e-3},
      },
    }
    pieces = {
      'name': 'neighbourhood',
      'by_layers': True,
      'initial': 'teacher',
      'statistics_steps': 0,
      'neighbourhood_optimizer': gradual,
    }
    label = f'{sparsity:.0%}'
    rows[f'neighbourhoods, {label}'] = pieces
    rows[f'kd, {label}'] = {
      'name': 'from_teacher',
      'method': {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}},
      'optimizer': gradual,
    }
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
