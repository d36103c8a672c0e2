"""Orthogonality's tables in small: CIFAR-10, ResNet-8, 500 steps or so.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/orthogonality/cifar10_small.py:filters \
    --config.data.data_dir=DATA --fast_cpu

The argument says which of the paper's tables:

  filters            a ratio of Table 1 whole: both kinds, all columns, surplus
  slimming           Table 2, label: a ResNet of bottlenecks with half widths
  magnitude          Table 3, label
  cutmix-plain       Table 5, teachers without CutMix; the networks of Table 6
                     and of the landscapes
  cutmix             Table 5, teachers with CutMix
  autoaugment-plain  Table 4, teachers without AutoAugment; the rows of plain
                     students are those of cutmix-plain
  autoaugment        Table 4, teachers with AutoAugment

Each is made for 10 to 25 minutes of one CPU core. Pruning sees 10,000 images 4
times, regularisation 1,000 images 32 times, so that there is something to
regularise. Beside network and length these differ from the full size: a cosine
in place of the steps, where no snapshots are taken; the rate of fine-tuning is
0.01 (0.001), as 156 steps at 0.001 move weights by a 200th of what 31,000 do;
the penalty on the scales is 1e-3 (1e-5), whose product with the sum of all
rates is about that of the full size; alpha and beta, by the validation of one
seed of pruning's length: of (alpha, T) = (0.9, 4), (0.5, 4), (0.9, 2) the
second was best, and beta = 3, 30 and 100 were equal, where 500 is harmful.
"""

import ml_collections

SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
COSINE = {'name': 'cosine', 'rate': 0.1}
STEPS = {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)}
ALPHA, BETA = 0.5, 30.0
# Label, pruning, kinds of distillation.
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
)


def get_config(name='filters'):
  """Three seeds."""
  if name not in ARGUMENTS:
    raise ValueError(f'{name!r} is none of {", ".join(ARGUMENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar10', 'validation': 2000}
  config.data.few = 10000 if name in PRUNINGS else 1000
  config.subset = 'few'
  config.augment = PLAIN
  config.student = {'name': 'resnet8', 'shortcut': 'A'}
  config.batch_size = 64
  config.epochs = 4 if name in PRUNINGS else 32
  config.evaluate_every = config.epochs // 4
  config.seeds = 3
  config.optimizer = SGD
  config.schedule = COSINE if name in PRUNINGS else STEPS
  if name in PRUNINGS:
    label, pruning, kinds = PRUNINGS[name]
    config.method = {
      'name': 'pruning_protocol',
      'prunings': {label: pruning},
      'kinds': kinds,
      'alpha': ALPHA,
      'beta': BETA,
      'fine_tune_optimizer': {
        **SGD,
        'schedule': {'name': 'constant', 'rate': 0.01},
      },
    }
    if name == 'slimming':
      config.student = {
        'name': 'preactivation_resnet',
        'depth': 20,
        'stem_width': 8,
        'widths': (8, 16, 32),
        'scale': 0.5,
      }
      config.optimizer = {'name': 'slim', 'strength': 1e-3, 'optimizer': SGD}
    return config
  kind, _, plainly = name.partition('-')
  regularized = {'name': 'regularized', **AUGMENTS[kind]}
  config.teacher = {
    **config.student.to_dict(),
    'training': {'augment': PLAIN if plainly else regularized},
  }
  config.methods = ml_collections.ConfigDict(
    rows(kind, regularized, bool(plainly)), sort_keys=False
  )
  return config


def rows(kind, regularized, plainly):
  """Label -> method, of teachers that were trained plainly or not."""
  methods = {
    'label': {'name': 'kd', 'weight': ALPHA, 'label_weight': 1 - ALPHA},
    'feature': {'name': 'fd', 'weight': BETA},
  }
  if plainly:
    # Without a teacher there is one such row for both.
    methods = {'alone': {'name': 'supervised'}, **methods}
  students = {'plain': PLAIN, kind: regularized}
  if (kind, plainly) == ('autoaugment', True):
    del students['plain']
  made = {}
  for student, augment in students.items():
    for label, method in methods.items():
      row = f'{label}, {student}'
      if row in ('alone, plain', 'alone, cutmix', 'label, plain') and plainly:
        at = (0.5, 0.75, 1.0)
        method = {'name': 'snapshots', 'method': method, 'at': at}
      made[row] = {**method, 'augment': augment}
  return made
