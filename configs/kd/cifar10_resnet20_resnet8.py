"""CIFAR-10 from TFDS, 20,000 images: distillation against the student alone.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/kd/cifar10_resnet20_resnet8.py \
    --config.data.data_dir=DATA

Cut to what two CPU cores do in an hour: 20,000 images and 10 epochs for teacher
and students alike. `cifar10_resnet56_resnet20.py` beside it is the full size.
"""

import ml_collections


def get_config():
  """The same epochs, rate, augmentation and images for all three."""
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'tfds',
    'dataset': 'cifar10',
    'validation': 5000,
    'few': 20000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'resnet20'}
  config.student = {'name': 'resnet8'}
  config.batch_size = 128
  config.epochs = 10
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'distilled student': {'name': 'kd'},
    },
    sort_keys=False,
  )
  return config
