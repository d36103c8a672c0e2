"""Neighbourhood Distillation's Figures 3a and 6: student search, ResNet-20.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/neighbourhood/cifar10_search.py

Ten candidates for each block, one student for each drop of the partial model's
accuracy on the validation split (the paper does not say on which). The students
with one k throughout come with it, before fine-tuning; with fine-tuning they
are in `cifar10_resnet20.py`. The other rival, one width for all layers, stands
behind a colon: `...py:0.5`. Made for a GPU; not run yet.
"""

import ml_collections

EPOCH = 45000 // 128  # steps
ARGUMENTS = ('search', '0.25', '0.5', '0.75')
DROPS = (0.001, 0.0025, 0.005, 0.01, 0.02)


def get_config(width='search'):
  """The search; or KD to a student of some share of all widths."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar10', 'validation': 5000}
  config.augment = {'name': 'crop_flip', 'mirror': False}
  config.teacher = {'name': 'resnet20', 'shortcut': 'A'}
  config.student = {'name': 'resnet20', 'shortcut': 'A'}
  if width != 'search':
    share = float(width)
    config.student.stem_width = int(16 * share)
    config.student.widths = tuple(int(share * w) for w in (16, 32, 64))
  config.batch_size = 128
  config.epochs = 96000 / EPOCH
  config.evaluate_every = 10
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.1,
    'boundaries': (1 / 3, 2 / 3),
    'warmup': 400 / 96000,
  }
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  if width != 'search':
    config.method = kd
    return config
  config.methods = ml_collections.ConfigDict(
    {
      'kd': kd,
      'search': {
        'name': 'student_search',
        'drops': DROPS,
        'neighbourhood_epochs': 200000 / EPOCH,
        'fine_tune': kd,
        'epochs': 50000 / EPOCH,
        'schedule': {'name': 'constant', 'rate': 1e-2},
      },
    },
    sort_keys=False,
  )
  return config
