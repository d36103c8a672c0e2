"""Table 1 in small, and an ablation: CIFAR-10, 10,000 images, two CPU cores.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill \
    --config=configs/masked_layer/cifar10_resnet20_resnet8.py:normal_1_0 \
    --config.data.data_dir=DATA --fast_cpu

ResNets of half the width. The argument is the scheme of the student's initial
weights; with ',ablation' behind it the distance (masked L1, L1, L2) and what
feeds a group (teacher, student) are varied. 'lars' is LARS, as for the layers,
for the whole of a row, which alone may mend a scheme. Where all kernels begin
alike, those inside blocks stay so but for 'mld, layers'. After the first run,
`--config.teacher.checkpoint=` and its work directory spare the teacher. Every
row has the same epochs; the one of the masks is not counted. The full size is
beside it, `cifar10_table1.py`.
"""

import ml_collections

SCHEMES = {
  'normal_0_1': {'name': 'normal', 'mean': 0.0, 'std': 1.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_10': {'name': 'normal', 'mean': 1.0, 'std': 10.0},
  'xavier': {'name': 'xavier_uniform'},
}
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}
ARGUMENTS = ('normal_1_0', 'xavier,ablation')  # those that are tested
HALF = {'widths': (8, 16, 32), 'stem_width': 8}
EPOCHS, LOCAL_EPOCHS = 6, 2.5


def mld(**arguments):
  """Masked layers, then Label Refinery."""
  return {
    'name': 'masked_layer',
    'breakpoints': 'blocks',
    'local_epochs': LOCAL_EPOCHS,
    'epochs': EPOCHS - LOCAL_EPOCHS,
    'statistics_steps': 20,
    **arguments,
  }


def get_config(of='xavier'):
  """The default alpha costs the noised teacher about 2 points, 0.01 costs 5.

  Of 0.001, 0.003, 0.01, 0.03 and 0.1, with one seed. The rates were not tuned.
  """
  scheme, ablation = of.removesuffix(',ablation'), of.endswith(',ablation')
  if scheme not in SCHEMES:
    raise ValueError(f'{of!r} is none of {", ".join(SCHEMES)} [,ablation]')
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'tfds',
    'dataset': 'cifar10',
    'validation': 2000,
    'few': 10000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {
    'name': 'resnet20',
    **HALF,
    'training': {'epochs': 12, 'batch_size': 128},
  }
  config.student = {'name': 'resnet8', **HALF}
  config.initial = SCHEMES[scheme]
  config.batch_size = 256
  config.epochs = EPOCHS
  config.evaluate_every = 3
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
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
  if ablation:
    rows = {
      f'{distance}, fed by {source}': mld(distance=distance, group_input=source)
      for distance in ('masked_l1', 'l1', 'l2')
      for source in ('teacher', 'student')
    }
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
