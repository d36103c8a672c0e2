"""Masked Layer Distillation on digits, from hostile initial weights.

  jaxdistill --config=configs/masked_layer/digits.py

A ResNet-14 teaches a ResNet-8 whose kernels begin as N(0, 1), many times too
large; both see 1,000 images. Every row has the same epochs, those of the masks
are not counted. 'lars' is scratch by LARS, as for the layers.
"""

import ml_collections

EPOCHS, LOCAL_EPOCHS = 16, 8


def get_config():
  """The rates were not tuned."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits'}
  small = {'widths': (8, 16, 32), 'stem_width': 8}
  config.teacher = {'name': 'resnet14', **small, 'training': {'epochs': 20}}
  config.student = {'name': 'resnet8', **small}
  config.initial = {'name': 'normal', 'mean': 0.0, 'std': 1.0}
  config.batch_size = 50
  config.epochs = EPOCHS
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  mld = {
    'name': 'masked_layer',
    'breakpoints': 'blocks',
    'mask_epochs': 3.0,
    'local_epochs': LOCAL_EPOCHS,
    'epochs': EPOCHS - LOCAL_EPOCHS,
    'statistics_steps': 20,
  }
  config.methods = ml_collections.ConfigDict(
    {
      'scratch': {'name': 'supervised'},
      'lars': {
        'name': 'supervised',
        'optimizer': {'name': 'lars', 'trust': 0.2},
      },
      'refinery': {'name': 'refinery'},
      'mld': mld,
      'mld, l1': {**mld, 'distance': 'l1'},
      'mld, l2': {**mld, 'distance': 'l2'},
    },
    sort_keys=False,
  )
  return config
