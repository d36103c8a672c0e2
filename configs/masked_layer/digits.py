"""Masked Layer Distillation on digits, from hostile initial weights.

  jaxdistill --config=configs/masked_layer/digits.py:SCHEME

The argument after the colon is the scheme of the student's initial weights, one
of the keys of `SCHEMES`.

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: a ResNet-14 teaches a ResNet-8 whose kernels start, for example, as
N(0, 1), many times too large. Both see 1,000 images. Every row has the same
epochs; those that learn the masks are additional. The row 'lars' trains from
scratch with LARS, the optimizer of the layers. In 'refinery, head', Label
Refinery begins with a copy of the teacher's head, as MLD does, and in
'refinery, head, lars' it also trains with LARS, so that only the masks and the
layers of MLD are missing. The learning rates were not tuned. Alpha is the
largest value whose noise costs the teacher at most 1 point on the 200
validation images.

Hardware and time: two CPU cores, a few minutes. Nothing is downloaded.
"""

SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
ARGUMENTS = tuple(SCHEMES)
EPOCHS, LOCAL_EPOCHS = 16, 8
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
# Without masks and layers, what remains of MLD is Label Refinery.
HEAD = {'name': 'masked_layer', 'layers': {'distance': 'l1', 'epochs': 0}}


def get_config(scheme='normal_0_1'):
  """Returns rows with 16 epochs each, of which the layers of MLD take 8."""
  if scheme not in SCHEMES:
    raise ValueError(f'expected one of {", ".join(SCHEMES)}, got {scheme!r}')
  small = {'widths': (8, 16, 32), 'stem_width': 8}
  layers = {'epochs': LOCAL_EPOCHS, 'statistics_steps': 20}
  mld = {
    'name': 'masked_layer',
    # With equal kernels, only breakpoints at layers tell filters apart.
    'breakpoints': 'layers' if scheme == 'normal_1_0' else 'blocks',
    'masks': {'max_drop': 1.0},
    'layers': layers,
    'epochs': EPOCHS - LOCAL_EPOCHS,
  }
  return {
    'data': {'name': 'digits'},
    'teacher': {'name': 'resnet14', **small, 'training': {'epochs': 20}},
    'student': {'name': 'resnet8', **small},
    'initial': SCHEMES[scheme],
    'batch_size': 50,
    'epochs': EPOCHS,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'scratch': {'name': 'supervised'},
      'lars': {'name': 'supervised', **LARS},
      'refinery': {'name': 'refinery'},
      'refinery, lars': {'name': 'refinery', **LARS},
      'refinery, head': HEAD,
      'refinery, head, lars': {**HEAD, **LARS},
      'mld': mld,
      'mld, lars': {**mld, **LARS},
      'mld, l1': {**mld, 'layers': {**layers, 'distance': 'l1'}},
      'mld, l2': {**mld, 'layers': {**layers, 'distance': 'l2'}},
    },
  }
