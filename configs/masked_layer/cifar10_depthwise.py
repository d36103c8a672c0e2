"""MLD, Tables 2 and 3 on a small scale: depthwise networks on CIFAR-10.

  jaxdistill --config=configs/masked_layer/cifar10_depthwise.py:depthwise \
    --config.data.path=cifar10.npz

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

The argument after the colon is the student:

  depthwise  a new MobileNetV1 of the teacher's kind
  deleted    the same without two of its blocks
  dense      for comparison, a narrow ResNet-20 taught by another one

The teacher of the first two is a MobileNetV1 of a quarter of the width, adapted
to small images.

Setting: 10,000 images of CIFAR-10. Every row has the same epochs; the epoch
that learns the masks is additional. The masks do not settle in this epoch, and
alpha is fixed; by default, it would be searched. In the rows with 'lars' the
whole student is trained by LARS, the optimizer of the layers. The rates were
not tuned. `analysis.curves.reached` tells after how many epochs a row reaches a
given accuracy.

Hardware and time: two CPU cores; with `--config.data.train_subset=5000` a run
takes 151 to 340 seconds, and the teacher 421.

Test accuracy with 5,000 images (':depthwise'): student alone 42.02, Label
Refinery 43.52, MLD + Label Refinery 53.81. RESULTS.md has all rows; ':deleted'
and ':dense' were not run. `imagenet_mobile.py` in the same folder is the
full-size experiment.
"""

DEPTHWISE = {
  'name': 'mobilenet_v1',
  'width': 0.25,
  'stem_stride': 1,
  'strides': (1, 2, 2, 2, 1),
}
DENSE = {'name': 'resnet20', 'widths': (8, 16, 32), 'stem_width': 8}
STUDENTS = {
  'depthwise': DEPTHWISE,
  'deleted': {
    'name': 'without',
    'network': DEPTHWISE,
    'names': ('group4.block3', 'group4.block5'),
  },
  'dense': DENSE,
}
ARGUMENTS = ('deleted', 'dense')  # the ones that the tests build
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
EPOCHS, LOCAL_EPOCHS = 10, 4


def mld(method, **arguments):
  """Returns masked layers that hand the student to `method`."""
  return {
    'name': 'masked_layer',
    'method': {'name': method},
    'epochs': EPOCHS - LOCAL_EPOCHS,
    'masks': {'alpha': 3e-3, 'epochs': 1.0},
    'layers': {'epochs': LOCAL_EPOCHS, 'statistics_steps': 20},
    **arguments,
  }


def get_config(student='depthwise'):
  """Returns Label Refinery and SRRL with and without masked layers."""
  if student not in STUDENTS:
    raise ValueError(f'expected one of {", ".join(STUDENTS)}, got {student!r}')
  rows = {'scratch': {'name': 'supervised'}}
  for method in ('refinery', 'srrl'):
    rows[method] = {'name': method}
    rows[f'mld + {method}'] = mld(method)
  rows['refinery, lars'] = {'name': 'refinery', **LARS}
  rows['mld + refinery, lars'] = mld('refinery', **LARS)
  return {
    'data': {
      'name': 'npz',
      'path': 'cifar10.npz',
      'validation': 2000,
      'train_subset': 10000,
      'stratified': False,  # as in the runs of RESULTS.md
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {
      **(DENSE if student == 'dense' else DEPTHWISE),
      'training': {'epochs': 30},
    },
    'student': STUDENTS[student],
    'batch_size': 128,
    'epochs': EPOCHS,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
