"""MLD, Tables 2 and 3: does distillation hurt mobile networks on ImageNet?

  jaxdistill \
    --config=configs/masked_layer/imagenet_mobile.py:efficientnet_b0,4 \
    --config.teacher.weights=efficientnet_b0.pth

The argument after the colon is the network, and how many of its blocks the
student lacks. The teacher has torchvision's weights; without the last line a
teacher is trained.

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: the paper does not say which blocks it deleted. Here they are a fixed
sample of the blocks that keep the shape of their input. The breakpoints are the
ends of the groups, and the schedule is a cosine that starts at 0.1. Label
Refinery (LR) and SRRL have the largest number of epochs that the paper gives
them. In the rows 'as long' they have the epochs of MLD: 12 for the layers and
48 for the whole network. The epochs that learn the masks are additional.

Held out: 10,000 of the 1,281,167 training images, on which MLD measures how
much noise its masks may let pass.

Hardware: intended for GPUs. We have not run this config.

Paper's top-1 accuracy and epochs (teachers 67.4 and 77.7):

  blocks deleted      MLD + LR    LR          MLD + SRRL    SRRL
  MobileNet 0         63.9  21    60.4 120    64.4  25      62.1 100
  MobileNet 1         63.8  34    60.2 107    63.8  33      61.7  94
  MobileNet 2         62.1  45    59.2 113    62.8  32      61.8  80
  MobileNet 3         61.1  53    58.9 117    62.3  33      61.9  87
  EfficientNet 0      74.1  26    71.6  80    75.1  25      73.1 100
  EfficientNet 1      74.0  26    71.5  74    74.9  25      72.8  98
  EfficientNet 2      73.9  25    71.3  76    74.6  26      73.1 100
  EfficientNet 4      72.7  26    71.0  80    73.5  26      72.7  97
  EfficientNet 6      71.2  26    70.5  80    72.0  32      72.0  99
"""

import random

from jaxdistill import networks
from jaxdistill.networks.surgery import edits

# Network -> the numbers of deleted blocks in the paper.
DELETED = {
  'mobilenet_v3_small': (0, 1, 2, 3),  # 0, 7.7, 15.4, 23.1 % of 13
  'efficientnet_b0': (0, 1, 2, 4, 6),  # 0, 6.3, 12.5, 25, 37.5 % of 16
}
# The ones that the tests build.
ARGUMENTS = ('mobilenet_v3_small,0', 'efficientnet_b0,4')
LONG, LOCAL_EPOCHS, WHOLE_EPOCHS = {'refinery': 120, 'srrl': 100}, 12, 48


def get_config(setting='mobilenet_v3_small,0'):
  """Returns LR and SRRL: by themselves, as long as MLD, and after MLD."""
  name, _, count = setting.partition(',')
  valid = [f'{k},{n}' for k, counts in DELETED.items() for n in counts]
  if setting not in valid:
    raise ValueError(f'expected one of {"; ".join(valid)}; got {setting!r}')
  whole = networks.NETWORKS[name]()
  blocks = random.Random(0).sample(edits.deletable(whole), int(count))
  rows = {'scratch': {'name': 'supervised', 'epochs': 120}}
  for method, epochs in LONG.items():
    rows[f'mld + {method}'] = {
      'name': 'masked_layer',
      'method': {'name': method},
      'epochs': WHOLE_EPOCHS,
      'layers': {'epochs': LOCAL_EPOCHS},
    }
    rows[method] = {'name': method, 'epochs': epochs}
    rows[f'{method}, as long'] = {'name': method}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'image_size': 256,
      'validation': 10_000,
    },
    'augment': {'name': 'imagenet'},
    'teacher': {'name': name, 'training': {'epochs': 120}},
    'student': {
      'name': 'without',
      'network': {'name': name},
      'names': tuple(blocks),
    },
    'batch_size': 256,
    'epochs': LOCAL_EPOCHS + WHOLE_EPOCHS,
    'optimizer': {'name': 'sgd', 'weight_decay': 4e-5},
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
