"""SSKD, Table 7 in small: 28 subjects of the ORL faces teach, 12 are unseen.

  jaxdistill --config=configs/faces/orl.py --config.data.path=FOLDER

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.
"""

EMBEDDING = 64
EPOCHS = 30
STAGE_EPOCHS = 12
WIDTHS = (16, 32, 64, 128)
CUT = tuple(
  (name, name) for name in ('group1', 'group2', 'group3', 'group4', 'embedding')
)


def network(name):
  """Returns a narrow ResNet with an embedding."""
  return {
    'name': 'embedded',
    'size': EMBEDDING,
    'network': {
      'name': f'cifar_{name}',
      'stem_width': 16,
      'stem_stride': 2,
      'widths': WIDTHS,
    },
  }


def get_config():
  """Returns the rows of Table 7, with FitNets and AT beside them."""
  return {
    'data': {
      'name': 'identities',
      'path': 'orl_faces',
      'image_size': 32,
      'grey': True,
      'validation': 0,
    },
    'task': {'name': 'verification'},
    'augment': {'name': 'crop_flip'},
    'teacher': {**network('resnet50'), 'training': {'epochs': 2 * EPOCHS}},
    'student': network('resnet18'),
    'batch_size': 28,
    'epochs': EPOCHS,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.05},
    'methods': {
      'student alone': {'name': 'supervised'},
      'KD': {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0},
      'FitNets': {'name': 'hint', 'weight': 10.0},
      'AT': {'name': 'at', 'weight': 10.0},
      'SSKD': {
        'name': 'sskd',
        'cut': CUT,
        'head': False,
        'stage_epochs': STAGE_EPOCHS,
        'statistics_steps': 20,
        'stage_optimizer': {
          'name': 'sgd',
          'nesterov': False,
          'schedule': {'name': 'cosine', 'rate': 0.03},
        },
      },
    },
  }
