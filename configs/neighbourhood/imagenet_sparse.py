"""Neighbourhood Distillation, Table 3 and Figure 7: a sparse ResNet-50.

  jaxdistill --config=configs/neighbourhood/imagenet_sparse.py
  jaxdistill --config=configs/neighbourhood/imagenet_sparse.py:search

The first command gives Table 3, the second one Figure 7: it trains all
sparsities of all layers at once and makes students of their parts.
`analysis.curves.tradeoff` shows these students together with those that have
the same sparsity in all layers.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: ImageNet. Every convolution except the stem's is a neighbourhood and
starts with the teacher's weights. The fraction of zeros rises by the cubic
schedule over 20,000 steps and stays for 20,000 more. The classifier is dense.
KD trains the whole network with the same schedule. There is no fine-tuning. The
rates are ours.

Held out: nothing of the 1,281,167 training images for the table; 10,000 of them
for the search, on which drops are measured.

Hardware: intended for GPUs. We have not run this config.

Paper's accuracy by ND and by KD: 0.1: 76.00 75.63; 0.2: 76.03 75.94; 0.3: 75.82
75.69; 0.4: 75.63 75.45; 0.5: 75.26 75.20; 0.6: 73.78 74.60; 0.7: 69.52 69.61;
0.8: 49.83 70.33; 0.9: 0.60 0.10.
"""

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DROPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
IMAGES = 1281167
# Argument -> the number of images that are held out.
HELD_OUT = {'table': 0, 'search': 10000}
ARGUMENTS = tuple(HELD_OUT)
SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
CONSTANT = {'name': 'constant', 'rate': 1e-3}


def table_rows():
  """Returns two rows for each sparsity: Neighbourhood Distillation and KD."""
  rows = {}
  for sparsity in SPARSITIES:
    gradual = {
      'name': 'gradual',
      'final': sparsity,
      'skip': ('stem',),
      'until': 0.5,
      'optimizer': {**SGD, 'schedule': CONSTANT},
    }
    label = f'{sparsity:.0%}'
    rows[f'neighbourhoods, {label}'] = {
      'name': 'neighbourhood',
      'by_layers': True,
      'initial': 'teacher',
      'statistics_steps': 0,
      'neighbourhood_optimizer': gradual,
    }
    rows[f'kd, {label}'] = {
      'name': 'from_teacher',
      'method': {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}},
      'optimizer': gradual,
    }
  return rows


def get_config(experiment='table'):
  """Returns the table's rows or the search; you may also give a teacher."""
  if experiment not in ARGUMENTS:
    raise ValueError(
      f'expected one of {", ".join(ARGUMENTS)}, got {experiment!r}'
    )
  held_out = HELD_OUT[experiment]
  epoch = (IMAGES - held_out) // 32  # steps
  rows = {'methods': table_rows()}
  if experiment == 'search':
    rows = {
      'method': {
        'name': 'student_search',
        'sparsities': (0.0, *SPARSITIES),
        'drops': DROPS,
        'by_layers': True,
        'statistics_steps': 0,
      }
    }
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': held_out,
      'image_size': 256,
    },
    'augment': {'name': 'imagenet'},
    'teacher': {
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
    },
    'student': {'name': 'resnet50'},
    'batch_size': 32,
    'epochs': 40000 / epoch,
    'optimizer': SGD,
    'schedule': CONSTANT,
    **rows,
  }
