"""MLD, Table 1: hostile initial weights on CIFAR-10.

  jaxdistill \
    --config=configs/masked_layer/cifar10_table1.py:resnet18,normal_1_10 \
    --config.data.path=cifar10.npz --config.batch_size=1024

The argument after the colon is the pair, named by its student, and the scheme
of the student's initial weights. The batch size is 256 unless you give another
one. `--config.teacher.checkpoint` takes the teacher of one of the other runs.

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: the paper gives no epochs, rates, augmentation or breakpoints. We chose
SGD with Nesterov momentum 0.9 and a cosine that starts at 0.1; the breakpoints
are the blocks of the ResNets and all convolutions of the VGGs; those that the
teacher lacks learn the identity. The classifier starts as usual. All rows have
200 epochs; those that learn the masks are additional. The layers learn by LARS,
because SGD hardly changes large kernels. The row 'lars' trains from scratch
with LARS. If all kernels start with equal values, those inside a block stay
equal unless you give `--config.methods.mld.breakpoints=layers`.

Held out: 5,000 of the 50,000 training images, on which MLD measures how much
noise its masks may let pass.

Hardware: intended for a GPU. We have not run this config. Smaller experiments
are in the same folder: `cifar10_resnet20_resnet8.py` and
`cifar10_vgg13_vgg19.py`.

Paper's accuracy from scratch and by MLD, in percent (batch 256; batch 1024):

  scheme    ResNet-34 -> 18             VGG-13 -> 19                101 -> 50
  N(0,1)    92.06 94.22; 71.61 92.73    90.88 92.55; 72.86 91.91    93.00 93.59
  N(1,1)    81.13 94.19; 22.24 92.94    38.61 92.26; 18.16 92.17    41.96 92.29
  N(1,0)    63.50 94.00; 18.25 91.10    33.34 92.31; 13.39 92.16    31.76 92.34
  N(1,10)   77.64 93.99; 48.10 93.01    77.58 92.37; 23.26 92.35    84.05 93.26
  xavier    94.34 94.33; 92.91 92.38    92.67 92.31; 90.42 91.29    94.03 93.65
"""

# Pair -> the teacher's network and the student's.
PAIRS = {
  'resnet18': ('cifar_resnet34', 'cifar_resnet18'),
  'vgg19': ('vgg13', 'vgg19'),
  'resnet50': ('cifar_resnet101', 'cifar_resnet50'),
}
SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
# The ones that the tests build.
ARGUMENTS = ('resnet18,normal_1_0', 'vgg19,xavier', 'resnet50,normal_1_10')
EPOCHS, LOCAL_EPOCHS = 200, 30


def get_config(setting='resnet18,xavier'):
  """Returns scratch by SGD, scratch by LARS, and MLD."""
  pair, _, scheme = setting.partition(',')
  if pair not in PAIRS or scheme not in SCHEMES:
    raise ValueError(
      f'expected PAIR,SCHEME with one of {", ".join(PAIRS)} and one of '
      f'{", ".join(SCHEMES)}, got {setting!r}'
    )
  teacher, student = PAIRS[pair]
  decay = {'weight_decay': 5e-4}
  return {
    'data': {'name': 'npz', 'path': 'cifar10.npz', 'validation': 5000},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': teacher, 'training': {'batch_size': 256}},
    'student': {'name': student},
    'initial': SCHEMES[scheme],
    'batch_size': 256,
    'epochs': EPOCHS,
    'optimizer': {'name': 'sgd', **decay},
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'scratch': {'name': 'supervised'},
      'lars': {
        'name': 'supervised',
        'optimizer': {'name': 'lars', 'trust': 0.2, **decay},
      },
      'mld': {
        'name': 'masked_layer',
        'breakpoints': 'blocks',
        'repeat_teacher': True,
        'layers': {'epochs': LOCAL_EPOCHS},
        'epochs': EPOCHS - LOCAL_EPOCHS,
      },
    },
  }
