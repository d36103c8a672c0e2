"""Table 1 in small: VGG-13 -> VGG-19 of a quarter of the width, CIFAR-10.

  jaxdistill --config=configs/masked_layer/cifar10_vgg13_vgg19.py:normal_1_0 \
    --config.data.path=cifar10.npz --fast_cpu

The student is deeper than its teacher. The argument is the scheme of its
initial weights. 10,000 images, for two CPU cores; every row has the same
epochs, the one of the masks is not counted. The breakpoints are the ends of the
five groups. 'lars' is scratch by LARS, as for the layers, which alone may mend
a scheme. The full size is beside it, `cifar10_table1.py`.
"""

import ml_collections

SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
ARGUMENTS = ('normal_1_0',)  # that is tested
EPOCHS, LOCAL_EPOCHS = 10, 4


def get_config(scheme='xavier'):
  """The rates were not tuned."""
  if scheme not in SCHEMES:
    raise ValueError(f'{scheme!r} is none of {", ".join(SCHEMES)}')
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
    'name': 'vgg13',
    'width': 0.25,
    'training': {'epochs': 12, 'batch_size': 64},
  }
  config.student = {'name': 'vgg19', 'width': 0.25}
  config.initial = SCHEMES[scheme]
  config.batch_size = 256
  config.epochs = EPOCHS
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  mld = {
    'name': 'masked_layer',
    'alpha': 1e-2,
    'mask_value': 0.5,
    'local_epochs': LOCAL_EPOCHS,
    'epochs': EPOCHS - LOCAL_EPOCHS,
    'statistics_steps': 20,
  }
  config.methods = ml_collections.ConfigDict(
    {
      'scratch': {'name': 'supervised'},
      'lars': {'name': 'supervised', **LARS},
      'refinery': {'name': 'refinery'},
      'mld': mld,
      'mld, student-fed': {**mld, 'group_input': 'student'},
    },
    sort_keys=False,
  )
  return config
