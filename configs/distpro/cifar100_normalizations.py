"""DistPro's Table 7: normalisations, WRN-28-4 -> WRN-16-4 on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/distpro/cifar100_normalizations.py

Made for a GPU; not run yet. `digits.py` beside it is the same in small.

Paper, top-1: softmax(concat(A, 1)) 79.78, softmax(A) 79.41, A / (|A| + 1)
79.47, A / |A| 79.20, sigmoid(A) 78.80.
"""

import ml_collections

ROWS = {
  'softmax(concat(A, 1))': 'biased_softmax',
  'softmax(A)': 'softmax',
  'A over |A| + 1': 'biased_l1',
  'A over |A|': 'l1',
  'sigmoid(A)': 'sigmoid',
}


def get_config():
  """27 pathways, 40 epochs of search and 240 of training."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar100', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'wide_resnet', 'depth': 28, 'width': 4}
  config.student = {'name': 'wide_resnet', 'depth': 16, 'width': 4}
  config.batch_size = 128
  config.epochs = 240
  config.seeds = 5
  config.evaluate_every = 10
  config.schedule = {'name': 'step', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      row: {
        'name': 'distpro',
        'search_epochs': 40,
        'normalization': normalization,
        'search_optimizer': {
          'name': 'sgd',
          'schedule': {
            'name': 'step',
            'rate': 0.1,
            'boundaries': (0.25, 0.5, 0.75),
          },
        },
      }
      for row, normalization in ROWS.items()
    },
    sort_keys=False,
  )
  return config
