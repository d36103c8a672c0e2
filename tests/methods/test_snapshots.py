"""Snapshots are copies of the model at some steps and change nothing else."""

import jax
import numpy as np
import pytest

from jaxdistill import methods
from jaxdistill.core.checks import UsageError
from jaxdistill.phases import joint
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))


def fitted(method, carry, dataset):
  return loop.fit(method, carry, dataset, options=SILENT).carry


def assert_close(model, expected):
  """Two programs that return different things may round differently."""
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
    *(model.variables, expected.variables),
  )


def assert_same(model, expected):
  jax.tree.map(
    np.testing.assert_array_equal, model.variables, expected.variables
  )


@pytest.fixture(scope='module')
def kept(student, recipe, dataset):
  """The carry with snapshots at 2, 4 and 6 of 6 steps."""
  method = methods.snapshots(
    method=joint.supervised(recipe), at=(1 / 3, 2 / 3, 1.0)
  )
  return fitted(method, {'student': student}, dataset)


def test_snapshots_do_not_change_training(kept, student, recipe, dataset):
  plain = fitted(joint.supervised(recipe), {'student': student}, dataset)
  assert_close(kept['student'], plain['student'])


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
  """The rate is constant, so a run of two steps ends with the same model."""
  short = recipe._replace(epochs=2 / 3)
  ended = fitted(joint.supervised(short), {'student': student}, dataset)
  assert_close(kept['snapshot1'], ended['student'])


def test_a_phase_that_stops_early_keeps_its_last_model(
  student, recipe, dataset
):
  method = methods.snapshots(method=joint.supervised(recipe), at=(0.5, 1.0))

  def stopped(carry):
    return method[0](carry)._replace(stop=lambda state: True)

  ended = fitted((stopped,), {'student': student}, dataset)
  assert_same(ended['snapshot2'], ended['student'])


@pytest.mark.parametrize(
  ('at', 'words'),
  [
    ((), 'at least one number'),
    ((0.0,), r'at: .* in \(0, 1\], got 0\.0'),
    ((0.5, 1.5), r'at: .* got 1\.5'),
    ((float('nan'),), 'at: .* got nan'),
    (('end',), "at: .* got 'end'"),
  ],
)
def test_fractions_out_of_range_are_refused(at, words, recipe):
  with pytest.raises(UsageError, match=words):
    methods.snapshots(method=joint.supervised(recipe), at=at)
