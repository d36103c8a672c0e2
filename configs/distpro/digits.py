"""DistPro's Table 7 in small: normalisations of the weights, on digits.

  jaxdistill --config=configs/distpro/digits.py

A teacher that saw 1,000 images, students that see 400, of which a fifth is
held out in the search. Nine pathways. A few minutes a seed on two CPU cores.

Of sigmoid(A) the weights sum to 0.73 L at first, of the others to about 1, in
the paper too: its pathways are as much heavier against the labels.
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
  """One budget for all, but for the search; the rates were not tuned."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits', 'few': 400}
  config.teacher = {
    'name': 'wrn_16_1',
    'base_width': 8,
    'training': {'subset': 'train', 'epochs': 20},
  }
  config.student = {'name': 'wrn_10_1', 'base_width': 4}
  config.subset = 'few'
  config.batch_size = 50
  config.epochs = 40
  config.evaluate_every = 10
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  space = {'name': 'all_pairs', 'transforms': ('T1',)}
  config.methods = ml_collections.ConfigDict(
    {
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
    sort_keys=False,
  )
  return config
