"""Batches: which examples they contain, and in which order."""

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.loading import batches

ARRAYS = {'image': 10 * np.arange(14).reshape(14, 1), 'index': np.arange(14)}


def indices(source, steps):
  return [tuple(np.asarray(source(step)['index'])) for step in steps]


def test_an_epoch_has_whole_batches_and_no_example_twice():
  source = batches.Batches(ARRAYS, 4, (0, 0))
  assert source.steps_per_epoch == 3
  seen = np.concatenate(indices(source, range(3)))
  assert len(seen) == len(set(seen)) == 12


def test_an_epoch_has_every_example_once_if_the_batch_size_divides():
  source = batches.Batches(ARRAYS, 7, (0, 0))
  for epoch in range(3):
    seen = np.concatenate(indices(source, (2 * epoch, 2 * epoch + 1)))
    assert sorted(seen) == list(range(14))


def test_examples_left_out_of_one_epoch_are_in_others():
  source = batches.Batches(ARRAYS, 4, (0, 0))
  left_out = set(range(14)) - set(np.concatenate(indices(source, range(3))))
  later = set(np.concatenate(indices(source, range(3, 30))))
  assert len(left_out) == 2
  assert left_out <= later


def test_a_batch_depends_only_on_the_seeds_and_the_step():
  forward = indices(batches.Batches(ARRAYS, 4, (5, 1)), range(9))
  backward = indices(batches.Batches(ARRAYS, 4, (5, 1)), range(8, -1, -1))
  assert forward == backward[::-1]


def test_all_arrays_of_a_batch_have_the_same_examples():
  batch = batches.Batches(ARRAYS, 4, (0, 0))(2)
  np.testing.assert_array_equal(batch['image'][:, 0], 10 * batch['index'])


def test_another_epoch_has_another_order():
  source = batches.Batches(ARRAYS, 7, (0, 0))
  assert indices(source, (0, 1)) != indices(source, (2, 3))


@pytest.mark.parametrize('seeds', [(1, 0), (0, 1), (1, 1), (0, 0, 1)])
def test_another_seed_has_another_order(seeds):
  first = indices(batches.Batches(ARRAYS, 7, (0, 0)), range(2))
  assert indices(batches.Batches(ARRAYS, 7, seeds), range(2)) != first


@pytest.mark.parametrize(
  ('size', 'batch_size', 'steps'), [(14, 4, 3), (12, 4, 3), (4, 4, 1)]
)
def test_steps_per_epoch_counts_whole_batches(size, batch_size, steps):
  assert batches.steps_per_epoch(size, batch_size) == steps


@pytest.mark.parametrize('batch_size', [0, -3, 15])
def test_a_batch_that_the_data_cannot_fill_is_rejected(batch_size):
  with pytest.raises(UsageError, match=rf'from 1 to 14, .*got {batch_size}'):
    batches.steps_per_epoch(14, batch_size)
  with pytest.raises(UsageError, match='batch_size'):
    batches.Batches(ARRAYS, batch_size, (0,))
