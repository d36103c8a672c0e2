"""Table 1: hostile initial weights, from scratch and by MLD, on CIFAR-10.

  jaxdistill \
    --config=configs/masked_layer/cifar10_table1.py:resnet18,normal_1_10 \
    --config.data.path=cifar10.npz --config.batch_size=1024

The pair, by its student, and the scheme; a batch is 256 where nothing is said.
A teacher of another of these runs is taken by `--config.teacher.checkpoint`.
The paper does not give epochs, rates, augmentation and breakpoints; here these
are the blocks of the ResNets, and the ends of the five groups of the VGGs. The
classifier begins as usual. All rows have 200 epochs; the one of the masks is
not counted. The layers learn by LARS, as SGD leaves large kernels as they
are; 'lars' is scratch by it. Where all kernels begin alike, those inside blocks
stay so unless `--config.methods.mld.breakpoints=layers`.
Made for a GPU; not run yet. The small size is beside it,
`cifar10_resnet20_resnet8.py` and `cifar10_vgg13_vgg19.py`.

Paper, scratch and MLD, in percent (batch 256; 1024):

  scheme    ResNet-34 -> 18             VGG-13 -> 19                101 -> 50
  N(0,1)    92.06 94.22; 71.61 92.73    90.88 92.55; 72.86 91.91    93.00 93.59
  N(1,1)    81.13 94.19; 22.24 92.94    38.61 92.26; 18.16 92.17    41.96 92.29
  N(1,0)    63.50 94.00; 18.25 91.10    33.34 92.31; 13.39 92.16    31.76 92.34
  N(1,10)   77.64 93.99; 48.10 93.01    77.58 92.37; 23.26 92.35    84.05 93.26
  xavier    94.34 94.33; 92.91 92.38    92.67 92.31; 90.42 91.29    94.03 93.65
"""

import ml_collections

PAIRS = {
  'resnet18': ('cifar_resnet34', 'cifar_resnet18', 'blocks'),
  'vgg19': ('vgg13', 'vgg19', 'groups'),
  'resnet50': ('cifar_resnet101', 'cifar_resnet50', 'blocks'),
}
SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
ARGUMENTS = ('resnet18,normal_1_0', 'vgg19,xavier', 'resnet50,normal_1_10')
EPOCHS, LOCAL_EPOCHS = 200, 30


def get_config(of='resnet18,xavier'):
  """SGD with Nesterov's momentum 0.9 and a cosine from 0.1 for all."""
  pair, _, scheme = of.partition(',')
  if pair not in PAIRS or scheme not in SCHEMES:
    raise ValueError(
      f'{of!r} is no PAIR,SCHEME of {", ".join(PAIRS)} and {", ".join(SCHEMES)}'
    )
  teacher, student, breakpoints = PAIRS[pair]
  config = ml_collections.ConfigDict()
  config.data = {'name': 'npz', 'path': 'cifar10.npz', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': teacher, 'training': {'batch_size': 256}}
  config.student = {'name': student}
  config.initial = SCHEMES[scheme]
  config.batch_size = 256
  config.epochs = EPOCHS
  decay = {'weight_decay': 5e-4}
  config.optimizer = {'name': 'sgd', **decay}
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      'scratch': {'name': 'supervised'},
      'lars': {
        'name': 'supervised',
        'optimizer': {'name': 'lars', 'trust': 0.2, **decay},
      },
      'mld': {
        'name': 'masked_layer',
        'breakpoints': breakpoints,
        'local_epochs': LOCAL_EPOCHS,
        'epochs': EPOCHS - LOCAL_EPOCHS,
      },
    },
    sort_keys=False,
  )
  return config
