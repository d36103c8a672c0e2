"""Neighbourhood Distillation's Tables 2 and 5: ImageNet, ResNet-50.

  jaxdistill --config=configs/neighbourhood/imagenet_resnet50.py:0.75-3

'0.75-3' narrows both inner layers of each bottleneck, '0.75-2' the first, with
the third a copy of the teacher's. ':noisy' trains Table 5's teacher, under
noise behind every block; its export is then the teacher of the others
(`--config.teacher.checkpoint=...`). The paper gives neither rate nor length of
ND and of fine-tuning: they are ours. Made for GPUs; not run yet.

Paper, CE, KD, ND + FT, ND: 0.75-2: 75.4 76.0 76.3 72.8; 0.75-3: 75.1 75.5 76.1
64.7; 0.50-2: 73.6 74.9 74.9 68.8; teacher 76.2. Table 5, ND before fine-tuning
with the plain and the noisy teacher: 0.75-3: 57.63 63.21; 0.50-3: 25.7 32.9.
"""

import ml_collections

ARGUMENTS = ('0.75-2', '0.75-3', '0.50-2', '0.50-3', 'noisy')


def get_config(student='0.75-2'):
  """The rows of one student."""
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'tfds',
    'dataset': 'imagenet2012',
    'validation': 10000,
    'image_size': 256,
  }
  config.augment = {'name': 'imagenet'}
  config.batch_size = 32
  config.epochs = 200
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.02,
    'boundaries': tuple(e / 200 for e in range(30, 200, 30)),
    'factor': 0.2,
  }
  network = {'name': 'resnet50'}
  if student == 'noisy':
    config.student = {'name': 'noisy', 'network': network, 'sigma': 0.1}
    config.method = {'name': 'supervised'}
    return config
  multiplier, layers = student.split('-')
  config.teacher = network
  config.student = {
    'name': 'narrowed',
    'network': network,
    'multiplier': float(multiplier),
    'inner_after': layers == '3',
  }
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'kd': kd,
      'neighbourhoods': {
        'name': 'neighbourhood',
        'by_layers': layers == '2',
        'copy_same': layers == '2',
        'neighbourhood_epochs': 60,
        'fine_tune': kd,
        'epochs': 50,
        'schedule': {'name': 'constant', 'rate': 1e-2},
      },
    },
    sort_keys=False,
  )
  return config
