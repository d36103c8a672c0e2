"""SSKD, Table 7 on a small scale: 28 subjects of the ORL faces, 12 for testing.

  jaxdistill --config=configs/faces/orl.py --config.data.path=FOLDER \
    --config.teacher.checkpoint=TEACHER --fast_cpu

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Data: the 400 grey faces of 40 subjects from AT&T Laboratories Cambridge, as
FOLDER/train/s01 to s28 and FOLDER/test/s29 to s40, ten images each. A false
acceptance rate of 0.001 stands for only seven impostor pairs, and is not
measured.

Teacher: TEACHER is the file that docs/guides/faces.md writes in its section on
a teacher without training: the first five groups of an EfficientNet-Lite0 with
its weights of ImageNet, and an embedding of 112 entries by Fisher's linear
discriminant of the 28 subjects.

Setting: images of 64x64 pixels; students are ResNet-18s of an eighth of the
usual width, with new weights, whose groups have maps as large as those of the
teacher. All rows learn by AdamW and see the same zooms. The weights of the
rivals are the paper's for ImageNet. The length of the stages is estimated to
make SSKD as costly as KD. There is no validation split: the last epoch counts.

Tuned on nine held-out training subjects (validation=9): the teacher's last
group, the size of the images, the rate and length of SSKD's stages (two pairs),
and the rate of the student alone (0.002 or 0.01).

Hardware and time: one CPU core; about a minute of processor time for a run.

Test TAR at a FAR of 0.01, three seeds: student alone 49.8, KD 44.6, FitNets
49.3, AT 45.3, SSKD 52.8; teacher 80.2. RESULTS.md has the table.
"""

EMBEDDING = 112
EPOCHS = 120
STAGE_EPOCHS = 40
# The stems of student and teacher have strides of 4 and 2, so that groups with
# maps of the same size differ by one in their numbers.
MAPS = tuple((f'group{k}', f'group{k + 1}') for k in (1, 2, 3, 4))


def adamw(rate):
  """Returns AdamW with a cosine schedule."""
  return {'name': 'adamw', 'schedule': {'name': 'cosine', 'rate': rate}}


def get_config():
  """Returns the rows of Table 7, with FitNets and AT beside them."""
  return {
    'data': {
      'name': 'identities',
      'path': 'orl_faces',
      'image_size': 64,
      'validation': 0,
    },
    'task': {'name': 'verification'},
    'augment': {
      'name': 'imagenet',
      'size': 64,
      'scale': (0.7, 1.0),
      'ratio': (0.9, 1.1),
      'brightness': 0.3,
      'contrast': 0.3,
    },
    'teacher': {'checkpoint': 'orl_teacher.safetensors'},
    'student': {
      'name': 'embedded',
      'size': EMBEDDING,
      'network': {
        'name': 'resnet18',
        'stem_width': 16,
        'widths': (8, 16, 32, 64),
        'strides': (1, 2, 2, 1),
      },
    },
    'batch_size': 28,
    'epochs': EPOCHS,
    'evaluate_every': EPOCHS,
    'seeds': 3,
    'optimizer': adamw(0.002),
    'methods': {
      'student alone': {'name': 'supervised'},
      'KD': {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0},
      'FitNets': {
        'name': 'hint',
        'weight': 10.0,
        'activation': False,  # the teacher's groups do not end with a ReLU
        'feature_pairs': MAPS[2:3],
      },
      'AT': {'name': 'at', 'weight': 10.0, 'feature_pairs': MAPS},
      'SSKD': {
        'name': 'sskd',
        'cut': (*MAPS, ('embedding', 'embedding')),
        'head': False,
        'stage_epochs': STAGE_EPOCHS,
        'statistics_steps': 20,
        'stage_optimizer': adamw(0.01),
      },
    },
  }
