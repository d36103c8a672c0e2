"""Neighbourhood Distillation, Tables 2 and 5: ResNet-50 on ImageNet.

  jaxdistill --config=configs/neighbourhood/imagenet_resnet50.py:0.75-3

The argument after the colon is the student. '0.75-3' narrows both inner layers
of each bottleneck. '0.75-2' narrows the first one, and the third layer is a
copy of the teacher's. ':noisy' trains Table 5's teacher, with noise after every
block; its export then serves as the teacher of the others
(`--config.teacher.checkpoint=...`).

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: the paper gives neither rate nor length of Neighbourhood Distillation
(ND) and of fine-tuning (FT). The values here are ours.

Held out: nothing of the 1,281,167 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's accuracy, student: CE, KD, ND + FT, ND: 0.75-2: 75.4 76.0 76.3 72.8;
0.75-3: 75.1 75.5 76.1 64.7; 0.50-2: 73.6 74.9 74.9 68.8; the teacher has 76.2.
Table 5, ND before fine-tuning with the plain and with the noisy teacher:
0.75-3: 57.63 63.21; 0.50-3: 25.7 32.9.
"""

ARGUMENTS = ('0.75-2', '0.75-3', '0.50-2', '0.50-3', 'noisy')


def get_config(student='0.75-2'):
  """Returns the rows of one student, or the training of the noisy teacher."""
  network = {'name': 'resnet50'}
  setting = {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': 0,
      'image_size': 256,
    },
    'augment': {'name': 'imagenet'},
    'batch_size': 32,
    'epochs': 200,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.02,
      'boundaries': tuple(e / 200 for e in range(30, 200, 30)),
      'factor': 0.2,
    },
  }
  if student == 'noisy':
    return {
      **setting,
      'student': {'name': 'noisy', 'network': network, 'sigma': 0.1},
      'method': {'name': 'supervised'},
    }
  multiplier, layers = student.split('-')
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  return {
    **setting,
    'teacher': network,
    'student': {
      'name': 'narrowed',
      'network': network,
      'multiplier': float(multiplier),
      'inner_after': layers == '3',
    },
    'methods': {
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
  }
