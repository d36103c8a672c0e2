"""Masked Layer Distillation on digits, from hostile initial weights.

  jaxdistill --config=configs/masked_layer/digits.py

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: a ResNet-14 teaches a ResNet-8 whose kernels start as N(0, 1), many
times too large. Both see 1,000 images. Every row has the same epochs; those
that learn the masks are additional. The row 'lars' trains from scratch with
LARS, the optimizer of the layers. The learning rates were not tuned. Alpha is
the largest value whose noise costs the teacher at most 1 point on the 200
validation images.

Hardware and time: two CPU cores, a few minutes. Nothing is downloaded.
"""

EPOCHS, LOCAL_EPOCHS = 16, 8


def get_config():
  """Returns rows with 16 epochs each, of which the layers of MLD take 8."""
  small = {'widths': (8, 16, 32), 'stem_width': 8}
  layers = {'epochs': LOCAL_EPOCHS, 'statistics_steps': 20}
  mld = {
    'name': 'masked_layer',
    'breakpoints': 'blocks',
    'masks': {'max_drop': 1.0},
    'layers': layers,
    'epochs': EPOCHS - LOCAL_EPOCHS,
  }
  return {
    'data': {'name': 'digits'},
    'teacher': {'name': 'resnet14', **small, 'training': {'epochs': 20}},
    'student': {'name': 'resnet8', **small},
    'initial': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
    'batch_size': 50,
    'epochs': EPOCHS,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'scratch': {'name': 'supervised'},
      'lars': {
        'name': 'supervised',
        'optimizer': {'name': 'lars', 'trust': 0.2},
      },
      'refinery': {'name': 'refinery'},
      'mld': mld,
      'mld, l1': {**mld, 'layers': {**layers, 'distance': 'l1'}},
      'mld, l2': {**mld, 'layers': {**layers, 'distance': 'l2'}},
    },
  }
