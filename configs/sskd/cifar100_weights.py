"""SSKD's Figures 1 and 5: the rivals at many loss weights, SSKD without any.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/sskd/cifar100_weights.py

Setting and paper's numbers: `cifar100_resnet56_resnet20.py`. KD's weights are
the paper's, divided by the T^2 = 16 that our loss holds. Made for a GPU; not
run yet. `analysis.curves` draws the figure from results.json.
"""

import ml_collections

WEIGHTS = {
  'kd': [1.0, 5.0, 10.0, 15.0, 20.0, 25.0],
  'hint': [1.0, 10.0, 50.0, 100.0, 200.0],
  'at': [10.0, 50.0, 100.0, 500.0, 1000.0],
  'nst': [10.0, 50.0, 100.0, 500.0, 1000.0],
}


def get_config():
  """One seed; labels weigh 1 beside each."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar100', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'resnet56'}
  config.student = {'name': 'resnet20'}
  config.batch_size = 128
  config.epochs = 100
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.1,
    'boundaries': (0.3, 0.6, 0.9),
  }
  rows = {
    f'{name} {weight:g}': {
      'name': name,
      'weight': weight / 16 if name == 'kd' else weight,
      'label_weight': 1.0,
    }
    for name, weights in WEIGHTS.items()
    for weight in weights
  }
  rows['sskd'] = {
    'name': 'sskd',
    'cut': tuple((g, g) for g in ('stem', 'group1', 'group2', 'group3')),
    'stage_epochs': 60,
    'head_epochs': 60,
  }
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
