"""SSKD on digits: the teacher saw 1,000 images, the students see 200.

  jaxdistill --config=configs/sskd/digits.py
  jaxdistill --config=configs/sskd/digits.py:new_classifier
  jaxdistill --config=configs/sskd/digits.py:plateau

The first command gives Tables 2 and 3 on a small scale, and the second one
Table 1: the backbone of a whole network gets a new classifier, which is trained
by itself. With the third one, SSKD's rate falls when the distance of a stage no
longer does, as the paper's text says, and the same rule ends the stage.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Setting: teacher and student have equal numbers of channels, as in the paper; a
single stage of a narrow student could not represent a wide teacher's features.
All rows have the same number of epochs. The rates were not tuned.

Hardware and time: two CPU cores, a few minutes. Nothing is downloaded.

Test accuracy over three seeds: student alone 91.74, KD 95.87, SSKD with one
stage 94.86. RESULTS.md has all rows, also for four times as many epochs.
"""

ARGUMENTS = ('stages', 'new_classifier', 'plateau')
CUT = (('group1', 'group1'), ('group2', 'group2'), ('group3', 'group3'))
WHOLE = {'student alone': {'name': 'supervised'}, 'kd': {'name': 'kd'}}


def stage_rows():
  """Returns SSKD and its multi-loss rival with one to three stages."""
  rows = {}
  for name, label in {'sskd': 'sskd', 'multi_loss': 'multi-loss'}.items():
    for count in (1, 2, 3):
      rows[f'{label}, {count}'] = {
        'name': name,
        'cut': CUT[-count:],
        'statistics_steps': 20,
      }
  del rows['multi-loss, 1']  # the same as SSKD with one stage
  return rows


def new_classifier_rows():
  """Returns whole networks whose classifier is trained anew."""
  return {
    f'{label}, new classifier': {
      'name': 'fixed_backbone',
      'method': method,
      'head_epochs': 40,
    }
    for label, method in WHOLE.items()
  }


def plateau_rows():
  """Returns SSKD with the paper's rule of plateaus, and at most 160 epochs."""
  rule = {
    'name': 'plateau',
    'rate': 0.01,
    'final': 1e-5,
    'window': 4,  # the steps of an epoch
    'patience': 5,
    'threshold': 1e-3,
  }
  optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4}
  return {
    f'sskd, {count}, plateau': {
      'name': 'sskd',
      'cut': CUT[-count:],
      'statistics_steps': 20,
      'stage_epochs': 160,
      'head_epochs': 40,
      'stage_optimizer': {**optimizer, 'schedule': rule},
    }
    for count in (1, 2, 3)
  }


ROWS = {
  'stages': stage_rows,
  'new_classifier': new_classifier_rows,
  'plateau': plateau_rows,
}


def get_config(experiment='stages'):
  """Returns the student alone, KD, and the rows of an experiment."""
  if experiment not in ROWS:
    raise ValueError(f'expected one of {", ".join(ROWS)}, got {experiment!r}')
  return {
    'data': {'name': 'digits', 'train_subset': 200},
    'teacher': {
      'name': 'resnet14',
      'widths': (8, 16, 32),
      'stem_width': 8,
      'training': {'subset': 'train', 'epochs': 20},
    },
    'student': {
      'name': 'resnet8',
      'widths': (8, 16, 32),
      'stem_width': 8,
    },
    'subset': 'train_subset',
    'batch_size': 50,
    'epochs': 80,
    'evaluate_every': 20,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {**WHOLE, **ROWS[experiment]()},
  }
