"""Neighbourhood Distillation and student search on digits, in a minute.

  jaxdistill --config=configs/neighbourhood/digits.py

A ResNet-8 and its blocks narrowed inside by one half; pieces alone and with
look-ahead, on data and on noise. `...py:search` searches among four widths for
each block. Pieces and fine-tuning have epochs of their own, 14 and 6. The rates
are not tuned.
"""

import ml_collections

ARGUMENTS = ('half', 'search')


def get_config(student='half'):
  """Every row has 20 epochs, the pieces 14 of them."""
  if student not in ARGUMENTS:
    raise ValueError(f'{student!r} is none of {", ".join(ARGUMENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits'}
  network = {'name': 'resnet8', 'stem_width': 8, 'widths': (8, 16, 32)}
  config.teacher = network
  config.student = {'name': 'narrowed', 'network': network, 'multiplier': 0.5}
  if student == 'search':  # its multipliers are of the student's widths
    config.student = network
  config.batch_size = 64
  config.epochs = 20
  config.evaluate_every = 10
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  own = {
    'neighbourhood_epochs': 14,
    'neighbourhood_optimizer': {
      'name': 'sgd',
      'nesterov': False,
      'weight_decay': 1e-4,
      'schedule': {'name': 'cosine', 'rate': 0.3},
    },
    'statistics_steps': 10,
    'fine_tune': kd,
    'epochs': 6,
  }
  noise = {'name': 'gaussian_kd', 'frozen_statistics': True}
  rows = {
    'student alone': {'name': 'supervised'},
    'kd': kd,
    'neighbourhoods': {'name': 'neighbourhood', **own},
    'neighbourhoods, 2 ahead': {
      'name': 'neighbourhood',
      **own,
      'look_ahead': (1.0, 1.0),
    },
    'neighbourhoods, noise': {
      'name': 'neighbourhood',
      **own,
      'inputs': 'gaussian',
      'fine_tune': noise,
      'schedule': {'rate': 0.01},
    },
  }
  if student == 'search':
    search = {
      'name': 'student_search',
      **own,
      'multipliers': (0.25, 0.5, 0.75, 1.0),
      'drops': (0.01, 0.05),
    }
    rows = {'student alone': rows['student alone'], 'search': search}
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
