"""DistPro, Table 1: six pairs of networks on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/distpro/cifar100.py:wrn16_2

The argument after the colon is the pair, one of the keys of `PAIRS`.

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: 27 pathways, a search of 40 epochs on 80 % of the images, and then 240
epochs on all of them. The rates are those of the authors' code, the weights of
ReviewKD are the published ones. The authors' code has only 10 pathways, which
are the space {'name': 'same_or_deeper', 'stem': True, 'pool': False}. One
search for each seed serves alpha_T, which is the line 'distpro: last' of the
results, and DistPro.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config.

Paper's top-1 accuracy of teacher, student, L2T-ww, CRD, ReviewKD, equal
weights, alpha_T and DistPro, one line for each pair in the order of `PAIRS`:

  76.51 73.26  -     75.64 76.20 75.50 76.25 76.36
  76.51 70.50  -     76.27 77.14 74.28 77.19 77.24
  79.45 70.50  76.35 75.12 76.41 73.54 77.15 77.18
  79.45 71.82  77.39 76.05 77.37 74.39 76.64 77.54
  73.28 69.06  -     71.63 71.89 70.89 71.24 72.03
  74.13 71.14  -     -     73.16 73.19 73.58 73.74
"""

# Pair -> the student's network, the teacher's, the rate, ReviewKD's weight.
PAIRS = {
  'wrn16_2': ('wrn_16_2', 'wrn_40_2', 0.1, 5.0),
  'shufflenet_v1_wrn': ('cifar_shufflenet_v1', 'wrn_40_2', 0.02, 5.0),
  'shufflenet_v1': ('cifar_shufflenet_v1', 'resnet32x4', 0.02, 5.0),
  'shufflenet_v2': ('cifar_shufflenet_v2', 'resnet32x4', 0.02, 8.0),
  'resnet20': ('resnet20', 'resnet56', 0.1, 0.6),
  'resnet32': ('resnet32', 'resnet110', 0.1, 1.0),
}
ARGUMENTS = tuple(PAIRS)
SEARCH_DROPS = (0.25, 0.5, 0.75)  # epochs 10, 20 and 30 of 40


def get_config(pair='wrn16_2'):
  """Returns rows with the same epochs, to which a search adds its own."""
  if pair not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {pair!r}')
  student, teacher, rate, review = PAIRS[pair]
  search = {
    'name': 'distpro',
    'search_epochs': 40,
    'space': {'name': 'all_pairs'},
    'search_optimizer': {
      'name': 'sgd',
      'schedule': {'name': 'step', 'rate': rate, 'boundaries': SEARCH_DROPS},
    },
  }
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar100',
      'validation': 0,
      'mean': (125.3, 123.0, 113.9),
      'std': (63.0, 62.1, 66.7),
    },
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': teacher, 'training': {'schedule': {'rate': 0.1}}},
    'student': {'name': student},
    'batch_size': 128,
    'epochs': 240,
    'seeds': 5,
    'evaluate_every': 10,
    'schedule': {'name': 'step', 'rate': rate},
    'methods': {
      'student alone': {'name': 'supervised'},
      'l2t_ww': {'name': 'l2t_ww'},
      'crd': {'name': 'crd'},
      'reviewkd': {'name': 'reviewkd', 'weight': review},
      'equal weights': {'name': 'distpro_retrain', 'use': 'equal'},
      'distpro': {**search, 'use': ('last', 'process')},
    },
  }
