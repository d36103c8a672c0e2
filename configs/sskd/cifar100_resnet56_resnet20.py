"""SSKD's Tables 2, 3 and 5: CIFAR-100, ResNet-56 -> ResNet-20.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/sskd/cifar100_resnet56_resnet20.py

The paper's schedule: 60 epochs a stage, rate 0.01 divided by 10 at epochs 18,
36 and 54; 100 epochs for the rivals. It does not give the rivals' rates and
batch size, nor the head's schedule: ours are in the code. Nor does it say where
the fourth stage lies in a network of three groups: our first one ends at the
stem, which cannot be divided, so that 5 to 8 stages divide the groups. FitNets
is its equation 2, labels and hint together. Made for a GPU; not run yet.

Paper, top-1: student 67.96, teacher 71.21; SSKD with 1 to 8 stages 69.24,
70.03, 70.46, 70.77, 70.79, 70.82, 70.85, 70.93; multi-loss with 1 to 4 69.24,
69.29, 69.37, 69.46; KD 69.32, FitNets 69.96, AT 70.03, NST 69.48.
"""

import ml_collections


def _block(number):
  """Block 1 to 9 of ResNet-20, and the third of three in ResNet-56 it meets."""
  group, block = divmod(number - 1, 3)
  group = f'group{group + 1}'
  return f'{group}.block{block + 1}', f'{group}.block{3 * block + 3}'


STEM = ('stem', 'stem')
CUTS = {
  1: (_block(9),),
  2: (_block(6), _block(9)),
  3: (_block(3), _block(6), _block(9)),
  4: (STEM, _block(3), _block(6), _block(9)),
  5: (STEM, *map(_block, (1, 3, 6, 9))),
  6: (STEM, *map(_block, (1, 3, 4, 6, 9))),
  7: (STEM, *map(_block, (1, 3, 4, 6, 7, 9))),
  8: (STEM, *map(_block, (1, 2, 3, 4, 6, 7, 9))),
}


def get_config():
  """KD's weight of 10 is given without and with the factor T^2 = 16."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar100', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'resnet56'}
  config.student = {'name': 'resnet20'}
  config.batch_size = 128
  config.epochs = 100
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4}
  config.schedule = {
    'name': 'step',
    'rate': 0.1,
    'boundaries': (0.3, 0.6, 0.9),
  }
  rows = {'student alone': {'name': 'supervised'}}
  for count, cut in CUTS.items():
    rows[f'sskd, {count} stages'] = {
      'name': 'sskd',
      'cut': cut,
      'stage_epochs': 60,
      'head_epochs': 60,
    }
  for count in (2, 3, 4):
    rows[f'multi-loss, {count}'] = {
      'name': 'multi_loss',
      'cut': CUTS[count],
      'backbone_epochs': 100,
      'head_epochs': 60,
    }
  for label, weight in {'kd': 10 / 16, 'kd with T^2': 10.0}.items():
    rows[label] = {'name': 'kd', 'weight': weight, 'label_weight': 1.0}
  rows['fitnets'] = {'name': 'hint', 'weight': 100.0}
  rows['at'] = {'name': 'at', 'weight': 50.0}
  rows['nst'] = {'name': 'nst', 'weight': 1000.0}
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
