"""Orthogonality, all tables on a small scale: ResNet-8 on CIFAR-10.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/orthogonality/cifar10_small.py:filters \
    --config.data.data_dir=DATA --fast_cpu

The argument after the colon chooses the paper's table:

  filters            one ratio of Table 1 in full: both kinds of distillation,
                     all columns, and the surplus
  slimming           Table 2 by labels: a ResNet of bottlenecks of half width
  magnitude          Table 3 by labels
  cutmix-plain       Table 5, teachers without CutMix; also the networks of
                     Table 6 and of the loss landscapes
  cutmix             Table 5, teachers with CutMix
  autoaugment-plain  Table 4, teachers without AutoAugment; the rows of plain
                     students are those of cutmix-plain
  autoaugment        Table 4, teachers with AutoAugment
  cutmix-grid        Table 5 by one command: every teacher times every student,
                     with a teacher for each seed
  autoaugment-grid   Table 4, likewise
  cutmix-long        the grid of Table 5 for ten times as many steps and a
                     network of half the width, two seeds

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: pruning sees 10,000 images 4 times. Regularisation sees 1,000 images 32
times, so that there is some overfitting to regularise. Besides network and
length, the following differs from the full size:
  - the schedule is a cosine instead of steps where no snapshots are taken;
  - the rate of fine-tuning is 0.01 (full size: 0.001), because 156 steps at
    0.001 move the weights by a 200th of what 31,000 steps do;
  - the penalty on the scales is 1e-3 (full size: 1e-5), whose product with the
    sum of all rates is about that of the full size;
  - alpha and beta were chosen by the validation accuracy of one seed with the
    length of pruning: (0.5, 4) was the second value tried and the best of
    (alpha, T) = (0.9, 4), (0.5, 4), (0.9, 2); beta = 3, 30 and 100 were equal,
    while 500 is harmful.

Hardware and time: one CPU core, 10 to 25 minutes for each argument, and
80 for 'cutmix-long'.

Test accuracy over three seeds: RESULTS.md has a table for each argument.
`cifar100_pruning.py`, `cifar100_regularization.py` and `cifar10_resnet56.py` in
the same folder are the full-size experiments.
"""

SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
COSINE = {'name': 'cosine', 'rate': 0.1}
STEPS = {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)}
ALPHA, BETA = 0.5, 30.0
# Argument -> the pruning's label, the pruning, the kinds of distillation.
PRUNINGS = {
  'filters': (
    '50-60-70',
    {'name': 'filters', 'keep': (0.5, 0.6, 0.7)},
    ('label', 'feature'),
  ),
  'slimming': ('50', {'name': 'slimming', 'keep': 0.5}, ('label',)),
  'magnitude': ('40', {'name': 'magnitude', 'keep': 0.4}, ('label',)),
}
PLAIN = {'name': 'crop_flip'}
AUGMENTS = {
  'cutmix': {'mix': {'name': 'cutmix', 'alpha': 1.0, 'probability': 0.5}},
  'autoaugment': {'policy': {'name': 'autoaugment', 'seed': 0}},
}
ARGUMENTS = (
  *PRUNINGS,
  *('cutmix-plain', 'cutmix', 'autoaugment-plain', 'autoaugment'),
  *('cutmix-grid', 'autoaugment-grid', 'cutmix-long'),
)
RESNET8 = {'name': 'resnet8', 'shortcut': 'A'}
BOTTLENECKS = {
  'name': 'preactivation_resnet',
  'depth': 20,
  'stem_width': 8,
  'widths': (8, 16, 32),
  'scale': 0.5,
}


def get_config(name='filters'):
  """Returns the rows of one of the paper's tables, with three seeds."""
  if name not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {name!r}')
  pruned = name in PRUNINGS
  epochs = 4 if pruned else 320 if name == 'cutmix-long' else 32
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 2000,
      'train_subset': 10000 if pruned else 1000,
    },
    'subset': 'train_subset',
    'augment': PLAIN,
    'batch_size': 64,
    'epochs': epochs,
    'evaluate_every': epochs // 4,
    'seeds': 2 if name == 'cutmix-long' else 3,
    **(pruning_table(name) if pruned else regularization_table(name)),
  }


def pruning_table(name):
  """Returns student, optimizer, schedule and method of a pruning table."""
  label, pruning, kinds = PRUNINGS[name]
  slim = {'name': 'slim', 'strength': 1e-3, 'optimizer': SGD}
  return {
    'student': BOTTLENECKS if name == 'slimming' else RESNET8,
    'optimizer': slim if name == 'slimming' else SGD,
    'schedule': COSINE,
    'method': {
      'name': 'pruning_protocol',
      'prunings': {label: pruning},
      'kinds': kinds,
      'alpha': ALPHA,
      'beta': BETA,
      'fine_tune_optimizer': {
        **SGD,
        'schedule': {'name': 'constant', 'rate': 0.01},
      },
    },
  }


def regularization_table(name):
  """Returns models, optimizer, schedule and rows of a regularisation table."""
  kind, _, part = name.partition('-')
  regularized = {'name': 'regularized', **AUGMENTS[kind]}
  if part in ('grid', 'long'):
    narrow = {'widths': (8, 16, 32), 'stem_width': 8} if part == 'long' else {}
    return {
      'student': {**RESNET8, **narrow},
      'optimizer': SGD,
      'schedule': STEPS,
      'methods': {
        kind: {
          'name': 'regularization_protocol',
          'regularized': regularized,
          'alpha': ALPHA,
          'beta': BETA,
        }
      },
    }
  plain = part == 'plain'
  return {
    'student': RESNET8,
    'teacher': {
      **RESNET8,
      'training': {'augment': PLAIN if plain else regularized},
    },
    'optimizer': SGD,
    'schedule': STEPS,
    'methods': rows(kind, regularized, plain),
  }


def rows(kind, regularized, plain_teacher):
  """Returns label -> method, for teachers trained plainly or not."""
  methods = {
    'label': {'name': 'kd', 'weight': ALPHA, 'label_weight': 1 - ALPHA},
    'feature': {'name': 'fd', 'weight': BETA},
  }
  if plain_teacher:
    # A student alone has no teacher, so one row serves both arguments.
    methods = {'alone': {'name': 'supervised'}, **methods}
  students = {'plain': PLAIN, kind: regularized}
  if (kind, plain_teacher) == ('autoaugment', True):
    del students['plain']
  snapshots = ('alone, plain', 'alone, cutmix', 'label, plain')
  table = {}
  for student, augment in students.items():
    for label, method in methods.items():
      row = f'{label}, {student}'
      if row in snapshots and plain_teacher:
        at = (0.5, 0.75, 1.0)
        method = {'name': 'snapshots', 'method': method, 'at': at}
      table[row] = {**method, 'augment': augment}
  return table
