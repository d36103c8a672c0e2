"""Snapshots: what the model was at some steps, and nothing else."""

import jax
import numpy as np
import pytest

from jaxdistill.methods import joint, snapshots
from jaxdistill.training import log, loop
from jaxdistill.types import UsageError

SILENT = loop.Options(log=log.Log(show=False))


def fitted(method, carry, dataset):
  return loop.fit(method, carry, dataset, options=SILENT).carry


def assert_same(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


@pytest.fixture(scope='module')
def kept(student, recipe, dataset):
  """At 2, 4 and 6 of 6 steps."""
  method = snapshots.snapshots(
    method=joint.supervised(recipe), at=(1 / 3, 2 / 3, 1.0)
  )
  return fitted(method, {'student': student}, dataset)


def test_training_is_the_same_to_the_bit(kept, student, recipe, dataset):
  plain = fitted(joint.supervised(recipe), {'student': student}, dataset)
  assert_same(kept['student'], plain['student'])


def test_the_last_snapshot_is_the_model_and_earlier_ones_differ(kept):
  assert set(kept) == {'student', 'snapshot1', 'snapshot2', 'snapshot3'}
  assert_same(kept['snapshot3'], kept['student'])
  kernels = [
    np.asarray(
      kept[f'snapshot{i}'].variables['params']['stem']['conv']['kernel']
    )
    for i in (1, 2, 3)
  ]
  assert (kernels[0] != kernels[1]).any() and (kernels[1] != kernels[2]).any()


def test_a_snapshot_is_the_model_at_its_step(kept, student, recipe, dataset):
  """At a constant rate, that of a run of two steps."""
  short = recipe._replace(epochs=2 / 3)
  ended = fitted(joint.supervised(short), {'student': student}, dataset)
  assert_same(kept['snapshot1'], ended['student'])


def test_a_phase_that_ends_early_keeps_what_it_came_to(
  student, recipe, dataset
):
  method = snapshots.snapshots(method=joint.supervised(recipe), at=(0.5, 1.0))

  def stopped(carry):
    return method[0](carry)._replace(stop=lambda state: True)

  ended = fitted((stopped,), {'student': student}, dataset)
  assert_same(ended['snapshot2'], ended['student'])


@pytest.mark.parametrize(
  ('at', 'words'),
  [
    ((), 'at least one share'),
    ((0.0,), r'at: 0\.0 is no share in \(0, 1\]'),
    ((0.5, 1.5), r'at: 1\.5'),
    ((float('nan'),), 'at: nan'),
    (('end',), "at: 'end'"),
  ],
)
def test_wrong_shares_are_refused(at, words, recipe):
  with pytest.raises(UsageError, match=words):
    snapshots.snapshots(method=joint.supervised(recipe), at=at)
