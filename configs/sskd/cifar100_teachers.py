"""SSKD, Table 4: ResNet-20 taught by networks of other families on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/sskd/cifar100_teachers.py:vgg16

The argument after the colon is the teacher: `vgg16`, `resnet56`, `resnet110` or
`densenet121`.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Setting: the boundaries of the stages are where the feature maps of both
networks have equal sizes. The exception is the last boundary, where the
student's 8x8 map is resized.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config.

Paper's top-1 accuracy of teacher and student: VGG-16 71.03, 69.98; ResNet-56
71.21, 70.77; ResNet-110 71.86, 70.84; DenseNet-121 75.45, 73.27.
"""

GROUPS = ('group1', 'group2', 'group3')
# Argument -> the teacher's network and its features at the boundaries.
TEACHERS = {
  'vgg16': ('vgg16', ('group1', 'group2', 'group5')),
  'resnet56': ('resnet56', GROUPS),
  'resnet110': ('resnet110', GROUPS),
  'densenet121': ('cifar_densenet121', ('group1', 'group2', 'group4')),
}
ARGUMENTS = tuple(TEACHERS)


def get_config(teacher='vgg16'):
  """Returns SSKD with three stages; stages and head have 60 epochs each."""
  if teacher not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {teacher!r}')
  name, features = TEACHERS[teacher]
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar100', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': name},
    'student': {'name': 'resnet20'},
    'batch_size': 128,
    'epochs': 100,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (0.3, 0.6, 0.9),
    },
    'methods': {
      'student alone': {'name': 'supervised'},
      'sskd': {
        'name': 'sskd',
        'cut': tuple(zip(GROUPS, features)),
        'stage_epochs': 60,
        'head_epochs': 60,
      },
    },
  }
