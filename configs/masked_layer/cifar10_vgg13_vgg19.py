"""MLD, Table 1 on a small scale: VGG-13 teaches VGG-19 on CIFAR-10.

  jaxdistill --config=configs/masked_layer/cifar10_vgg13_vgg19.py:normal_1_0 \
    --config.data.path=cifar10.npz --fast_cpu

The argument after the colon is the scheme of the student's initial weights, one
of the keys of `SCHEMES`.

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: both networks have a quarter of the width, and the student is deeper
than its teacher. Every row has the same epochs; the epoch that learns the masks
is additional, and in it they do not settle. The breakpoints are the ends of the
five groups. In the row 'mld, all layers' every convolution ends with a
breakpoint, and those that the teacher lacks learn the identity. The row 'lars'
trains from scratch with LARS, the optimizer of the layers, because LARS by
itself may repair a bad scheme. The rates were not tuned.

Hardware: two CPU cores.

Test accuracy: RESULTS.md has a run with an eighth of the width. There, the row
'mld, all layers' ends at 62.04 from N(1, 0), and 'mld' at 16.34.
`cifar10_table1.py` in the same folder is the full-size experiment.
"""

SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
ARGUMENTS = ('normal_1_0',)  # the one that the tests build
EPOCHS, LOCAL_EPOCHS = 10, 4


def get_config(scheme='xavier'):
  """Returns scratch, Label Refinery, and three rows of MLD."""
  if scheme not in SCHEMES:
    raise ValueError(f'expected one of {", ".join(SCHEMES)}, got {scheme!r}')
  layers = {'epochs': LOCAL_EPOCHS, 'statistics_steps': 20}
  mld = {
    'name': 'masked_layer',
    'masks': {'alpha': 1e-2, 'value': 0.5, 'epochs': 1.0},
    'layers': layers,
    'epochs': EPOCHS - LOCAL_EPOCHS,
  }
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
      'name': 'vgg13',
      'width': 0.25,
      'training': {'epochs': 12, 'batch_size': 64},
    },
    'student': {'name': 'vgg19', 'width': 0.25},
    'initial': SCHEMES[scheme],
    'batch_size': 256,
    'epochs': EPOCHS,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'scratch': {'name': 'supervised'},
      'lars': {'name': 'supervised', **LARS},
      'refinery': {'name': 'refinery'},
      'mld': mld,
      'mld, student-fed': {**mld, 'layers': {**layers, 'inputs': 'student'}},
      'mld, all layers': {
        **mld,
        'breakpoints': 'blocks',
        'repeat_teacher': True,
      },
    },
  }
