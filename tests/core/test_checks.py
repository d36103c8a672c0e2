"""Checks of values, and the messages of their errors."""

import numpy as np
import pytest

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError


@pytest.mark.parametrize('value', [3, np.int32(3)])
def test_valid_whole_numbers_become_ints(value):
  number = checks.integer('x', value, at_least=3, at_most=3)
  assert number == 3 and type(number) is int


@pytest.mark.parametrize('value', [0, 2.0, True, '2', None, float('nan')])
def test_invalid_whole_numbers_are_rejected(value):
  with pytest.raises(UsageError) as error:
    checks.integer('a.count', value)
  assert str(error.value) == (
    f'a.count: expected a whole number of at least 1, got {value!r}'
  )
  with pytest.raises(UsageError, match='a whole number from 0 to 9, got 10'):
    checks.integer('a.count', 10, at_least=0, at_most=9)


@pytest.mark.parametrize(
  ('bounds', 'inside', 'outside', 'words'),
  [
    ({}, -1, float('inf'), 'a number, got inf'),
    ({'at_least': 0}, 0, -0.1, 'a number of at least 0, got -0.1'),
    ({'above': 0}, 0.1, 0, 'a number above 0, got 0'),
    ({'at_most': 1}, 1, 1.5, 'a number of at most 1, got 1.5'),
    ({'below': 1}, 0.5, 1, 'a number below 1, got 1'),
    ({'at_least': 0, 'below': 1}, 0, 1.0, 'a number in [0, 1), got 1.0'),
    ({'above': 0, 'at_most': 1}, 1, 0, 'a number in (0, 1], got 0'),
  ],
)
def test_numbers_must_be_within_their_bounds(bounds, inside, outside, words):
  assert checks.number('x', inside, **bounds) == inside
  for value in (float('nan'), True, '1', None):
    with pytest.raises(UsageError, match='x: expected a number'):
      checks.number('x', value, **bounds)
  with pytest.raises(UsageError) as error:
    checks.number('x', outside, **bounds)
  assert str(error.value) == f'x: expected {words}'


def test_an_unknown_name_is_rejected_with_the_nearest_one():
  assert checks.choice('network', 'vgg8', ['vgg8', 'vgg13']) == 'vgg8'
  with pytest.raises(UsageError) as error:
    checks.choice('network', 'resnet', ['resnet8', 'vgg13'])
  assert str(error.value) == (
    "unknown network 'resnet'; did you mean 'resnet8'? (valid: resnet8, vgg13)"
  )
  many = [f'resnet{depth}' for depth in range(checks.MOST_LISTED + 1)]
  assert str(checks.unknown('network', 'resnt8', many)) == (
    "unknown network 'resnt8'; did you mean 'resnet8'?"
  )
  with pytest.raises(UsageError, match=r"network 'xyz' \(valid: vgg13\)"):
    checks.choice('network', 'xyz', ['vgg13'])


def test_a_sequence_must_have_an_entry_for_each_object():
  assert checks.length('weights', [1, 2], 2, 'groups') == (1, 2)
  message = 'weights: expected 2 entries, one for each of the groups, got 1'
  with pytest.raises(UsageError, match=message):
    checks.length('weights', [1], 2, 'groups')
  with pytest.raises(UsageError, match=r'expected 2 entries, .* got 5'):
    checks.length('weights', 5, 2, 'groups')


def test_line_breaks_of_a_users_key_are_escaped():
  assert str(UsageError('a\nb: expected c')) == r'a\nb: expected c'
