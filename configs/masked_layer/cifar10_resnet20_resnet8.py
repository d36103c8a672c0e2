"""MLD, Table 1 on a small scale, and an ablation: ResNet-20 -> ResNet-8.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill \
    --config=configs/masked_layer/cifar10_resnet20_resnet8.py:normal_1_0 \
    --config.data.data_dir=DATA --fast_cpu

The argument after the colon is the scheme of the student's initial weights, one
of the keys of `SCHEMES`. If ',ablation' follows it, the rows vary the distance
(masked L1, L1, L2) and the input of a group (teacher's or student's features).

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: ResNets of half the width and 10,000 images. Every row has the same
epochs; the epoch that learns the masks is additional. In the rows with 'lars'
the whole student is trained by LARS, the optimizer of the layers, because LARS
by itself may repair a bad scheme. If all kernels start with equal values, those
inside a block stay equal, except in the rows 'mld, layers'. After the first
run, `--config.teacher.checkpoint=` with its work directory saves training the
teacher again.

Alpha 0.003 costs the noised teacher about 2 points of accuracy after this epoch
of 39 steps, in which the masks do not settle, and 0.01 costs 5. We tried 0.001,
0.003, 0.01, 0.03 and 0.1 with one seed. The default would search for alpha, and
learn until the masks settle. The rates were not tuned.

Hardware and time: one CPU core; a run takes 56 seconds (from scratch) to 140
seconds (MLD).

Test accuracy over three seeds: RESULTS.md has the table of all schemes, and the
ablation. `cifar10_table1.py` in the same folder is the full-size experiment.
"""

SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
ARGUMENTS = ('normal_1_0', 'xavier,ablation')  # the ones that the tests build
HALF = {'widths': (8, 16, 32), 'stem_width': 8}
EPOCHS, LOCAL_EPOCHS = 6, 2.5


def mld(layers=None, **arguments):
  """Returns masked layers that hand the student to Label Refinery."""
  return {
    'name': 'masked_layer',
    'breakpoints': 'blocks',
    'masks': {'alpha': 3e-3, 'epochs': 1.0},
    'layers': {
      'epochs': LOCAL_EPOCHS,
      'statistics_steps': 20,
      **(layers or {}),
    },
    'epochs': EPOCHS - LOCAL_EPOCHS,
    **arguments,
  }


def ablation_rows():
  """Returns a row for each distance and each input of a group."""
  return {
    f'{distance}, fed by {source}': mld(
      {'distance': distance, 'inputs': source}
    )
    for distance in ('masked_l1', 'l1', 'l2')
    for source in ('teacher', 'student')
  }


def table_rows(scheme):
  """Returns the rows of the table for one scheme of initial weights."""
  rows = {
    'scratch': {'name': 'supervised'},
    'lars': {'name': 'supervised', **LARS},
    'refinery': {'name': 'refinery'},
    'refinery, lars': {'name': 'refinery', **LARS},
    'mld': mld(),
    'mld, lars': mld(**LARS),
  }
  if scheme == 'normal_1_0':
    rows['mld, layers'] = mld(breakpoints='layers')
    rows['mld, layers, lars'] = mld(breakpoints='layers', **LARS)
  return rows


def get_config(setting='xavier'):
  """Returns the table's rows, or the ablation's, for one scheme."""
  scheme, ablation = (
    setting.removesuffix(',ablation'),
    setting.endswith(',ablation'),
  )
  if scheme not in SCHEMES:
    raise ValueError(
      f'expected one of {", ".join(SCHEMES)}, each also with ,ablation, got '
      f'{setting!r}'
    )
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 2000,
      'train_subset': 10000,
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {
      'name': 'resnet20',
      **HALF,
      'training': {'epochs': 12, 'batch_size': 128},
    },
    'student': {'name': 'resnet8', **HALF},
    'initial': SCHEMES[scheme],
    'batch_size': 256,
    'epochs': EPOCHS,
    'evaluate_every': 3,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': ablation_rows() if ablation else table_rows(scheme),
  }
