"""Neighbourhood Distillation's Tables 1 and 6: CIFAR-10, ResNet-20.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/neighbourhood/cifar10_resnet20.py:0.5

k stands behind the colon. The paper's schedule: the teacher and KD 96,000 steps
of 128, ND 200,000 at 1e-3, fine-tuning 50,000 at 1e-2 (30,000 after
look-ahead). Shortcuts without parameters, no flips. Where it is silent: a rate
divided by 10 at 32,000 and 64,000 steps; KD at T = 2.5, which it searched. Made
for a GPU; not run yet.

Paper, k: parameters, CE, KD, ND + FT, ND: 1: 269k 91.6 91.9 91.6 91.6; 0.9:
239k 91.3 91.7 91.7 91.3; 0.8: 213k 90.8 91.5 91.7 90.7; 0.75: 202k 90.9 91.6
91.7 87.6; 0.6: 160k 90.5 90.6 91.1 90.8; 0.5: 136k 90.2 91.0 91.0 88.2; 0.4:
105k 89.3 89.7 90.0 83.5. With two pieces ahead, ND and ND + FT: 0.9: 91.4 92.1;
0.75: 90.6 91.8; 0.5: 87.1 91.5.
"""

import ml_collections

ARGUMENTS = ('1.0', '0.9', '0.8', '0.75', '0.6', '0.5', '0.4')
EPOCH = 45000 // 128  # steps


def get_config(multiplier='0.5'):
  """The rows of one multiplier."""
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
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  rows = {'student alone': {'name': 'supervised'}, 'kd': kd}
  for label, ahead, steps in (
    ('neighbourhoods', (), 50000),
    ('neighbourhoods, 2 ahead', (1.0, 1.0), 30000),
  ):
    rows[label] = {
      'name': 'neighbourhood',
      'neighbourhood_epochs': 200000 / EPOCH,
      'look_ahead': ahead,
      'fine_tune': kd,
      'epochs': steps / EPOCH,
      'schedule': {'name': 'constant', 'rate': 1e-2},
    }
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
