"""SSKD, Table 6: ResNet-34 teaches ResNet-18 on ImageNet.

  jaxdistill --config=configs/sskd/imagenet_resnet34_resnet18.py \
    --config.teacher.weights=resnet34.pth

The teacher has torchvision's weights; without the last line a teacher is
trained.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Setting: the paper's schedule gives each of four stages 60 epochs, and the
rivals 100. The paper does not give the rivals' rates; the values here are ours.

Held out: nothing of the 1,281,167 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's top-1/top-5 accuracy: student 69.57/89.24, teacher 73.55/91.46, KD
70.76/89.81, FitNets 70.66/89.23, AT 70.73/90.04, NST 70.76/89.59, SSKD
71.36/90.50.
"""


def get_config():
  """Returns SSKD with four stages, and its rivals.

  KD has the paper's weight of 15 over T^2 = 16, which our loss contains.
  """
  boundaries = (0.3, 0.6, 0.9)
  optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': 0,
      'image_size': 256,
    },
    'augment': {'name': 'imagenet'},
    'teacher': {'name': 'resnet34', 'training': {'epochs': 100}},
    'student': {'name': 'resnet18'},
    'batch_size': 256,
    'epochs': 100,
    'optimizer': optimizer,
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': boundaries},
    'methods': {
      'student alone': {'name': 'supervised'},
      'sskd': {
        'name': 'sskd',
        'num_stages': 4,
        'stage_epochs': 60,
        'head_epochs': 60,
        'stage_optimizer': {
          **optimizer,
          'schedule': {'name': 'step', 'rate': 0.01, 'boundaries': boundaries},
        },
      },
      'kd': {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0},
      'fitnets': {'name': 'hint', 'weight': 10.0},
      'at': {'name': 'at', 'weight': 10.0},
      'nst': {'name': 'nst', 'weight': 100.0},
    },
  }
