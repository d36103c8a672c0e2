"""SSKD's Table 1: does a classifier trained alone do as well?

  jaxdistill --config=configs/sskd/imagenet_fixed_backbone.py:kd
  jaxdistill --config=configs/sskd/imagenet_fixed_backbone.py:teacher

The first is for ResNet-18 learned by KD from ResNet-34, the second for
ResNet-34 on labels; each row trains its network. Made for GPUs; not run yet.

Paper, top-1/top-5, end to end and with a new classifier: ResNet-34 73.55/91.46,
73.53/91.44; KD 70.76/89.81, 70.75/89.84.
"""

import ml_collections

ARGUMENTS = ('kd', 'teacher')


def get_config(of='kd'):
  """100 epochs for the network, 60 for the classifier."""
  if of not in ARGUMENTS:
    raise ValueError(f'{of!r} is none of {", ".join(ARGUMENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'imagenet2012', 'image_size': 256}
  config.augment = {'name': 'imagenet'}
  config.student = {'name': 'resnet34' if of == 'teacher' else 'resnet18'}
  whole = {'name': 'supervised'}
  if of == 'kd':
    config.teacher = {'name': 'resnet34'}
    whole = {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0}
  config.batch_size = 256
  config.epochs = 100
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.1,
    'boundaries': (0.3, 0.6, 0.9),
  }
  config.methods = ml_collections.ConfigDict(
    {
      'end to end': whole,
      'new classifier': {
        'name': 'fixed_backbone',
        'method': whole,
        'head_epochs': 60,
      },
    },
    sort_keys=False,
  )
  return config
