"""SSKD and its rivals on small two-stage detectors: blood cells, BCCD.

  jaxdistill --config=configs/detection/bccd_two_stage.py \
    --config.data.path=FILE

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018, Table 8, on a small scale. The networks are Faster R-CNNs with a feature
pyramid. SSKD trains the student's backbone and pyramid stage by stage, and its
region proposal network and head on the labels.

Data: FILE is that of `configs/detection/bccd.py`.

Setting: Faster R-CNNs on ResNet-18; the teacher is twice as wide as the
student. The finest anchors have sides of 16 pixels, half of the usual size, and
there are 64 proposals for each image. Images are zoomed by 0.8 to 1.25 and
mirrored. The rate is that of `bccd.py`, and nothing was tuned. The stages of
SSKD have a third of the epochs of the other rows. The weight of CWD is that of
its authors for RetinaNet.

Hardware and time: one CPU core; 5 minutes for the teacher, and 1 to 2 minutes
for each run of a student.

Test AP50 and AP of three seeds: student alone 70.5 and 39.5, FitNets 66.9 and
38.7, CWD 67.7 and 38.3, SSKD 59.4 and 33.8; teacher 89.0 and 52.7. RESULTS.md
says more.
"""


def network(width):
  """Returns a Faster R-CNN on a ResNet-18 of some width."""
  return {
    'name': 'faster_rcnn',
    'width': 2 * width,
    'head_width': 8 * width,
    'size': 4.0,
    'count': 64,
    'candidates': 128,
    'network': {
      'name': 'resnet18',
      'stem_width': width,
      'widths': (width, 2 * width, 4 * width, 8 * width),
    },
  }


OPTIMIZER = {
  'name': 'adamw',
  'schedule': {'name': 'cosine', 'rate': 0.005, 'warmup': 0.05},
  'weight_decay': 0.01,
  'clip': 10.0,
}
GROUPS = tuple((f'group{k}', f'group{k}') for k in (1, 2, 3, 4))
PYRAMID = tuple((f'p{k}', f'p{k}') for k in (2, 3, 4, 5))


def get_config():
  """Returns the rows of the table."""
  return {
    'data': {'name': 'npz', 'path': 'bccd.npz', 'validation': 32},
    'task': {
      'name': 'two_stage_detection',
      'score': 'ap50',
      'region_samples': 64,
    },
    'augment': {'name': 'scale_crop', 'size': (120, 160), 'scale': (0.8, 1.25)},
    'teacher': {**network(16), 'training': {'epochs': 24}},
    'student': network(8),
    'batch_size': 8,
    'epochs': 12,
    'evaluate_every': 6,
    'seeds': 3,
    'optimizer': OPTIMIZER,
    'methods': {
      'student alone': {'name': 'supervised'},
      'FitNets': {
        'name': 'hint',
        'weight': 1.0,
        'activation': False,
        'feature_pairs': PYRAMID,
      },
      'CWD': {'name': 'cwd', 'weight': 10.0, 'feature_pairs': PYRAMID},
      'SSKD': {
        'name': 'sskd',
        'cut': (*GROUPS, PYRAMID),
        'stage_epochs': 4,
        'head_epochs': 12,
        'stage_optimizer': OPTIMIZER,
        'head_optimizer': OPTIMIZER,
      },
    },
  }
