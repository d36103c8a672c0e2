"""Neighbourhood Distillation in small: Table 4, without data.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/neighbourhood/small_data_free.py:0.75 \
    --config.data.data_dir=DATA

A ResNet-8 of half the channels, its three blocks narrowed inside by what stands
behind the colon; `--config.teacher.checkpoint=` and the first run's directory
spare the teacher. The data is for the teacher, and for measuring. Pieces learn
from 3,744 batches of noise, and the student is fine-tuned by 312 more; KD on
noise has 4,056. The input of all blocks is N(0, 1), or its positive part, as
the teacher's activations are behind a ReLU ('rectified'). ZSKD makes 2,000
images of 200 iterations and learns from them for 30 epochs. The full size is
`cifar10_data_free.py`.
"""

import ml_collections

ARGUMENTS = ('1.0', '0.75', '0.5')


def get_config(multiplier='0.5'):
  """The rows of one multiplier."""
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
    'depth': 8,
    'stem_width': 8,
    'widths': (8, 16, 32),
    'shortcut': 'A',
  }
  config.teacher = {
    **network,
    'training': {'epochs': 10, 'batch_size': 128},
  }
  config.student = {
    'name': 'narrowed',
    'network': network,
    'multiplier': float(multiplier),
  }
  config.batch_size = 64
  config.epochs = 13
  config.evaluate_every = 10
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  pieces = {
    'name': 'neighbourhood',
    'neighbourhood_epochs': 12,
    'neighbourhood_optimizer': {
      'name': 'adamw',
      'weight_decay': 0.0,
      'schedule': {'name': 'cosine', 'rate': 0.003},
    },
    'fine_tune': {'name': 'gaussian_kd', 'frozen_statistics': True},
    'epochs': 1,
    'schedule': {'rate': 1e-4},
  }
  rows = {
    'neighbourhoods': {**pieces, 'inputs': 'gaussian'},
    'neighbourhoods, rectified': {**pieces, 'inputs': 'rectified'},
    'gaussian kd': {'name': 'gaussian_kd'},
    'zskd': {
      'name': 'zero_shot',
      'count': 2000,
      'iterations': 200,
      'batch_size': 64,
      'epochs': 30,
      'optimizer': {'name': 'adamw', 'weight_decay': 0.0},
      'schedule': {'rate': 1e-3},
    },
  }
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
