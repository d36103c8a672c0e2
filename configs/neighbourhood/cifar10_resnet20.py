"""Neighbourhood Distillation, Tables 1 and 6: ResNet-20 on CIFAR-10.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/neighbourhood/cifar10_resnet20.py:0.5
  jaxdistill --config=configs/neighbourhood/cifar10_resnet20.py:kd-0.5

The argument after the colon is k, the width inside the student's blocks as a
fraction of the teacher's. With 'kd-' before it, the config searches at random
for the temperature and the learning rate of KD, as the paper does.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: the paper's schedule with batches of 128. The teacher and KD have
96,000 steps, Neighbourhood Distillation (ND) 200,000 at 1e-3, and fine-tuning
(FT) 50,000 at 1e-2, or 30,000 after look-ahead. The shortcuts have no
parameters, and images are not flipped. Where the paper gives no value, we
divide the rate by 10 at 32,000 and 64,000 steps, and KD has T = 2.5, a value
that the paper found by search. The search draws T from 1 to 20 and the rate
from 1e-6 to 1, the latter on a logarithmic scale, which is our choice as is the
number of 12 trials.

Held out: nothing of the 50,000 training images for the tables; 5,000 of them
for the search, which chooses by them.

Hardware: intended for a GPU. We have not run this config. `small_tables.py` in
the same folder is the same experiment on a small scale.

Paper's accuracy, k: parameters, CE, KD, ND + FT, ND:

  1     269k  91.6 91.9 91.6 91.6
  0.9   239k  91.3 91.7 91.7 91.3
  0.8   213k  90.8 91.5 91.7 90.7
  0.75  202k  90.9 91.6 91.7 87.6
  0.6   160k  90.5 90.6 91.1 90.8
  0.5   136k  90.2 91.0 91.0 88.2
  0.4   105k  89.3 89.7 90.0 83.5

With two pieces of look-ahead, k: ND, ND + FT: 0.9: 91.4 92.1; 0.75: 90.6 91.8;
0.5: 87.1 91.5.
"""

ARGUMENTS = ('1.0', '0.9', '0.8', '0.75', '0.6', '0.5', '0.4', 'kd-0.5')
EPOCH = 50000 // 128  # steps
SEARCH = {
  'keys': {
    'terms': {'tempered': {'temperature': {'low': 1.0, 'high': 20.0}}},
    'schedule': {'rate': {'low': 1e-6, 'high': 1.0, 'scale': 'log'}},
  },
  'trials': 12,
}


def get_config(multiplier='0.5'):
  """Returns the rows of one k, or the search for the keys of KD."""
  is_search = multiplier.startswith('kd-')
  multiplier = multiplier.removeprefix('kd-')
  network = {'name': 'resnet20', 'shortcut': 'A'}
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
  if is_search:
    rows = {'kd': {**kd, 'sweep': SEARCH}}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 5000 if is_search else 0,
    },
    'augment': {'name': 'crop_flip', 'mirror': False},
    'teacher': network,
    'student': {
      'name': 'narrowed',
      'network': network,
      'multiplier': float(multiplier),
    },
    'batch_size': 128,
    'epochs': 96000 / EPOCH,
    'evaluate_every': 10,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (1 / 3, 2 / 3),
      'warmup': 400 / 96000,
    },
    'methods': rows,
  }
