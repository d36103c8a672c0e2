"""SSKD and its rivals on small detectors: blood cells, BCCD.

  jaxdistill --config=configs/detection/bccd.py --config.data.path=FILE

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018, Table 9, on a small scale. The networks are RetinaNets. SSKD trains the
student's backbone and pyramid stage by stage, and its head on the labels.

Data: https://github.com/Shenggan/BCCD_Dataset, 364 images of blood with boxes
of red cells, white cells and platelets. FILE is an npz file with these arrays:
train_image, uint8 [N, 120, 160, 3], the images of the splits train and val;
train_boxes, float32 [N, M, 4], (top, left, bottom, right) in pixels of these
images; train_classes, int32 [N, M], with -1 where there is no box; test_image,
test_boxes and test_classes, the same for the split test; and label_names.

Setting: RetinaNets on ResNet-18 without max-pooling, so that the finest map has
one place for 4 pixels; the teacher is twice as wide as the student. The sides
of the anchors are 2.5, 4 and 6.3 places of their level, which are 10, 16 and 25
pixels at the finest level. Platelets have 10 pixels and red cells 26. Images
are zoomed by 0.8 to 1.25 and mirrored. The rate was chosen from 0.002 and 0.005
by the validation AP50 of one student that was trained alone for 15 epochs. The
stages of SSKD have 6 epochs each, so that the multiply-adds of SSKD are about
those of FitNets; a backward pass counts as two forward passes. The weights of
CWD and FGD are those of their authors, and that of FitNets is 1.

Hardware and time: one CPU core; 5 minutes for the teacher, and 2 to 3 minutes
for each run of a student.

Test AP50 and AP of three seeds: student alone 67.8 and 41.5, FitNets 70.3 and
41.9, CWD 72.1 and 42.8, FGD 64.7 and 38.6, SSKD 71.5 and 40.6; teacher 80.5 and
47.1. RESULTS.md says more, also about the levels p6 and p7.
"""


def network(width):
  """Returns a RetinaNet on a ResNet-18 of some width."""
  return {
    'name': 'retinanet',
    'width': 2 * width,
    'depth': 1,
    'size': 2.5,
    'scales': (1.0, 1.6, 2.5),
    'network': {
      'name': 'resnet18',
      'stem_width': width,
      'stem_pool': False,
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
PYRAMID = tuple((f'p{k}', f'p{k}') for k in (3, 4, 5, 6, 7))
# Fewer than 1 % of the cells overlap an anchor of p6 by half, and none of p7.
USED = PYRAMID[:3]


def get_config():
  """Returns the rows of the table."""
  return {
    'data': {'name': 'npz', 'path': 'bccd.npz', 'validation': 32},
    'task': {'name': 'detection', 'score': 'ap50'},
    'augment': {'name': 'scale_crop', 'size': (120, 160), 'scale': (0.8, 1.25)},
    'teacher': {**network(16), 'training': {'epochs': 40}},
    'student': network(8),
    'batch_size': 8,
    'epochs': 20,
    'evaluate_every': 10,
    'seeds': 3,
    'optimizer': OPTIMIZER,
    'methods': {
      'student alone': {'name': 'supervised'},
      'FitNets': {
        'name': 'hint',
        'weight': 1.0,
        'activation': False,
        'feature_pairs': USED,
      },
      'CWD': {'name': 'cwd', 'weight': 10.0, 'feature_pairs': PYRAMID},
      'FGD': {
        'name': 'fgd',
        'feature_pairs': USED,
        'optimizer': {'clip': 35.0},
      },
      'SSKD': {
        'name': 'sskd',
        'cut': (*GROUPS, USED),
        'stage_epochs': 6,
        'head_epochs': 20,
        'stage_optimizer': OPTIMIZER,
        'head_optimizer': OPTIMIZER,
      },
    },
  }
