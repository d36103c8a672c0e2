"""Orthogonality's Table 1 in a minute: scikit-learn's digits, a tiny VGG.

  jaxdistill --config=configs/orthogonality/digits.py

Half of the filters of each layer go. Runs on two CPU cores.
"""

import ml_collections


def get_config():
  """Label distillation alone; the other kind is 'feature'."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits'}
  config.student = {
    'name': 'vgg8',
    'width': 1 / 16,
    'pools': (True, True, False, False),
    'use_bias': False,
  }
  config.batch_size = 64
  config.epochs = 40
  config.evaluate_every = 10
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)}
  config.method = {
    'name': 'pruning_protocol',
    'kinds': ('label',),
    'prunings': {'half': {'name': 'filters', 'keep': 0.5}},
    'fine_tune_epochs': 10,
    'fine_tune_optimizer': {
      **config.optimizer.to_dict(),
      'schedule': {'name': 'constant', 'rate': 0.01},
    },
  }
  return config
