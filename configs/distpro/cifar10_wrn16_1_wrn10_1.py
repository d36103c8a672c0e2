"""DistPro's Table 1 in small: CIFAR-10, 10,000 images, WRN-16-1 -> WRN-10-1.

  jaxdistill --config=configs/distpro/cifar10_wrn16_1_wrn10_1.py \
    --config.data.path=cifar10.npz

The 10 pathways of the authors' code. Every row has the same images, epochs and
rate; the search, of 2 epochs on 80 % of them, comes on top, and is the same in
both rows that have one. Its process has 20 knots, where two epochs would leave
two, the last of which is no end but half of the search. Made for two CPU cores.

Table 3 in small: with `--config.data.path=other.npz` and the file that the
search wrote, nothing is searched:

  --config.methods.distpro.process=RUN/rows/distpro/0/process.json
"""

import ml_collections


def get_config():
  """A process weighs 10 pathways; its rivals have their published weights.

  ReviewKD's is that of WRN-40-2 -> WRN-16-2.
  """
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'npz',
    'path': 'cifar10.npz',
    'validation': 2000,
    'few': 10000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'wrn_16_1', 'training': {'epochs': 10}}
  config.student = {'name': 'wrn_10_1'}
  config.batch_size = 128
  config.epochs = 4
  config.evaluate_every = 2
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  space = {'name': 'same_or_deeper', 'stem': True, 'pool': False}
  distpro = {
    'name': 'distpro',
    'search_epochs': 2,
    'knots': 20,
    'space': space,
    'segments': 3,
  }
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'kd': {'name': 'kd'},
      'reviewkd': {'name': 'reviewkd', 'weight': 5.0},
      'equal weights': {
        'name': 'distpro_retrain',
        'use': 'equal',
        'space': space,
      },
      'alpha_T': {**distpro, 'use': 'last'},
      'distpro': distpro,
    },
    sort_keys=False,
  )
  return config
