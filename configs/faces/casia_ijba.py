"""SSKD, Table 7: ResNet-50 teaches ResNet-18 on CASIA-WebFace, tested on IJB-A.

  jaxdistill --config=configs/faces/casia_ijba.py --config.data.path=FOLDER

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Data: FOLDER/train with one folder for each of the 10,575 subjects of
CASIA-WebFace, 494,414 images; FOLDER/ijba with the images of IJB-A; and
FOLDER/ijba.csv, which lists the images of the ten splits of its protocol for
identification, with the columns file, identity, template, gallery and protocol.
All faces are aligned crops. Every template of a gallery is compared with every
probe of its split, whereas IJB-A's own protocol for verification has a list of
pairs.

Setting: the paper names the networks and the data, and says that SSKD does not
train the classifier and that testing does not use it. We chose the rest: crops
of 112x112, an embedding of 256 entries, the softmax, 20 epochs for the rivals
and 12 for each stage of SSKD, which is the paper's ratio on ImageNet, and for
the rivals the weights that they have on ImageNet.

Held out: nothing of the 494,414 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's TAR at FAR 0.01 and 0.001, rank-1 and rank-5: student 76.9, 55.2, 84.6,
92.4; teacher 83.7, 59.3, 90.1, 95.8; KD 77.2, 55.4, 85.3, 93.0; SSKD 80.5,
56.9, 86.8, 93.5. The paper has no rows for FitNets and AT.
"""

EPOCHS, STAGE_EPOCHS = 20, 12
BOUNDARIES = (0.3, 0.6, 0.9)
CUT = tuple(
  (name, name) for name in ('group1', 'group2', 'group3', 'group4', 'embedding')
)


def network(name):
  """Returns a ResNet with an embedding before its classifier."""
  return {'name': 'embedded', 'size': 256, 'network': {'name': name}}


def get_config():
  """Returns the rows of Table 7, and FitNets and AT beside them."""
  optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  return {
    'data': {
      'name': 'identities',
      'path': 'casia_ijba',
      'table': 'ijba.csv',
      'image_size': 112,
      'validation': 0,
    },
    'task': {'name': 'verification'},
    'augment': {'name': 'crop_flip'},
    'teacher': {**network('resnet50'), 'training': {'epochs': EPOCHS}},
    'student': network('resnet18'),
    'batch_size': 256,
    'epochs': EPOCHS,
    'optimizer': optimizer,
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': BOUNDARIES},
    'methods': {
      'student alone': {'name': 'supervised'},
      # The paper's weight is 15; our loss already contains T^2 = 16.
      'kd': {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0},
      'fitnets': {'name': 'hint', 'weight': 10.0},
      'at': {'name': 'at', 'weight': 10.0},
      'sskd': {
        'name': 'sskd',
        'cut': CUT,
        'head': False,
        'stage_epochs': STAGE_EPOCHS,
        'stage_optimizer': {
          **optimizer,
          'schedule': {'name': 'step', 'rate': 0.01, 'boundaries': BOUNDARIES},
        },
      },
    },
  }
