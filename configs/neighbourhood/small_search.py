"""Neighbourhood Distillation, Figures 3 and 6 on a small scale: student search.

  jaxdistill --config=configs/neighbourhood/small_search.py \
    --config.data.data_dir=DATA --config.teacher.checkpoint=WORKDIR

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: the networks and the teacher of `small_tables.py`. There are five
candidates for each of the nine blocks, and all of them train in the same 390
steps. The results include the students with the same k in all blocks. No
student is fine-tuned.

Hardware and time: one CPU core, 600 to 1,060 seconds a seed.

Test accuracy: a drop of 0.01 gives 60.25 with 48,950 parameters; k = 0.75 in
all blocks gives 59.28 with 51,262. RESULTS.md has all rows. `cifar10_search.py`
in the same folder is the full-size experiment.
"""


def get_config():
  """Returns the search, whose students are not fine-tuned."""
  network = {
    'name': 'cifar_resnet',
    'depth': 20,
    'stem_width': 8,
    'widths': (8, 16, 32),
    'shortcut': 'A',
  }
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 5000,
      'train_subset': 20000,
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {**network, 'training': {'epochs': 10}},
    'student': network,
    'batch_size': 128,
    'epochs': 1.5,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
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
  }
