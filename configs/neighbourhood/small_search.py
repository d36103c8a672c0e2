"""Neighbourhood Distillation in small: student search, Figures 3 and 6.

  jaxdistill --config=configs/neighbourhood/small_search.py \
    --config.data.data_dir=DATA --config.teacher.checkpoint=WORKDIR

The networks and the teacher of `small_tables.py`; five candidates for each of
the nine blocks, 390 steps for all. The students of one k throughout come with
it, before fine-tuning. The full size is `cifar10_search.py`.
"""

import ml_collections


def get_config():
  """The search, its students not fine-tuned."""
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'tfds',
    'dataset': 'cifar10',
    'validation': 5000,
    'few': 20000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  network = {
    'name': 'cifar_resnet',
    'depth': 20,
    'stem_width': 8,
    'widths': (8, 16, 32),
    'shortcut': 'A',
  }
  config.teacher = {**network, 'training': {'epochs': 10}}
  config.student = network
  config.batch_size = 128
  config.epochs = 1.5
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      'search': {
        'name': 'student_search',
        'multipliers': (0.125, 0.25, 0.5, 0.75, 1.0),
        'drops': (0.01, 0.02, 0.03, 0.05, 0.08),
        'neighbourhood_epochs': 2.5,
        'neighbourhood_optimizer': {
          'name': 'sgd',
          'nesterov': False,
          'weight_decay': 1e-4,
          'schedule': {'name': 'cosine', 'rate': 1.0},
        },
        'statistics_steps': 20,
      }
    },
    sort_keys=False,
  )
  return config
