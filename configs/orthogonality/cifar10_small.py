"""Orthogonality's tables in small: CIFAR-10, 10,000 images, ResNet-20 or -8.

  jaxdistill --config=configs/orthogonality/cifar10_small.py:filters \
    --config.data.path=cifar10.npz

or `slimming`, `magnitude`: the columns of Tables 1 to 3 for one ratio; or
`cutmix`, `cutmix-plain`: the rows of Table 5 for a teacher that was trained
with CutMix or without, and the networks of Table 6 and of the landscapes. The
schedules are those of the full size beside it with fewer epochs.
"""

import ml_collections

EPOCHS = 16
SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
PRUNINGS = {
  'filters': {'40-70-90': {'name': 'filters', 'keep': (0.4, 0.7, 0.9)}},
  'slimming': {'50': {'name': 'slimming', 'keep': 0.5}},
  'magnitude': {'40': {'name': 'magnitude', 'keep': 0.4}},
}
ARGUMENTS = (*PRUNINGS, 'cutmix', 'cutmix-plain')


def get_config(name='filters'):
  """Three seeds; ResNet-20 for pruning, ResNet-8 for CutMix."""
  if name not in ARGUMENTS:
    raise ValueError(f'{name!r} is none of {", ".join(ARGUMENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'npz',
    'path': 'cifar10.npz',
    'validation': 2000,
    'few': 10000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.batch_size = 64
  config.epochs = EPOCHS
  config.evaluate_every = 4
  config.seeds = 3
  config.optimizer = SGD
  config.schedule = {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)}
  if name in PRUNINGS:
    config.student = {'name': 'resnet20', 'shortcut': 'A'}
    config.method = {
      'name': 'pruning_protocol',
      'prunings': PRUNINGS[name],
      'fine_tune_epochs': EPOCHS / 4,
    }
    if name == 'slimming':
      config.student = {'name': 'preactivation_resnet', 'depth': 20}
      config.student.scale = 0.5
      config.optimizer = {'name': 'slim', 'strength': 1e-4, 'optimizer': SGD}
    return config
  cutmix = {'name': 'regularized', 'mix': {'name': 'cutmix'}}
  taught = config.augment if name == 'cutmix-plain' else cutmix
  config.student = {'name': 'resnet8'}
  config.teacher = {'name': 'resnet8', 'training': {'augment': taught}}
  methods = {
    'alone': {'name': 'supervised'},
    'label': {'name': 'kd'},
    'feature': {'name': 'fd'},
  }
  rows = {}
  for label, method in methods.items():
    kept = {'name': 'snapshots', 'method': method, 'at': (0.5, 0.75, 1.0)}
    rows[f'{label}, plain'] = kept
    rows[f'{label}, cutmix'] = {**kept, 'augment': cutmix}
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
