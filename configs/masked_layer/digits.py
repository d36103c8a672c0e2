"""Masked Layer Distillation on digits, from hostile initial weights.

  jaxdistill --config=configs/masked_layer/digits.py

A ResNet-14 teaches a ResNet-8 whose kernels begin as N(0, 1), many times too
large; both see 1,000 images. Every row has the same epochs, those of the masks
are not counted. The layers' rate was chosen on the validation split of one seed
from 0.1, 1 and 10, for L1 and for L2.
"""

import ml_collections

EPOCHS, LOCAL_EPOCHS = 16, 8


def local(rate):
  """How layers learn."""
  return {
    'name': 'sgd',
    'weight_decay': 1e-4,
    'schedule': {'name': 'cosine', 'rate': rate},
  }


def get_config():
  """The other rates were not tuned."""
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
    'mask_value': 0.9,
    'mask_epochs': 3.0,
    'local_epochs': LOCAL_EPOCHS,
    'epochs': EPOCHS - LOCAL_EPOCHS,
    'statistics_steps': 20,
    'local_optimizer': local(10.0),
  }
  config.methods = ml_collections.ConfigDict(
    {
      'scratch': {'name': 'supervised'},
      'refinery': {'name': 'refinery'},
      'mld': mld,
      'mld, l1': {**mld, 'distance': 'l1'},
      'mld, l2': {**mld, 'distance': 'l2', 'local_optimizer': local(1.0)},
    },
    sort_keys=False,
  )
  return config
