"""DistPro, Table 5 and Section 4.4: semantic segmentation of Cityscapes.

  jaxdistill --config=configs/dense/cityscapes.py --config.data.path=FOLDER \
    --config.teacher.weights=teacher.safetensors
  jaxdistill --config=configs/dense/cityscapes.py:directions \
    --config.data.path=FOLDER --config.teacher.weights=teacher.safetensors

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022. Its baseline IFVD is Wang et al., Intra-class Feature
Variation Distillation for Semantic Segmentation, 2020, without the
discriminator, as in DistPro.

Data: FOLDER/train/images and FOLDER/train/masks with the 2,975 training images
and their masks of "train ids" (NAME_gtFine_labelTrainIds.png, from the scripts
of Cityscapes) as NAME.png, and FOLDER/test with the 500 validation images. They
are decoded while the networks train.

Setting: a PSPNet on ResNet-101 teaches one on MobileNetV2, both at an eighth of
the resolution; 40,000 steps of batch size 8, crops of 512x512, and a rate that
falls from 0.01 with the power 0.9. The teacher's weights are read from a file;
without one, the teacher is trained from new weights, unlike in the papers. The
student starts from new weights too, unlike in the papers, unless you add:

    --config.initial.name=pretrained --config.initial.path=mobilenet_v2.pth \
    --config.initial.network.name=mobilenet_v2 \
    --config.initial.network.num_classes=1000

The rate rises in the first 2.5 % of the steps, and gradients are clipped at a
norm of 5, because others who tried to reproduce the numbers of IFVD did not
succeed, and had runs that failed. With ':directions', the student is a PSPNet
on ResNet-18, and two directions of constant pathways are compared, as in
Section 4.4.

Held out: nothing of the 2,975 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's mIoU (standard deviation) of student, IFVD, IFVD + ReviewKD and
IFVD + DistPro: 66.92 (0.72), 68.31 (0.26), 69.03 (0.37), 69.12 (0.46). For
the directions: 73.9 with pathways from the teacher's last map to the student's
first three, and 73.5 with pathways from lower to higher maps.
"""

ARGUMENTS = ('table5', 'directions')

CLASSES = (
  *('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light'),
  *('traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car'),
  *('truck', 'bus', 'train', 'motorcycle', 'bicycle'),
)
# IFVD's weight 10 is averaged over the classes by its authors.
IFVD = {
  'pixel_kd': {'weight': 10 / len(CLASSES)},
  'ifv': {'weight': 200.0},
}
IMAGES, BATCH_SIZE, STEPS = 2975, 8, 40_000
EPOCHS = STEPS * BATCH_SIZE / IMAGES
STUDENTS = {
  'table5': {
    'name': 'mobilenet_v2',
    'strides': (1, 2, 2, 1, 1, 1, 1),
    'dilations': (1, 1, 1, 2, 2, 4, 4),
  },
  'directions': {
    'name': 'resnet18',
    'stem': 'deep',
    'strides': (1, 2, 1, 1),
    'dilations': (1, 1, 2, 4),
  },
}
LOW_TO_HIGH = {'name': 'same_or_deeper'}
LAST_TO_FIRST = {
  'name': 'all_pairs',
  'transforms': ('T4',),
  'student': ('group1.pre', 'group2.pre', 'group3.pre'),
  'teacher': ('group4.pre',),
}


def equal_weights(space):
  """Returns IFVD with pathways that all have the same constant weight."""
  return {
    'name': 'distpro_retrain',
    'use': 'equal',
    'space': space,
    'terms': IFVD,
  }


def rows(table):
  """Returns the rows of a table, or of the ablation of directions."""
  ifvd = {'name': 'joint', 'terms': IFVD}
  if table == 'directions':
    return {
      'IFVD': ifvd,
      'IFVD + low to high': equal_weights(LOW_TO_HIGH),
      'IFVD + last to first': equal_weights(LAST_TO_FIRST),
    }
  return {
    'student': {'name': 'supervised'},
    'CWD': {'name': 'cwd'},
    'IFVD': ifvd,
    'IFVD + ReviewKD': {
      'name': 'joint',
      'terms': {**IFVD, 'reviewkd': {'weight': 1.0}},
    },
    'IFVD + equal weights': equal_weights(LOW_TO_HIGH),
    'IFVD + DistPro': {
      'name': 'distpro',
      'search_epochs': EPOCHS / 6,
      'space': LOW_TO_HIGH,
      'terms': IFVD,
    },
  }


def get_config(table='table5'):
  """Returns rows of 40,000 steps; DistPro's search is extra."""
  return {
    'data': {
      'name': 'mask_folder',
      'path': 'cityscapes',
      'label_names': CLASSES,
      'validation': 0,
    },
    'task': {'name': 'segmentation'},
    'augment': {'name': 'scale_crop', 'size': (512, 512)},
    'teacher': {
      'name': 'psp',
      'width': 512,
      'auxiliary': True,
      'network': {
        'name': 'resnet101',
        'stem': 'deep',
        'strides': (1, 2, 1, 1),
        'dilations': (1, 1, 2, 4),
      },
    },
    'student': {
      'name': 'psp',
      'width': 128,
      'auxiliary': True,
      'network': STUDENTS[table],
    },
    'batch_size': BATCH_SIZE,
    'epochs': EPOCHS,
    'evaluate_every': 10,
    'seeds': 3,
    'optimizer': {
      'name': 'sgd',
      'schedule': {
        'name': 'polynomial',
        'rate': 0.01,
        'power': 0.9,
        'warmup': 0.025,
      },
      'weight_decay': 5e-4,
      'clip': 5.0,
    },
    'methods': rows(table),
  }
