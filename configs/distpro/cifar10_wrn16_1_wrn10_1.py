"""DistPro, Tables 1 to 3 on a small scale: WRN-16-1 -> WRN-10-1, CIFAR-10.

  jaxdistill --config=configs/distpro/cifar10_wrn16_1_wrn10_1.py \
    --config.data.path=cifar10.npz

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: 10,000 images, and ten pathways by transform T1. The pathways lead from
each of the teacher's three groups and its pooled vector to the same and deeper
features of the student. Every row has the same images, epochs and rate. A
search is additional: 8 epochs on 80 % of the images (the weights settle in the
third epoch). The process that it finds has 20 knots.

As in the paper, one process can serve all rows and seeds:

  jaxdistill ... --workdir=runs/search --row=search --config.seeds=1
  jaxdistill ... --config.teacher.checkpoint=runs/search \
    --config.methods.alpha_T.process=FILE \
    --config.methods.distpro.process=FILE --row=alpha_T --row=distpro

FILE is runs/search/rows/search/0/process.json. Add a `--row` for each other
method that you want to compare. Without FILE, the rows alpha_T and distpro each
search for themselves, once for every seed. The file of a search with
`--config.data.path=other.npz` gives the paper's Table 3 on a small scale. The
next command is for Table 2 and Figure 5 on a small scale, with lengths of 1 to
16 epochs and one process for all:

  jaxdistill --config=configs/distpro/cifar10_wrn16_1_wrn10_1.py:epochs,FILE \
    --config.data.path=cifar10.npz --config.teacher.checkpoint=runs/search \
    --workdir=runs/epochs

Hardware and time: two CPU cores; a run of a row takes 91 to 333 seconds, the
teacher 414.

Test accuracy over three seeds: student alone 49.53, ReviewKD 59.65, alpha_T
59.07, DistPro 57.09. RESULTS.md has all rows. `cifar100.py` in the same folder
is the full-size experiment.
"""

EPOCHS = (1, 2, 4, 8, 16)
ARGUMENTS = ('table', 'epochs')


def lengths(methods):
  """Returns a row for each method and number of epochs."""
  return {
    f'{label}, {epochs} epochs': {**method, 'epochs': epochs}
    for epochs in EPOCHS
    for label, method in methods.items()
  }


def get_config(argument='table'):
  """Returns DistPro with ten pathways, and rivals with published weights.

  ReviewKD has the weight that was published for WRN-40-2 -> WRN-16-2.
  """
  experiment, _, process = argument.partition(',')
  if experiment not in ARGUMENTS:
    raise ValueError(
      f'expected one of {", ".join(ARGUMENTS)}, got {experiment!r}'
    )
  space = {'name': 'same_or_deeper', 'transforms': ('T1',)}
  search = {'search_epochs': 8, 'knots': 20, 'space': space}
  distpro = {'name': 'distpro', 'process': process or None, **search}
  methods = {
    'student alone': {'name': 'supervised'},
    'kd': {'name': 'kd'},
    'reviewkd': {'name': 'reviewkd', 'weight': 5.0},
    'equal weights': {
      'name': 'distpro_retrain',
      'use': 'equal',
      'space': space,
    },
    'search': {'name': 'distpro_search', **search},
    'alpha_T': {**distpro, 'use': 'last'},
    'distpro': distpro,
  }
  if experiment == 'epochs':
    compared = ('student alone', 'reviewkd', 'alpha_T', 'distpro')
    methods = lengths({label: methods[label] for label in compared})
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
    'teacher': {'name': 'wrn_16_1', 'training': {'epochs': 10}},
    'student': {'name': 'wrn_10_1'},
    'batch_size': 128,
    'epochs': 4,
    'evaluate_every': 2,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': methods,
  }
