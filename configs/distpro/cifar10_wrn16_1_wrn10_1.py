"""DistPro's Table 1 in small: CIFAR-10, 10,000 images, WRN-16-1 -> WRN-10-1.

  jaxdistill --config=configs/distpro/cifar10_wrn16_1_wrn10_1.py \
    --config.data.path=cifar10.npz

Ten pathways by T1: each of the teacher's three groups and its pooled vector to
the student's same and deeper ones. Every row has the same images, epochs and
rate; a search comes on top, 8 epochs on 80 % of them (the weights settle in the
third). Its process has 20 knots. Made for two CPU cores. One process serves all
rows and seeds, as in the paper:

  jaxdistill ... --workdir=runs/search --row=search --config.seeds=1
  jaxdistill ... --config.teacher.checkpoint=runs/search \
    --config.methods.alpha_T.process=FILE \
    --config.methods.distpro.process=FILE --row=alpha_T --row=distpro

with FILE=runs/search/rows/search/0/process.json, and a `--row` for each rival
wanted; without FILE, alpha_T and distpro search for themselves, each seed anew.
The file of a search with `--config.data.path=other.npz` makes it Table 3 in
small.
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
  space = {'name': 'same_or_deeper', 'transforms': ('T1',)}
  search = {'search_epochs': 8, 'knots': 20, 'space': space}
  distpro = {'name': 'distpro', **search}
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
      'search': {'name': 'distpro_search', **search},
      'alpha_T': {**distpro, 'use': 'last'},
      'distpro': distpro,
    },
    sort_keys=False,
  )
  return config
