"""Orthogonality, Table 1 on a small scale: a tiny VGG on digits.

  jaxdistill --config=configs/orthogonality/digits.py

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: scikit-learn's digits; half of the filters of each layer are removed.

Hardware and time: two CPU cores, about a minute. Nothing is downloaded.
"""


def get_config():
  """Returns the study's columns with labels; the other kind is 'feature'."""
  optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  return {
    'data': {'name': 'digits'},
    'student': {
      'name': 'vgg8',
      'width': 1 / 16,
      'pools': (True, True, False, False),
      'use_bias': False,
    },
    'batch_size': 64,
    'epochs': 40,
    'evaluate_every': 10,
    'optimizer': optimizer,
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)},
    'method': {
      'name': 'pruning_protocol',
      'kinds': ('label',),
      'prunings': {'half': {'name': 'filters', 'keep': 0.5}},
      'fine_tune_epochs': 10,
      'fine_tune_optimizer': {
        **optimizer,
        'schedule': {'name': 'constant', 'rate': 0.01},
      },
    },
  }
