"""SSKD, Table 7 on a small scale: 28 subjects of the ORL faces, 12 for testing.

  jaxdistill --config=configs/faces/orl.py --config.data.path=FOLDER

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Data: the 400 grey faces of 40 subjects from AT&T Laboratories Cambridge, as
FOLDER/train/s01 to s28 and FOLDER/test/s29 to s40, ten images each. A false
acceptance rate of 0.001 stands for only seven impostor pairs, and is not
measured.

Setting: a ResNet-50 and a ResNet-18 of a quarter of the usual width, images of
32x32 pixels, and an embedding of 64 entries. The number of
epochs of a stage makes SSKD as costly as KD, if one counts multiply-adds, and a
backward pass as two forward passes. The weights of the rivals are the paper's
for ImageNet. At a rate of 0.03, one of three runs of SSKD had an infinite loss,
so that its rate is 0.01; nothing else was tuned. There is no validation split:
the last epoch counts.

Hardware and time: one CPU core, with 600 steps for the teacher, 300 for each
run of a rival, and 600 for each of SSKD; two to four minutes a run.

RESULTS.md has the table. The teacher is worse than the student alone, and no
better than the cosines of the pixels themselves. We have not found a better
teacher yet, so that the table says nothing about the paper's claim.
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
          'schedule': {'name': 'cosine', 'rate': 0.01},
        },
      },
    },
  }
