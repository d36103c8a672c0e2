"""DistPro, Table 7: five normalisations of the pathway weights on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/distpro/cifar100_normalizations.py

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: WRN-28-4 teaches WRN-16-4 by 27 pathways.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config. `digits.py` in the
same folder is the same experiment on a small scale.

Paper's top-1 accuracy: softmax(concat(A, 1)) 79.78, softmax(A) 79.41,
A / (|A| + 1) 79.47, A / |A| 79.20, sigmoid(A) 78.80.
"""

ROWS = {
  'softmax(concat(A, 1))': 'biased_softmax',
  'softmax(A)': 'softmax',
  'A over |A| + 1': 'biased_l1',
  'A over |A|': 'l1',
  'sigmoid(A)': 'sigmoid',
}


def get_config():
  """Returns one row a normalisation: 40 epochs of search, 240 of training."""
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar100', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'wide_resnet', 'depth': 28, 'width': 4},
    'student': {'name': 'wide_resnet', 'depth': 16, 'width': 4},
    'batch_size': 128,
    'epochs': 240,
    'seeds': 5,
    'evaluate_every': 10,
    'schedule': {'name': 'step', 'rate': 0.1},
    'methods': {
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
  }
