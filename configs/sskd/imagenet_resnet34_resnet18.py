"""SSKD's Table 6: ImageNet, ResNet-34 -> ResNet-18.

  jaxdistill --config=configs/sskd/imagenet_resnet34_resnet18.py \
    --config.teacher.weights=resnet34.pth

with torchvision's weights as teacher, or without the last line to train one.
The paper's schedule: four stages of 60 epochs, 100 epochs for the rivals, whose
rates it does not give. Made for GPUs; not run yet.

Paper, top-1/top-5: student 69.57/89.24, teacher 73.55/91.46, KD 70.76/89.81,
FitNets 70.66/89.23, AT 70.73/90.04, NST 70.76/89.59, SSKD 71.36/90.50.
"""

import ml_collections


def get_config():
  """KD's weight of 15 is over T^2 = 16, which our loss holds."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'imagenet2012', 'image_size': 256}
  config.augment = {'name': 'imagenet'}
  config.teacher = {'name': 'resnet34', 'training': {'epochs': 100}}
  config.student = {'name': 'resnet18'}
  config.batch_size = 256
  config.epochs = 100
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.1,
    'boundaries': (0.3, 0.6, 0.9),
  }
  stage = {
    'name': 'sgd',
    'nesterov': False,
    'weight_decay': 1e-4,
    'schedule': {'name': 'step', 'rate': 0.01, 'boundaries': (0.3, 0.6, 0.9)},
  }
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'sskd': {
        'name': 'sskd',
        'num_stages': 4,
        'stage_epochs': 60,
        'head_epochs': 60,
        'stage_optimizer': stage,
      },
      'kd': {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0},
      'fitnets': {'name': 'hint', 'weight': 10.0},
      'at': {'name': 'at', 'weight': 10.0},
      'nst': {'name': 'nst', 'weight': 100.0},
    },
    sort_keys=False,
  )
  return config
