"""Tables 2 and 3: does distillation hurt mobile networks? ImageNet.

  jaxdistill \
    --config=configs/masked_layer/imagenet_mobile.py:efficientnet_b0,4 \
    --config.teacher.weights=efficientnet_b0.pth

The network, and how many of its blocks the student lacks; with torchvision's
weights as teacher, or without the last line to train one. The paper does not
say which blocks it took: here a fixed sample of those that keep their input's
shape. The breakpoints are the ends of the groups. LR and SRRL have the paper's
most epochs; in rows 'as long' those of MLD, 12 for the layers and 48 for the
whole. The one of the masks is not counted. Made for GPUs; not run yet.

Paper, top-1 and epochs (teachers 67.4 and 77.7):

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

import ml_collections

from jaxdistill import networks
from jaxdistill.networks import edits

DELETED = {
  'mobilenet_v3_small': (0, 1, 2, 3),  # 0, 7.7, 15.4, 23.1 % of 13
  'efficientnet_b0': (0, 1, 2, 4, 6),  # 0, 6.3, 12.5, 25, 37.5 % of 16
}
ARGUMENTS = ('mobilenet_v3_small,0', 'efficientnet_b0,4')
LONG, LOCAL_EPOCHS, WHOLE_EPOCHS = {'refinery': 120, 'srrl': 100}, 12, 48


def get_config(of='mobilenet_v3_small,0'):
  """A cosine from 0.1."""
  name, _, count = of.partition(',')
  valid = [f'{k},{n}' for k, counts in DELETED.items() for n in counts]
  if of not in valid:
    raise ValueError(f'{of!r} is none of {", ".join(valid)}')
  whole = networks.NETWORKS[name]()
  blocks = random.Random(0).sample(edits.deletable(whole), int(count))
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'imagenet2012', 'image_size': 256}
  config.augment = {'name': 'imagenet'}
  config.teacher = {'name': name, 'training': {'epochs': 120}}
  config.student = {
    'name': 'without',
    'network': {'name': name},
    'names': tuple(blocks),
  }
  config.batch_size = 256
  config.epochs = LOCAL_EPOCHS + WHOLE_EPOCHS
  config.optimizer = {'name': 'sgd', 'weight_decay': 4e-5}
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  rows = {'scratch': {'name': 'supervised', 'epochs': 120}}
  for method, epochs in LONG.items():
    rows[f'mld + {method}'] = {
      'name': 'masked_layer',
      'method': {'name': method},
      'epochs': WHOLE_EPOCHS,
      'local_epochs': LOCAL_EPOCHS,
    }
    rows[method] = {'name': method, 'epochs': epochs}
    rows[f'{method}, as long'] = {'name': method}
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
