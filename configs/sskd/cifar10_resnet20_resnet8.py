"""SSKD's Tables 2, 3, 4 and 5 in small: CIFAR-10, 10,000 images, equal compute.

  jaxdistill --config=configs/sskd/cifar10_resnet20_resnet8.py \
    --config.data.path=cifar10.npz

Every row may spend what `EPOCHS` epochs of KD cost, counted in multiply-adds
of the networks, a backward pass as two forward ones: a stage runs the teacher
and the student only as far as it reaches and only its own backward pass. Not
counted are a stage's statistics, below 2 %. The student alone has the same
epochs, not the same cost.

The stages' rate is a cosine here, not the paper's steps; it was chosen on the
validation split of one seed from 0.01, 0.03 and 0.1, for three stages and for
multi-loss. With `...py:vgg8` a VGG teaches. The full size is beside it,
`cifar100_resnet56_resnet20.py`.
"""

import ml_collections

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


def stage_epochs(cut):
  """Epochs of each stage so that all and the head cost as much as KD."""
  cost = before = 0.0
  for feature, _ in cut:
    i = int(feature[-1]) - 1
    cost += TEACHER[i] + before + 3 * (STUDENT[i] - before)
    before = STUDENT[i]
  return (EPOCHS * KD - HEAD_EPOCHS * STUDENT[2]) / cost


def get_config(teacher='resnet20'):
  """Two weights for each rival; or 'vgg8' as teacher of SSKD alone."""
  if teacher not in ARGUMENTS:
    raise ValueError(f'{teacher!r} is none of {", ".join(ARGUMENTS)}')
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'npz',
    'path': 'cifar10.npz',
    'validation': 2000,
    'few': 10000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip'}
  config.teacher = {
    'name': 'resnet20',
    'training': {'epochs': 12, 'batch_size': 128},
  }
  config.student = {'name': 'resnet8'}
  config.batch_size = 64
  config.epochs = EPOCHS
  config.evaluate_every = 10
  config.seeds = 3
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  own = {
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
  rows = {'student alone': {'name': 'supervised'}}
  for count, cut in STAGES.items():
    epochs = stage_epochs(cut)
    rows[f'sskd, {count} stages'] = {
      'name': 'sskd',
      'cut': cut,
      'stage_epochs': epochs,
      **own,
    }
  for count in (2, 3):
    rows[f'multi-loss, {count}'] = {
      'name': 'multi_loss',
      'cut': STAGES[count],
      'backbone_epochs': stage_epochs(STAGES[1]),
      **own,
    }
  # KD's weight is lambda of the paper over 1 + lambda, with T^2 in the loss.
  for weight in (0.5, 0.9):
    rows[f'kd {weight:.0%}'] = {
      'name': 'kd',
      'weight': weight,
      'label_weight': 1 - weight,
    }
  for name, weights in {
    'hint': (10.0, 100.0),  # FitNets as the paper's equation 2
    'at': (50.0, 1000.0),
    'nst': (50.0, 1000.0),
  }.items():
    for weight in weights:
      rows[f'{name} {weight:g}'] = {'name': name, 'weight': weight}
  if teacher == 'vgg8':
    # Half its width; the epochs of the other teacher, which costs more.
    config.teacher = {
      'name': 'vgg8',
      'width': 0.5,
      'training': {'epochs': 12, 'batch_size': 128},
    }
    cut = (*STAGES[3][:2], ('group3', 'group5'))
    rows = {'sskd, 3 stages': {**rows['sskd, 3 stages'], 'cut': cut}}
  config.methods = ml_collections.ConfigDict(rows, sort_keys=False)
  return config
