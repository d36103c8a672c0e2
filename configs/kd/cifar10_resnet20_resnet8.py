"""Distillation on 20,000 CIFAR-10 images: ResNet-20 teaches ResNet-8.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/kd/cifar10_resnet20_resnet8.py \
    --config.data.data_dir=DATA

Paper: Hinton et al., Distilling the Knowledge in a Neural Network, 2015. This
is a small experiment of our own, not one of the paper's tables.

Hardware and time: two CPU cores, about an hour. To fit into it, teacher and
students see 20,000 images for 10 epochs.

Test accuracy over three seeds: teacher 76.51, student alone 69.58, distilled
student 72.07. RESULTS.md has the details.

`cifar10_resnet56_resnet20.py` in the same folder is the full-size experiment.
"""


def get_config():
  """Returns three models with equal epochs, rate, augmentation and images."""
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 5000,
      'train_subset': 20000,
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'resnet20'},
    'student': {'name': 'resnet8'},
    'batch_size': 128,
    'epochs': 10,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'student alone': {'name': 'supervised'},
      'distilled student': {'name': 'kd'},
    },
  }
