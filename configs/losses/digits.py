"""Digits, 200 images: all methods with published weights, one budget.

  python -m jaxdistill.main --config=configs/losses/digits.py

The setting of `configs/quickstart.py`. The weights were published for networks
and maps ten times larger; nothing is tuned here.
"""

import ml_collections

METHODS = (
  *('kd', 'logits', 'refinery', 'dkd', 'dist', 'fitnets', 'hint', 'at'),
  *('nst', 'sp', 'cc', 'vid', 'rkd', 'pkt', 'ab', 'ft', 'crd', 'ofd'),
  *('reviewkd', 'srrl', 'dml', 'ban'),
)


def get_config():
  """FSP is not among them: it needs networks of equal channels."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits', 'few': 200}
  config.teacher = {
    'name': 'resnet8',
    'training': {'subset': 'train', 'epochs': 20},
  }
  config.student = {'name': 'resnet8', 'stem_width': 4, 'widths': (4, 4, 8)}
  config.subset = 'few'
  config.batch_size = 64
  config.epochs = 100
  config.evaluate_every = 20
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      **{name: {'name': name} for name in METHODS},
      'takd': {
        'name': 'takd',
        'assistants': {
          'middle': {
            'name': 'resnet8',
            'stem_width': 8,
            'widths': (8, 8, 16),
          }
        },
      },
      'kd + at + crd': {
        'name': 'joint',
        'terms': {'kd': {}, 'at': {}, 'crd': {}},
      },
    },
    sort_keys=False,
  )
  return config
