"""CIFAR-10 from TFDS, whole: ResNet-56 -> ResNet-20, 240 epochs.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/kd/cifar10_resnet56_resnet20.py \
    --config.data.data_dir=DATA

The protocol of RepDistiller (https://github.com/HobbitLong/RepDistiller): batch
64, 0.05 divided by 10 after epochs 150, 180 and 210, no Nesterov. Made for a
GPU; not run yet. There CIFAR-100 is used: `--config.data.dataset=cifar100`.
"""

import ml_collections


def get_config():
  """The same epochs, rate, augmentation and images for all three."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar10', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'resnet56'}
  config.student = {'name': 'resnet20'}
  config.batch_size = 64
  config.epochs = 240
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4}
  config.schedule = {'name': 'step', 'rate': 0.05}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'distilled student': {'name': 'kd'},
    },
    sort_keys=False,
  )
  return config
