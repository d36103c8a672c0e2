"""DistPro, Table 7 on a small scale: normalisations of weights on digits.

  jaxdistill --config=configs/distpro/digits.py

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: the teacher saw 1,000 images and the students see 400, a fifth of which
the search holds out. There are nine pathways. The learning rates were not
tuned.

In the paper as here, sigmoid(A) starts with weights that sum to 0.73 L, while
those of the other normalisations sum to about 1. Its pathways therefore count
that much more against the labels.

Hardware and time: two CPU cores, a few minutes a seed.

Test accuracy over three seeds: all rows lie between 95.20 and 95.92, which is a
tie. RESULTS.md has all rows.
"""

ROWS = {
  'softmax(concat(A, 1))': 'biased_softmax',
  'softmax(A)': 'softmax',
  'A over |A| + 1': 'biased_l1',
  'A over |A|': 'l1',
  'sigmoid(A)': 'sigmoid',
}


def get_config():
  """Returns rows with one budget, to which a search adds its own epochs."""
  space = {'name': 'all_pairs', 'transforms': ('T1',)}
  return {
    'data': {'name': 'digits', 'train_subset': 400},
    'teacher': {
      'name': 'wrn_16_1',
      'base_width': 8,
      'training': {'subset': 'train', 'epochs': 20},
    },
    'student': {'name': 'wrn_10_1', 'base_width': 4},
    'subset': 'train_subset',
    'batch_size': 50,
    'epochs': 40,
    'evaluate_every': 10,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'student alone': {'name': 'supervised'},
      'equal weights': {
        'name': 'distpro_retrain',
        'use': 'equal',
        'space': space,
      },
      **{
        row: {
          'name': 'distpro',
          'search_epochs': 20,
          'normalization': normalization,
          'space': space,
          'segments': 2,
        }
        for row, normalization in ROWS.items()
      },
    },
  }
