"""SSKD on digits: a teacher that saw 1,000 images, students that see 200.

  jaxdistill --config=configs/sskd/digits.py

Teacher and student have equal channels, as in the paper; one stage of a narrow
student could not hold a wide teacher's features. One budget of epochs for all.
"""

import ml_collections

CUT = (('group1', 'group1'), ('group2', 'group2'), ('group3', 'group3'))


def get_config():
  """The rates were not tuned."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits', 'few': 200}
  config.teacher = {
    'name': 'resnet14',
    'widths': (8, 16, 32),
    'stem_width': 8,
    'training': {'subset': 'train', 'epochs': 20},
  }
  config.student = {
    'name': 'resnet8',
    'widths': (8, 16, 32),
    'stem_width': 8,
  }
  config.subset = 'few'
  config.batch_size = 50
  config.epochs = 80
  config.evaluate_every = 20
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  rows = {'student alone': {'name': 'supervised'}, 'kd': {'name': 'kd'}}
  for name, label in {'sskd': 'sskd', 'multi_loss': 'multi-loss'}.items():
    for count in (1, 2, 3):
      rows[f'{label}, {count}'] = {
        'name': name,
        'cut': CUT[-count:],
        'statistics_steps': 20,
      }
  del rows['multi-loss, 1']  # is one-stage SSKD
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
