"""CIFAR-10, 10,000 images: eight methods with published weights, one budget.

  jaxdistill --config=configs/losses/cifar10_resnet20_resnet8.py \
    --config.data.path=cifar10.npz

Cut to what two CPU cores do in an hour: 10,000 images for all, 12 epochs for
the teacher and 6 for the students. `cifar10_resnet56_resnet20.py` beside it is
the full size.
"""

import ml_collections

METHODS = ('kd', 'at', 'sp', 'rkd', 'crd', 'dkd', 'reviewkd', 'srrl')


def get_config():
  """Every row has the same epochs, rate, augmentation and seeds."""
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'npz',
    'path': 'cifar10.npz',
    'validation': 2000,
    'few': 10000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'resnet20', 'training': {'epochs': 12}}
  config.student = {'name': 'resnet8'}
  config.batch_size = 128
  config.epochs = 6
  config.evaluate_every = 3
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      **{name: {'name': name} for name in METHODS},
    },
    sort_keys=False,
  )
  return config
