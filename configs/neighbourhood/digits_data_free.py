"""Neighbourhood Distillation without data, on digits: which noise to use.

  jaxdistill --config=configs/neighbourhood/digits_data_free.py:0.5

The argument after the colon is k, the width inside the student's blocks as a
fraction of the teacher's. The data serves only to train the teacher and to
measure the students.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020, Table 4. The paper has the row 'gaussian' only.

Setting: a ResNet-8 of 8, 16 and 32 channels, whose blocks are narrowed inside
by k. The pieces learn from 1,005 batches of noise, 64 images each, by Adam at
0.003. The students that they form are fine-tuned by KD on 105 batches of noise.
The row of KD on noise has 1,005 batches. ZSKD makes 1,000 images with 200
iterations each and learns from them for 60 epochs. Rates were not tuned.

Hardware and time: two CPU cores, about five minutes without fine-tuning and
ZSKD. RESULTS.md has the numbers.
"""

ARGUMENTS = ('1.0', '0.75', '0.5')


def get_config(multiplier='0.5'):
  """Returns one row for each kind of noise, KD on noise, and ZSKD."""
  network = {'name': 'resnet8', 'stem_width': 8, 'widths': (8, 16, 32)}
  pieces = {
    'name': 'neighbourhood',
    'neighbourhood_epochs': 67,
    'neighbourhood_optimizer': {
      'name': 'adamw',
      'weight_decay': 0.0,
      'schedule': {'name': 'cosine', 'rate': 0.003},
    },
    'fine_tune': {'name': 'gaussian_kd', 'frozen_statistics': True},
    'epochs': 7,
    'schedule': {'rate': 1e-4},
  }
  kinds = ('gaussian', 'rectified', 'image', 'moments')
  return {
    'data': {'name': 'digits'},
    'teacher': {**network, 'training': {'epochs': 20}},
    'student': {
      'name': 'narrowed',
      'network': network,
      'multiplier': float(multiplier),
    },
    'batch_size': 64,
    'epochs': 67,
    'evaluate_every': 67,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      **{f'pieces, {kind}': {**pieces, 'inputs': kind} for kind in kinds},
      'kd on noise': {'name': 'gaussian_kd'},
      'zskd': {
        'name': 'zero_shot',
        'count': 1000,
        'iterations': 200,
        'batch_size': 64,
        'epochs': 60,
        'optimizer': {'name': 'adamw', 'weight_decay': 0.0},
        'schedule': {'rate': 1e-3},
      },
    },
  }
