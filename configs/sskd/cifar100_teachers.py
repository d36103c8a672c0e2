"""SSKD's Table 4: ResNet-20 taught by networks of other families.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/sskd/cifar100_teachers.py:vgg16

or `:resnet56`, `:resnet110`, `:densenet121`. Stages meet where the maps are of
equal size, but the last ones of both: there the student's 8x8 map is resized.
Made for a GPU; not run yet.

Paper, top-1 of teacher and student: VGG-16 71.03, 69.98; ResNet-56 71.21,
70.77; ResNet-110 71.86, 70.84; DenseNet-121 75.45, 73.27.
"""

import ml_collections

GROUPS = ('group1', 'group2', 'group3')
TEACHERS = {
  'vgg16': ('vgg16', ('group1', 'group2', 'group5')),
  'resnet56': ('resnet56', GROUPS),
  'resnet110': ('resnet110', GROUPS),
  'densenet121': ('cifar_densenet121', ('group1', 'group2', 'group4')),
}
ARGUMENTS = tuple(TEACHERS)


def get_config(teacher='vgg16'):
  """Three stages, 60 epochs each, and 60 for the head."""
  if teacher not in ARGUMENTS:
    raise ValueError(f'{teacher!r} is none of {", ".join(ARGUMENTS)}')
  name, features = TEACHERS[teacher]
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar100', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': name}
  config.student = {'name': 'resnet20'}
  config.batch_size = 128
  config.epochs = 100
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.1,
    'boundaries': (0.3, 0.6, 0.9),
  }
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'sskd': {
        'name': 'sskd',
        'cut': tuple(zip(GROUPS, features)),
        'stage_epochs': 60,
        'head_epochs': 60,
      },
    },
    sort_keys=False,
  )
  return config
