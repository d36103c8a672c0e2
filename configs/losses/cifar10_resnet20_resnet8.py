"""Eight methods with their published weights on 10,000 CIFAR-10 images.

  jaxdistill --config=configs/losses/cifar10_resnet20_resnet8.py \
    --config.data.path=cifar10.npz

Setting: ResNet-20 teaches ResNet-8, and every row has the same budget. To fit
into the time, all models see 10,000 images, the teacher for 12 epochs and the
students for 6.

Hardware and time: two CPU cores, about an hour.

Test accuracy over three seeds: student alone 55.36, ReviewKD (the best) 61.51,
AT (the worst) 48.86. RESULTS.md has all rows.

`cifar10_resnet56_resnet20.py` in the same folder is the full-size experiment.
"""

METHODS = ('kd', 'at', 'sp', 'rkd', 'crd', 'dkd', 'reviewkd', 'srrl')


def get_config():
  """Returns rows with the same epochs, rate, augmentation and seeds."""
  return {
    'data': {
      'name': 'npz',
      'path': 'cifar10.npz',
      'validation': 2000,
      'train_subset': 10000,
      'stratified': False,  # as in the runs of RESULTS.md
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'resnet20', 'training': {'epochs': 12}},
    'student': {'name': 'resnet8'},
    'batch_size': 128,
    'epochs': 6,
    'evaluate_every': 3,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'student alone': {'name': 'supervised'},
      **{name: {'name': name} for name in METHODS},
    },
  }
