"""Neighbourhood Distillation's Table 4: ResNet-20 without data.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/neighbourhood/cifar10_data_free.py:0.75

k stands behind the colon; the data is for the teacher, and for measuring. The
lengths of ND and of fine-tuning are those of Table 1; what the paper does not
say is in the code. ZSKD: 40,000 images of 1,500 iterations, then Adam for 500
epochs, as its authors. Made for a GPU; not run yet.

Paper, k: CE, G-ND, G-ND + FT, GN-KD, ZSKD: 1: 91.60 91.51 91.51 16.00 21.50;
0.9: 91.31 88.78 88.78 12.97 22.77; 0.75: 90.89 80.64 83.74 13.00 21.54; 0.5:
90.17 53.40 54.83 12.74 22.17.
"""

import ml_collections

ARGUMENTS = ('1.0', '0.9', '0.75', '0.5')
EPOCH = 45000 // 128  # steps


def get_config(multiplier='0.75'):
  """The rows of one multiplier, with two kinds of noise."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar10', 'validation': 5000}
  config.augment = {'name': 'crop_flip', 'mirror': False}
  network = {'name': 'resnet20', 'shortcut': 'A'}
  config.teacher = network
  config.student = {
    'name': 'narrowed',
    'network': network,
    'multiplier': float(multiplier),
  }
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
  rows = {'student alone': {'name': 'supervised'}}
  for inputs in ('gaussian', 'rectified'):
    rows[f'neighbourhoods, {inputs}'] = {
      'name': 'neighbourhood',
      'inputs': inputs,
      'neighbourhood_epochs': 200000 / EPOCH,
      'fine_tune': {'name': 'gaussian_kd', 'frozen_statistics': True},
      'epochs': 50000 / EPOCH,
      'schedule': {'name': 'constant', 'rate': 1e-2},
    }
  rows['gaussian kd'] = {'name': 'gaussian_kd'}
  rows['zskd'] = {
    'name': 'zero_shot',
    'batch_size': 64,
    'epochs': 500,
    'optimizer': {'name': 'adamw', 'weight_decay': 0.0},
    'schedule': {'name': 'constant', 'rate': 1e-3},
  }
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
