"""Digits: a student that is a quarter of its teacher, new or pruned from it.

  python -m jaxdistill.main --config=configs/half_digits.py:new
  python -m jaxdistill.main --config=configs/half_digits.py:pruned

A ResNet-8 teacher learns 1,000 labelled digits. 'new' makes a student with half
of the teacher's channels everywhere (19,810 parameters). 'pruned' copies the
teacher and removes three quarters of the filters inside its blocks (22,290
parameters). Both then learn for 300 steps, from 200 images or from all.

Hardware and time: two CPU cores, about five minutes for each argument. Nothing
is downloaded.

Test accuracy over six seeds, `kd` on 200 images with the better of two rates:
new 96.18, pruned 96.79; teacher 97.99. RESULTS.md has all rows.
"""

ARGUMENTS = ('new', 'pruned')
LABELS, KD = {'name': 'supervised'}, {'name': 'kd'}
ALL = {'subset': 'train', 'epochs': 20}


def get_config(student='new'):
  """Returns the config.

  Args:
    student: 'new' for a new network, 'pruned' for the pruned teacher.
  """
  teacher = {'name': 'resnet8'}
  half = {'name': 'scaled', 'network': teacher, 'share': 0.5}
  row = {'new': new, 'pruned': pruned}[student]
  return {
    'data': {'name': 'digits', 'train_subset': 200},
    'teacher': {**teacher, 'training': {'subset': 'train', 'epochs': 20}},
    'student': half if student == 'new' else teacher,
    'subset': 'train_subset',
    'batch_size': 64,
    'epochs': 100,
    'evaluate_every': 25,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},  # the teacher's
    'methods': {
      'labels only, 200': row(LABELS, 100),
      'kd, 200': row(KD, 100),
      'kd, 200, rate 3e-2': row(KD, 100, rate=0.03),
      'labels only, 1,000': {**row(LABELS, 20), **ALL},
      'kd, 1,000': {**row(KD, 20), **ALL},
    },
  }


def new(method, epochs, rate=0.1):
  """Returns a row that trains the student as it is."""
  del epochs  # those of the row
  return {**method, 'schedule': {'name': 'cosine', 'rate': rate}}


def pruned(method, epochs, rate=0.1):
  """Returns a row that copies the teacher, prunes it and fine-tunes it."""
  pruning = {
    'name': 'pruned',
    'pruning': {'name': 'filters', 'keep': 0.25},
    'fine_tune': method,
    'fine_tune_epochs': epochs,
    'fine_tune_optimizer': {
      'name': 'sgd',
      'schedule': {'name': 'cosine', 'rate': rate},
    },
  }
  return {'name': 'from_teacher', 'method': pruning}
