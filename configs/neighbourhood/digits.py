"""Neighbourhood Distillation and student search on digits.

  jaxdistill --config=configs/neighbourhood/digits.py
  jaxdistill --config=configs/neighbourhood/digits.py:search

The first command trains a ResNet-8 whose blocks are narrowed inside by one
half: with and without look-ahead, on data and on noise. The second one searches
among four widths for each block.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: every row has 20 epochs. Neighbourhood Distillation spends 14 of them
on the pieces and 6 on fine-tuning. The rates were not tuned.

Hardware and time: two CPU cores, about a minute. Nothing is downloaded.
"""

ARGUMENTS = ('half', 'search')


def get_config(student='half'):
  """Returns the rows of a student narrowed by half, or a student search."""
  if student not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {student!r}')
  network = {'name': 'resnet8', 'stem_width': 8, 'widths': (8, 16, 32)}
  narrowed = {'name': 'narrowed', 'network': network, 'multiplier': 0.5}
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  lengths = {
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
  pieces = {'name': 'neighbourhood', **lengths}
  rows = {
    'student alone': {'name': 'supervised'},
    'kd': kd,
    'neighbourhoods': pieces,
    'neighbourhoods, 2 ahead': {**pieces, 'look_ahead': (1.0, 1.0)},
    'neighbourhoods, noise': {
      **pieces,
      'inputs': 'gaussian',
      'fine_tune': {'name': 'gaussian_kd', 'frozen_statistics': True},
      'schedule': {'rate': 0.01},
    },
  }
  if student == 'search':
    search = {
      'name': 'student_search',
      **lengths,
      'multipliers': (0.25, 0.5, 0.75, 1.0),
      'drops': (0.01, 0.05),
    }
    rows = {'student alone': rows['student alone'], 'search': search}
  return {
    'data': {'name': 'digits'},
    'teacher': network,
    # The multipliers of a search are fractions of the student's own widths.
    'student': network if student == 'search' else narrowed,
    'batch_size': 64,
    'epochs': 20,
    'evaluate_every': 10,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
