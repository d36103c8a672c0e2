"""Neighbourhood Distillation in small: Tables 1 and 6 on 20,000 CIFAR-10 images.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/neighbourhood/cifar10_resnet20.py \
    --config.data.data_dir=DATA --config.teacher.checkpoint=runs/...

With `...py:0.75` behind it, k = 0.75, and so on. ResNet-20 with blocks narrowed inside by k; every row has the same 4 epochs: the
student alone and KD use them whole, Neighbourhood Distillation 2.5 for its
pieces and 1.5 for fine-tuning. One run of it gives three columns of the paper:
the student put together ('distilled'), with its batch statistics estimated anew
('reestimated'), and fine-tuned. Projection shortcuts, unlike the paper. The
teacher is that of `configs/kd/cifar10_resnet20_resnet8.py`. The full size is
beside it, `cifar10_resnet20_full.py`.
"""

import ml_collections

ARGUMENTS = ('1.0', '0.75', '0.5')
EPOCHS, PIECES = 4, 2.5


def get_config(multiplier='0.5'):
  """The rows of one multiplier; with look-ahead too where it is below 1."""
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'tfds',
    'dataset': 'cifar10',
    'validation': 5000,
    'few': 20000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {
    'name': 'resnet20',
    'training': {'epochs': 10, 'schedule': {'name': 'cosine', 'rate': 0.1}},
  }
  config.student = {
    'name': 'narrowed',
    'network': {'name': 'resnet20'},
    'multiplier': float(multiplier),
  }
  config.batch_size = 128
  config.epochs = EPOCHS
  config.evaluate_every = 10
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  # Equation (3), for KD and for fine-tuning alike.
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  pieces = {
    'name': 'neighbourhood',
    'neighbourhood_epochs': PIECES,
    'neighbourhood_optimizer': {
      'name': 'sgd',
      'nesterov': False,
      'weight_decay': 1e-4,
      'schedule': {'name': 'cosine', 'rate': 0.1},
    },
    'statistics_steps': 20,
    'epochs': EPOCHS - PIECES,
    'fine_tune': kd,
  }
  rows = {
    'student alone': {'name': 'supervised'},
    'kd': kd,
    'neighbourhoods': pieces,
  }
  if float(multiplier) < 1:
    rows['neighbourhoods, 2 ahead'] = {**pieces, 'look_ahead': (1.0, 1.0)}
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
