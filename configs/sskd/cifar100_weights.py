"""SSKD, Figures 1 and 5: the rivals at many loss weights, and SSKD without any.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/sskd/cifar100_weights.py

`analysis.curves` draws the figure from results.json.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018. Its setting and numbers are in `cifar100_resnet56_resnet20.py`.

Setting: KD's weights are the paper's, divided by T^2 = 16, which our loss
contains. The labels have weight 1 in every row.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config.
"""

WEIGHTS = {
  'kd': [1.0, 5.0, 10.0, 15.0, 20.0, 25.0],
  'hint': [1.0, 10.0, 50.0, 100.0, 200.0],
  'at': [10.0, 50.0, 100.0, 500.0, 1000.0],
  'nst': [10.0, 50.0, 100.0, 500.0, 1000.0],
}


CUT = tuple((g, g) for g in ('stem', 'group1', 'group2', 'group3'))


def get_config():
  """Returns a row for each rival and weight, and SSKD; one seed."""
  rows = {
    f'{name} {weight:g}': {
      'name': name,
      'weight': weight / 16 if name == 'kd' else weight,
      'label_weight': 1.0,
      **({'feature_pairs': CUT} if name in ('at', 'nst') else {}),
    }
    for name, weights in WEIGHTS.items()
    for weight in weights
  }
  rows['sskd'] = {
    'name': 'sskd',
    'cut': CUT,
    'stage_epochs': 60,
    'head_epochs': 60,
  }
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar100', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'resnet56'},
    'student': {'name': 'resnet20'},
    'batch_size': 128,
    'epochs': 100,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (0.3, 0.6, 0.9),
    },
    'methods': rows,
  }
