"""Processes: normalisation, stretching in time, dropping, files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import process as process_lib
from jaxdistill.process import Pathway, Process
from jaxdistill.types import UsageError

PATHS = (
  Pathway('group1', 'group1.pre', 'T1', 1, 1),
  Pathway('group2', 'group1.pre', 'T1', 2, 1),
)


def made(**changes):
  """Three knots of two pathways, of 11 steps."""
  raw = np.array([[1.0, 1.0], [2.0, 0.0], [0.4, 0.6]], np.float32)
  whole = Process(PATHS, np.array([0.0, 4.0, 10.0]), 11, raw, raw / 4)
  return whole._replace(**changes)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('biased_softmax', np.exp([0, 2, -1]) / (np.exp([0, 2, -1, 1]).sum())),
    ('softmax', np.exp([0, 2, -1]) / np.exp([0, 2, -1]).sum()),
    ('biased_l1', [0, 2 / 4, -1 / 4]),
    ('l1', [0, 2 / 3, -1 / 3]),
    ('sigmoid', 1 / (1 + np.exp([0, -2, 1]))),
  ],
)
def test_the_normalisations_of_table_7_by_hand(name, expected):
  raw = jnp.array([0.0, 2.0, -1.0])
  found = process_lib.NORMALIZATIONS[name](raw)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('count', [10, 27])
def test_weights_begin_as_l_of_l_and_one(count):
  weights = process_lib.biased_softmax(jnp.ones(count))
  np.testing.assert_allclose(weights.sum(), count / (count + 1), rtol=1e-6)


def test_a_stretched_process_has_its_knots():
  whole = made()
  raw, weights = process_lib.at(whole, whole.steps / 10)
  np.testing.assert_allclose(raw, whole.raw, rtol=1e-6)
  np.testing.assert_allclose(weights, whole.weights, rtol=1e-6)


def test_a_stretched_process_is_linear_between_knots_and_constant_outside():
  whole = made(steps=np.array([2.0, 4.0, 8.0]))
  raw, _ = process_lib.at(whole, np.array([0.0, 0.3, 0.5, 1.0]))
  expected = [[1, 1], [1.5, 0.5], [1.6, 0.15], [0.4, 0.6]]
  np.testing.assert_allclose(raw, expected, rtol=1e-5)


def test_the_last_weights_stay():
  raw, weights = process_lib.at(process_lib.last(made()), jnp.float32(0.2))
  np.testing.assert_allclose(raw, [0.4, 0.6])
  np.testing.assert_allclose(weights, [0.1, 0.15])


def test_equal_weights_sum_to_one():
  _, weights = process_lib.at(process_lib.equal(PATHS * 5), jnp.float32(0.7))
  np.testing.assert_allclose(weights, np.full(10, 0.1))


def test_what_is_dropped_has_no_weight_and_the_rest_keeps_its_own():
  raw, weights = jnp.array([0.5, 0.6]), jnp.array([0.3, 0.4])
  np.testing.assert_allclose(process_lib.masked(raw, weights, 0.5), [0, 0.4])
  np.testing.assert_array_equal(process_lib.masked(raw, weights, None), weights)


def test_a_segment_holds_what_is_active_anywhere_in_it():
  """The second pathway falls below 0.5 at step 2 and is back at step 9."""
  sets = process_lib.active_sets(made(), 11, threshold=0.5, segments=4)
  # Steps 0-2, 3-5, 6-8, 9-10; the first is at 0.4 in the last step alone.
  assert sets == ((0, 1), (0,), (0,), (0, 1))
  whole = process_lib.active_sets(made(), 11, threshold=None, segments=4)
  assert whole == ((0, 1),)
  nothing = process_lib.active_sets(made(), 11, threshold=5.0, segments=1)
  assert nothing == ((),)


@pytest.mark.parametrize(('steps', 'count'), [(11, 4), (8, 4), (3, 3), (5, 1)])
def test_each_step_is_in_its_segment(steps, count):
  sets = tuple((i,) for i in range(count))
  found = [process_lib.set_at(sets, step, steps) for step in range(steps)]
  parts = np.array_split(np.arange(steps), count)
  assert found == [(i,) for i, part in enumerate(parts) for _ in part]


def test_a_process_goes_through_its_file(tmp_path):
  whole = made(about={'data': {'image': [8, 8, 1]}})
  path = tmp_path / 'process.json'
  path.write_text(json.dumps(process_lib.to_json(whole)))
  read = process_lib.load(path)
  assert read.pathways == whole.pathways
  assert read.num_steps == 11
  assert read.about == whole.about
  for key in ('steps', 'raw', 'weights'):
    np.testing.assert_array_equal(getattr(read, key), getattr(whole, key))


def test_a_process_goes_through_a_carry():
  arrays = process_lib.to_arrays(made())
  again = process_lib.from_arrays(jax.tree.map(jnp.asarray, arrays))
  assert again.pathways == PATHS
  jax.tree.map(np.testing.assert_allclose, again[1:5], made()[1:5])


def test_other_names_at_the_same_places_are_the_same_layout():
  renamed = tuple(p._replace(student='x', teacher='y') for p in PATHS)
  process_lib.check_layout(made(), renamed)


@pytest.mark.parametrize(
  ('paths', 'words'),
  [
    (PATHS[:1], 'has 2 pathways, and these networks have 1'),
    (
      (PATHS[0], PATHS[1]._replace(transform='T4')),
      'pathway 1 of the process is teacher 1 -> student 2 by T1 and that of '
      'the networks teacher 1 -> student 2 by T4',
    ),
    ((PATHS[1], PATHS[0]), 'pathway 0 of the process'),
  ],
)
def test_another_layout_is_refused_by_name(paths, words):
  with pytest.raises(UsageError, match=words):
    process_lib.check_layout(made(), paths)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'format': 'other'}, 'is no process'),
    ({'pathways': [['a', 'b']]}, 'is no whole process'),
    ({'raw': [[1.0, 2.0]]}, r'raw \(1, 2\) is not a number for each of 3'),
    ({'weights': [[1, float('nan')]] * 3}, 'weights'),
    ({'steps': [0, 4, 4]}, 'increases from 0 to below 11'),
    ({'steps': [0, float('nan'), 4]}, 'increases'),
    ({'steps': [-1, 2, 4]}, 'increases'),
    ({'steps': [[0], [4], [10]]}, 'increases'),
    ({'steps': 4}, 'not a number for each of 1'),
    ({'num_steps': 10}, 'below 10, the steps of the search'),
    ({'num_steps': float('inf')}, 'is no whole process'),
  ],
)
def test_a_damaged_file_is_refused(change, words, tmp_path):
  path = tmp_path / 'process.json'
  path.write_text(json.dumps({**process_lib.to_json(made()), **change}))
  with pytest.raises(UsageError, match=words):
    process_lib.load(path)


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(UsageError, match='no file'):
    process_lib.load(tmp_path / 'none.json')
  with pytest.raises(UsageError, match=r'a \.json file'):
    process_lib.load(tmp_path / 'none')
