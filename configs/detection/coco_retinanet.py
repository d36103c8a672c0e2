"""SSKD, Table 9: RetinaNet on COCO, ResNet-18 or 50 from ResNet-101 or 152.

  jaxdistill --config=configs/detection/coco_retinanet.py:18-101 \
    --config.data.path=FOLDER --config.teacher.checkpoint=teacher.safetensors

The other pairs are 18-152, 50-101 and 50-152. Without
--config.teacher.checkpoint, the teacher is trained from new weights, which the
paper does not do.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018. The rivals are FitNets at each level of the pyramid; CWD: Shu et al.,
Channel-wise Knowledge Distillation for Dense Prediction, 2020; and FGD: Yang et
al., Focal and Global Knowledge Distillation for Detectors, 2021.

Data: COCO 2017, FOLDER/train2017, FOLDER/val2017 and FOLDER/annotations. The
paper's trainval35k and minival are these images. They are resized to fit into
1024x1024, which has about as many pixels as the paper's images with a shorter
side of 800.

Setting: the schedule called 2x: 180,000 steps with batches of 16, and a rate of
0.01 that falls to a tenth after 120,000 and again after 160,000 steps. The
argument 18-101,1x halves this length. The third part of 18-101,1x,8 is the
number of images in a batch; with 8, there are twice as many steps, and all
rates are half as large. SSKD divides the same number of steps among the four
groups, the pyramid and the head. Batch norms keep their running statistics. The
weights of CWD and FGD are those of their authors; that of FitNets was not
tuned. Students start from new weights. To start from those of ImageNet, as the
paper does, add the section `initial`; see the guide "Find objects".

Held out: nothing of the 118,287 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's AP/AP50/AP75: ResNet-18 32.4/50.8/34.1, ResNet-50 35.9/55.3/38.2,
ResNet-101 37.6/57.1/40.2, ResNet-152 39.9/59.7/42.8; SSKD 18-101
35.5/53.7/37.4, 18-152 35.6/54.2/37.5, 50-101 37.2/56.9/40.0, 50-152
38.7/58.0/41.6.
"""

PAIRS = ('18-101', '18-152', '50-101', '50-152')
IMAGES, USUAL_BATCH = 118_287, 16
STEPS = {'2x': 180_000, '1x': 90_000}  # with the usual batches
# The last number may be any other number of images.
FORMS = ('{}', '{},1x', '{},1x,8')
ARGUMENTS = tuple(form.format(pair) for form in FORMS for pair in PAIRS)
GROUPS = tuple((f'group{k}', f'group{k}') for k in (1, 2, 3, 4))
PYRAMID = tuple((f'p{k}', f'p{k}') for k in (3, 4, 5, 6, 7))


def network(depth):
  """Returns a RetinaNet on a ResNet of some depth."""
  return {
    'name': 'retinanet',
    'network': {'name': f'resnet{depth}', 'frozen_norms': True},
  }


def get_config(argument='18-101'):
  """Returns the rows of 'PAIR', 'PAIR,LENGTH' or 'PAIR,LENGTH,IMAGES'."""
  return rows(*argument.split(','))


def rows(pair, length='2x', batch_size=USUAL_BATCH):
  """Returns rows for a pair of student and teacher."""
  student, teacher = pair.split('-')
  batch_size = int(batch_size)
  epochs = STEPS[length] * USUAL_BATCH / IMAGES
  share = batch_size / USUAL_BATCH
  optimizer = {
    'name': 'sgd',
    'nesterov': False,
    'schedule': {
      'name': 'step',
      'rate': 0.01 * share,
      'boundaries': (2 / 3, 8 / 9),
      'warmup': 500 / STEPS[length],
    },
    'weight_decay': 1e-4,
  }
  return {
    'data': {
      'name': 'coco',
      'path': 'coco',
      'image_size': (1024, 1024),
      'validation': 0,
    },
    'task': {'name': 'detection'},
    'augment': {'name': 'crop_flip', 'padding': 0},
    'teacher': {**network(teacher), 'training': {'epochs': epochs}},
    'student': network(student),
    'batch_size': batch_size,
    'epochs': epochs,
    'optimizer': optimizer,
    'methods': {
      'student alone': {'name': 'supervised'},
      'FitNets': {
        'name': 'hint',
        'weight': 1.0,
        'activation': False,
        'feature_pairs': PYRAMID,
      },
      'CWD': {'name': 'cwd', 'weight': 10.0, 'feature_pairs': PYRAMID},
      'FGD': {
        'name': 'fgd',
        'feature_pairs': PYRAMID,
        'optimizer': {'clip': 35.0},
      },
      'SSKD': {
        'name': 'sskd',
        'cut': (*GROUPS, PYRAMID),
        'stage_optimizer': {
          'name': 'sgd',
          'schedule': {
            'name': 'step',
            'rate': 0.01 * share,
            'boundaries': (0.3, 0.6, 0.9),
          },
          'weight_decay': 1e-4,
          'clip': 10.0,  # without it, a small pyramid diverged
        },
        'head_optimizer': optimizer,
      },
    },
  }
