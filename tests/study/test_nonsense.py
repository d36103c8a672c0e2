"""Values that suit their annotation, but no run: refused with their key."""

import pytest

from jaxdistill import study
from jaxdistill.core.checks import UsageError

NETWORK = {'name': 'resnet8', 'widths': (2, 3, 4), 'stem_width': 2}


def config(changes):
  """A small config with the changes {'key.key': value}."""
  base = {
    'data': {'name': 'digits'},
    'student': dict(NETWORK),
    'teacher': {**NETWORK, 'training': {'epochs': 1}},
    'methods': {'row': {'name': 'kd'}},
    'augment': {'name': 'crop_flip', 'padding': 1},
    'optimizer': {'name': 'sgd'},
    'schedule': {'name': 'step', 'rate': 0.1},
    'epochs': 1,
  }
  for path, value in changes.items():
    *parents, key = path.split('.')
    section = base
    for parent in parents:
      section = section[parent]
    section[key] = value
  return base


def row(**section):
  return {'methods.row': section}


MIX = {'augment': {'name': 'regularized', 'mix': {'name': 'mixup'}}}
FAST = {'name': 'sgd', 'momentum': 2, 'schedule': {'name': 'constant'}}
NONSENSE = (
  # Sizes.
  ({'augment.padding': 2**63}, 'augment.padding: expected a whole number'),
  ({'augment.padding': 9}, 'padding: expected a whole number from 1 to 8'),
  ({'augment': {'name': 'imagenet', 'size': 10**9}}, 'augment.size: .*8192'),
  ({'data.num_test': 1797}, 'data: expected training and test examples'),
  ({'data.num_test': 2000}, 'data: expected training and test examples'),
  ({'data.validation': 1300}, 'data.validation: .* 1200 training examples'),
  ({'data.train_subset': 1300}, 'data.train_subset: expected at most'),
  ({'student.stem_width': 2**32 - 1}, 'student: .* at most 1e.11 parameters'),
  ({'teacher.widths': (2, 3, 2**31)}, 'teacher: .* at most 1e.11 parameters'),
  ({'student': {'name': 'cifar_resnet', 'depth': 10**9 - 4}}, 'student.depth'),
  ({'student': {'name': 'vit', 'depth': 10**9}}, 'student.depth: .*10000'),
  (
    {'student': {'name': 'vit', 'dropout': 1.5}},
    r'student.dropout: .*\[0, 1\)',
  ),
  (row(name='ban', generations=10**9), 'methods.row.generations: .*1000'),
  (row(name='crd', size=0), 'size: expected a whole number of at least 1'),
  # Lengths and counts.
  ({'epochs': 1e9}, "the steps of 'supervised|the steps of 'kd"),
  ({'epochs': 1e300}, 'epochs: expected a number'),
  ({'seeds': 10**9}, 'seeds: expected a count from 1 to 1000'),
  ({'workers': 10**6}, 'workers: .* from 0 to 1000'),
  ({'steps_per_call': 10**9}, 'steps_per_call: .* from 1 to 10000'),
  (row(name='fitnets', first=2.0), r'methods.row.first: .*\[0, 1\]'),
  (row(name='sskd', head_epochs=-1), 'epochs: expected a number of at least 0'),
  (row(name='sskd', statistics_steps=-1), 'statistics_steps: .* at least 0'),
  (row(name='reviewkd', warmup=-1), r'warmup: expected a number in \[0, 1\]'),
  # Factors and rates.
  ({'schedule.rate': {'name': 'kd'}}, 'schedule.rate: expected a number, got'),
  ({'schedule.rate': 1e300}, 'schedule.rate: expected a number in'),
  ({'schedule.rate': 1e-300}, 'schedule.rate: expected 0 or a number'),
  ({'schedule.factor': -1.0}, r'schedule.factor: .*\(0, 1\), got -1'),
  ({'schedule.boundaries': [[0.5, 0.1]]}, r'schedule.boundaries.0: expected'),
  ({'schedule.boundaries': [150, 180]}, r'schedule.boundaries: .*\[0, 1\]'),
  (row(name='kd', temperature=1e300), 'methods.row.temperature: expected'),
  (row(name='kd', label_weight={'name': 'kd'}), 'methods.row.label_weight: '),
  (row(name='kd', weight=1e308), 'methods.row.weight: expected a number in'),
  (
    row(name='distpro', search_optimizer=FAST),
    r'methods.row.search_optimizer.momentum: .*\[0, 1\)',
  ),
  # Pairs, names and words.
  (row(name='at', feature_pairs=[1, 1]), 'methods.row.feature_pairs.0: '),
  (row(name='at', feature_pairs=[]), 'feature_pairs: .* at least one pair'),
  (row(name='rkd', feature_pairs=[]), 'feature_pairs: .* at least one pair'),
  (row(name='hint', feature_pairs=()), 'feature_pairs: .* at least one pair'),
  (row(name='sskd', cut=[['group1']]), 'methods.row.cut.0: expected 2 entries'),
  (row(name='supervised', trainable={}), 'methods.row.trainable: expected a f'),
  ({'data.mean': ['grey']}, "data.mean.0: expected a number, got 'grey'"),
  ({'data.mean': []}, 'data.mean: expected 1 entries'),
  ({**MIX, 'augment.mix.num_classes': -1}, 'augment.mix.num_classes: '),
  ({**MIX, 'augment.mix.num_classes': 3}, 'labels of 3 classes, .* have 10'),
)


@pytest.mark.parametrize(('changes', 'message'), NONSENSE)
def test_nonsense_is_refused_in_one_line(changes, message):
  with pytest.raises(UsageError, match=message) as caught:
    study.plan(config(changes))
  assert '\n' not in str(caught.value)


def test_the_config_without_nonsense_is_a_plan():
  assert study.plan(config({})).rows
