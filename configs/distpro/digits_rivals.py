"""DistPro on digits, beside rivals that are tuned with the same effort.

  jaxdistill --config=configs/distpro/digits_rivals.py

The claim to test is that of Table 1: DistPro is better than ReviewKD.

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: that of `configs/sskd/digits.py`, where features teach more than
probabilities: the teacher saw 1,000 images, and the students see 200. Nine
pathways by T1 join all pairs of the three groups. Every row has 320 steps, and
four trials that differ in one number; the trial that is best on the validation
split is trained with all seeds. Before its 320 steps, DistPro searches for 300
steps, once for each training. 'distpro, later part' leaves out the first half
of the process, in which its weights have not settled. 'alpha_T' trains with the
last weights of the process.

Hardware and time: one CPU core; four minutes. Nothing is downloaded.

Test accuracy over three seeds: student alone 91.68, KD 95.53, ReviewKD 96.65,
equal weights 95.87, DistPro 93.86. RESULTS.md has all rows.
"""

WEIGHTS = [0.3, 1.0, 3.0, 10.0]


def get_config():
  """Returns seven rows with four trials each, and the student alone."""
  network = {'widths': (8, 16, 32), 'stem_width': 8}
  space = {'name': 'all_pairs', 'transforms': ('T1',)}
  search = {'search_epochs': 100, 'knots': 20, 'space': space, 'segments': 2}
  distpro = {'name': 'distpro', **search}
  equal = {'name': 'distpro_retrain', 'use': 'equal', 'space': space}
  weights = {'sweep': {'keys': {'weight': WEIGHTS}}}
  return {
    'data': {'name': 'digits', 'train_subset': 200},
    'teacher': {
      'name': 'resnet14',
      **network,
      'training': {'subset': 'train', 'epochs': 20},
    },
    'student': {'name': 'resnet8', **network},
    'subset': 'train_subset',
    'batch_size': 50,
    'epochs': 80,
    'evaluate_every': 80,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'student alone': {'name': 'supervised'},
      'kd': {
        'name': 'kd',
        'sweep': {'keys': {'temperature': [2.0, 4.0, 8.0, 16.0]}},
      },
      'reviewkd': {'name': 'reviewkd', **weights},
      'equal weights': {**equal, **weights},
      'alpha_T': {**distpro, 'use': 'last', **weights},
      'distpro': {**distpro, **weights},
      'distpro, later part': {**distpro, 'start': 0.5, **weights},
    },
  }
