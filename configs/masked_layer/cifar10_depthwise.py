"""Tables 2 and 3 in small: does distillation hurt depthwise networks?

  jaxdistill --config=configs/masked_layer/cifar10_depthwise.py:depthwise \
    --config.data.path=cifar10.npz

A MobileNetV1 of a quarter of the width, for small images, teaches a new one of
its own kind ('depthwise'), or one without two of its blocks ('deleted'); for
comparison a narrow ResNet-20 teaches another ('dense'). CIFAR-10, 10,000
images, for two CPU cores. Every row has the same epochs; the one of the masks
is not counted. 'lars' is LARS, as for the layers, for the whole of a row.
`analysis.curves.reached` says in how many epochs a row reaches an accuracy. The
full size is beside it, `imagenet_mobile.py`.
"""

import ml_collections

DEPTHWISE = {
  'name': 'mobilenet_v1',
  'width': 0.25,
  'stem_stride': 1,
  'strides': (1, 2, 2, 2, 1),
}
DENSE = {'name': 'resnet20', 'widths': (8, 16, 32), 'stem_width': 8}
STUDENTS = {
  'depthwise': DEPTHWISE,
  'deleted': {
    'name': 'without',
    'network': DEPTHWISE,
    'names': ('group4.block3', 'group4.block5'),
  },
  'dense': DENSE,
}
ARGUMENTS = ('deleted', 'dense')  # those that are tested
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
EPOCHS, LOCAL_EPOCHS = 10, 4


def mld(method, **arguments):
  """Masked layers, then that method."""
  return {
    'name': 'masked_layer',
    'method': {'name': method},
    'epochs': EPOCHS - LOCAL_EPOCHS,
    'local_epochs': LOCAL_EPOCHS,
    'statistics_steps': 20,
    **arguments,
  }


def get_config(student='depthwise'):
  """The rates were not tuned."""
  if student not in STUDENTS:
    raise ValueError(f'{student!r} is none of {", ".join(STUDENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'npz',
    'path': 'cifar10.npz',
    'validation': 2000,
    'few': 10000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {
    **(DENSE if student == 'dense' else DEPTHWISE),
    'training': {'epochs': 30},
  }
  config.student = STUDENTS[student]
  config.batch_size = 128
  config.epochs = EPOCHS
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  rows = {'scratch': {'name': 'supervised'}}
  for method in ('refinery', 'srrl'):
    rows[method] = {'name': method}
    rows[f'mld + {method}'] = mld(method)
  rows['refinery, lars'] = {'name': 'refinery', **LARS}
  rows['mld + refinery, lars'] = mld('refinery', **LARS)
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
