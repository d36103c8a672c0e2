"""SSKD, Tables 2 to 5 on a small scale: equal compute on CIFAR-10.

  jaxdistill --config=configs/sskd/cifar10_resnet20_resnet8.py \
    --config.data.path=cifar10.npz

With `...py:vgg8` a VGG is the teacher instead of ResNet-20.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Setting: every row may spend what `EPOCHS` epochs of KD cost. We count the
multiply-adds of the networks, and a backward pass as two forward passes. A
stage runs the teacher and the student only as far as the stage reaches, and
only its own backward pass. The statistics of a stage, below 2 %, are not
counted. The student alone has the same epochs, not the same cost.

The rate of the stages follows a cosine here, not the paper's steps. It is the
best of 0.01, 0.03 and 0.1 on the validation split of one seed, for three stages
and for multi-loss.

Hardware and time: one CPU core, 60 to 350 seconds a run.

Test accuracy over three seeds: student alone 46.34, KD (weight 0.9) 53.21, SSKD
with two stages 57.29. RESULTS.md has all rows. `cifar100_resnet56_resnet20.py`
in the same folder is the full-size experiment.
"""

ARGUMENTS = ('resnet20', 'vgg8')
EPOCHS = 2.5
HEAD_EPOCHS = 1
STAGES = {
  1: (('group3', 'group3'),),
  2: (('group2', 'group2'), ('group3', 'group3')),
  3: (('group1', 'group1'), ('group2', 'group2'), ('group3', 'group3')),
}
# Millions of multiply-adds of a forward pass up to group 1, 2, 3.
TEACHER, STUDENT = (14.6, 27.7, 40.8), (5.2, 8.8, 12.5)
KD = TEACHER[2] + 3 * STUDENT[2]
TRAINING = {'epochs': 12, 'batch_size': 128}


def stage_epochs(cut):
  """Returns epochs of each stage so that stages and head cost as much as KD."""
  cost = before = 0.0
  for feature, _ in cut:
    i = int(feature[-1]) - 1
    cost += TEACHER[i] + before + 3 * (STUDENT[i] - before)
    before = STUDENT[i]
  return (EPOCHS * KD - HEAD_EPOCHS * STUDENT[2]) / cost


def staged_rows():
  """Returns SSKD with one to three stages, and multi-loss with two or three."""
  head = {
    'head_epochs': HEAD_EPOCHS,
    'statistics_steps': 20,
    'stage_optimizer': {
      'name': 'sgd',
      'nesterov': False,
      'schedule': {'name': 'cosine', 'rate': 0.03},
    },
    'head_optimizer': {
      'name': 'sgd',
      'nesterov': False,
      'weight_decay': 1e-4,
      'schedule': {'name': 'cosine', 'rate': 0.1},
    },
  }
  rows = {}
  for count, cut in STAGES.items():
    rows[f'sskd, {count} stages'] = {
      'name': 'sskd',
      'cut': cut,
      'stage_epochs': stage_epochs(cut),
      **head,
    }
  for count in (2, 3):
    rows[f'multi-loss, {count}'] = {
      'name': 'multi_loss',
      'cut': STAGES[count],
      'backbone_epochs': stage_epochs(STAGES[1]),
      **head,
    }
  return rows


def rival_rows():
  """Returns each rival with two weights."""
  rows = {}
  # KD's weight is the paper's lambda over 1 + lambda; our loss contains T^2.
  for weight in (0.5, 0.9):
    rows[f'kd {weight:.0%}'] = {
      'name': 'kd',
      'weight': weight,
      'label_weight': 1 - weight,
    }
  for name, weights in {
    'hint': (10.0, 100.0),  # FitNets as in the paper's equation 2
    'at': (50.0, 1000.0),
    'nst': (50.0, 1000.0),
  }.items():
    for weight in weights:
      rows[f'{name} {weight:g}'] = {'name': name, 'weight': weight}
  return rows


def get_config(teacher='resnet20'):
  """Returns all rows, or only SSKD if a VGG is the teacher."""
  if teacher not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {teacher!r}')
  network = {'name': 'resnet20'}
  rows = {
    'student alone': {'name': 'supervised'},
    **staged_rows(),
    **rival_rows(),
  }
  if teacher == 'vgg8':
    # It has half its width, and the epochs of ResNet-20, which costs more.
    network = {'name': 'vgg8', 'width': 0.5}
    cut = (*STAGES[3][:2], ('group3', 'group5'))
    rows = {'sskd, 3 stages': {**rows['sskd, 3 stages'], 'cut': cut}}
  return {
    'data': {
      'name': 'npz',
      'path': 'cifar10.npz',
      'validation': 2000,
      'train_subset': 10000,
      'stratified': False,  # as in the runs of RESULTS.md
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {**network, 'training': TRAINING},
    'student': {'name': 'resnet8'},
    'batch_size': 64,
    'epochs': EPOCHS,
    'evaluate_every': 10,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
