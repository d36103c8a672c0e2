"""Neighbourhood Distillation in small: Tables 1 and 6 on 20,000 images.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/neighbourhood/small_tables.py \
    --config.data.data_dir=DATA

A ResNet-20 of half the channels, its blocks narrowed inside by k = 0.5, or what
stands behind a colon (`...py:0.75`; --config.teacher.checkpoint=... takes the
teacher of the first run). Every row has the same 4 epochs: the student alone
and KD use them whole, Neighbourhood Distillation 2.5 for its pieces and 1.5 for
fine-tuning. One run of it gives three columns of the paper: the student put
together ('distilled'), with its batch statistics estimated anew
('reestimated'), and fine-tuned. The rate of the pieces was chosen from 0.1, 0.3
and 1 by the training loss of one seed. The full size is `cifar10_resnet20.py`.
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
  network = {
    'name': 'cifar_resnet',
    'depth': 20,
    'stem_width': 8,
    'widths': (8, 16, 32),
    'shortcut': 'A',
  }
  config.teacher = {**network, 'training': {'epochs': 10}}
  config.student = {
    'name': 'narrowed',
    'network': network,
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
      'schedule': {'name': 'cosine', 'rate': 1.0},
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
