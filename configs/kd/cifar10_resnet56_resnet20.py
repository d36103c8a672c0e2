"""Distillation on the whole of CIFAR-10: ResNet-56 teaches ResNet-20.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/kd/cifar10_resnet56_resnet20.py \
    --config.data.data_dir=DATA

Paper: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.

Setting: the protocol of RepDistiller
(https://github.com/HobbitLong/RepDistiller) with 240 epochs, batch size 64, and
a rate of 0.05 that is divided by 10 after epochs 150, 180 and 210, without
Nesterov momentum. RepDistiller uses CIFAR-100; to do the same, prepare it and
add `--config.data.dataset=cifar100`.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config.
"""


def get_config():
  """Returns three models with equal epochs, rate, augmentation and images."""
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar10', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'resnet56'},
    'student': {'name': 'resnet20'},
    'batch_size': 64,
    'epochs': 240,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4},
    'schedule': {'name': 'step', 'rate': 0.05},
    'methods': {
      'student alone': {'name': 'supervised'},
      'distilled student': {'name': 'kd'},
    },
  }
