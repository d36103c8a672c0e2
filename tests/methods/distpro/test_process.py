"""Processes: normalisation, stretching in time, dropped pathways, files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.methods.distpro import process as process_lib
from jaxdistill.methods.distpro.process import Pathway, Process

PATHS = (
  Pathway('group1', 'group1.pre', 'T1', 1, 1),
  Pathway('group2', 'group1.pre', 'T1', 2, 1),
)


def example_process(**changes):
  """A process of two pathways with three knots in 11 steps."""
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
def test_the_normalisations_of_table_7_agree_with_numpy(name, expected):
  raw = jnp.array([0.0, 2.0, -1.0])
  weights = process_lib.NORMALIZATIONS[name](raw)
  np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize('count', [10, 27])
def test_initial_weights_sum_to_l_over_l_plus_one(count):
  weights = process_lib.biased_softmax(jnp.ones(count))
  np.testing.assert_allclose(weights.sum(), count / (count + 1), rtol=1e-6)


def test_a_stretched_process_passes_through_its_knots():
  whole = example_process()
  raw, weights = process_lib.at(whole, whole.steps / 10)
  np.testing.assert_allclose(raw, whole.raw, rtol=1e-6)
  np.testing.assert_allclose(weights, whole.weights, rtol=1e-6)


def test_a_stretched_process_is_linear_between_knots_and_constant_outside():
  whole = example_process(steps=np.array([2.0, 4.0, 8.0]))
  raw, _ = process_lib.at(whole, np.array([0.0, 0.3, 0.5, 1.0]))
  expected = [[1, 1], [1.5, 0.5], [1.6, 0.15], [0.4, 0.6]]
  np.testing.assert_allclose(raw, expected, rtol=1e-5)


def test_the_last_weights_are_constant():
  raw, weights = process_lib.at(
    process_lib.last(example_process()), jnp.float32(0.2)
  )
  np.testing.assert_allclose(raw, [0.4, 0.6])
  np.testing.assert_allclose(weights, [0.1, 0.15])


@pytest.mark.parametrize('start', [0.0, 0.1, 0.4, 0.9])
def test_the_later_part_of_a_process_is_stretched_to_the_whole(start):
  whole = example_process(steps=np.array([2.0, 4.0, 8.0]), num_steps=11)
  part = process_lib.after(whole, start)
  progress = np.linspace(0, 1, 7)
  for expected, actual in zip(
    process_lib.at(whole, start + (1 - start) * progress),
    process_lib.at(part, progress),
    strict=True,
  ):
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_equal_weights_sum_to_one():
  _, weights = process_lib.at(process_lib.equal(PATHS * 5), jnp.float32(0.7))
  np.testing.assert_allclose(weights, np.full(10, 0.1))


def test_dropped_pathways_have_no_weight_and_others_keep_theirs():
  raw, weights = jnp.array([0.5, 0.6]), jnp.array([0.3, 0.4])
  np.testing.assert_allclose(process_lib.masked(raw, weights, 0.5), [0, 0.4])
  np.testing.assert_array_equal(process_lib.masked(raw, weights, None), weights)


def test_a_segment_holds_the_pathways_that_count_at_any_of_its_steps():
  """The second pathway falls below 0.5 at step 2 and returns at step 9."""
  sets = process_lib.active_sets(
    example_process(), 11, threshold=0.5, segments=4
  )
  # The segments are steps 0-2, 3-5, 6-8 and 9-10. The first pathway is below
  # 0.5 only at the last step.
  assert sets == ((0, 1), (0,), (0,), (0, 1))
  whole = process_lib.active_sets(
    example_process(), 11, threshold=None, segments=4
  )
  assert whole == ((0, 1),)
  nothing = process_lib.active_sets(
    example_process(), 11, threshold=5.0, segments=1
  )
  assert nothing == ((),)


@pytest.mark.parametrize(('steps', 'count'), [(11, 4), (8, 4), (3, 3), (5, 1)])
def test_each_step_uses_the_set_of_its_segment(steps, count):
  sets = tuple((i,) for i in range(count))
  chosen = [process_lib.set_at(sets, step, steps) for step in range(steps)]
  parts = np.array_split(np.arange(steps), count)
  assert chosen == [(i,) for i, part in enumerate(parts) for _ in part]


def test_a_process_survives_a_file(tmp_path):
  whole = example_process(about={'data': {'image': [8, 8, 1]}})
  path = tmp_path / 'process.json'
  path.write_text(json.dumps(process_lib.to_json(whole)))
  read = process_lib.load(path)
  assert read.pathways == whole.pathways
  assert read.num_steps == 11
  assert read.about == whole.about
  for key in ('steps', 'raw', 'weights'):
    np.testing.assert_array_equal(getattr(read, key), getattr(whole, key))


def test_a_process_survives_a_carry():
  arrays = process_lib.to_arrays(example_process())
  restored = process_lib.from_arrays(jax.tree.map(jnp.asarray, arrays))
  assert restored.pathways == PATHS
  jax.tree.map(
    np.testing.assert_allclose, restored[1:5], example_process()[1:5]
  )


def test_features_of_other_names_have_the_same_layout():
  renamed = tuple(p._replace(student='x', teacher='y') for p in PATHS)
  process_lib.check_layout(example_process(), renamed)


@pytest.mark.parametrize(
  ('paths', 'words'),
  [
    (PATHS[:1], 'expected 1 pathways, .* got 2'),
    (
      (PATHS[0], PATHS[1]._replace(transform='T4')),
      'expected pathway 1 to be teacher 1 -> student 2 by T4, as in the '
      'networks, got teacher 1 -> student 2 by T1',
    ),
    ((PATHS[1], PATHS[0]), 'expected pathway 0 to be'),
  ],
)
def test_another_layout_is_refused_with_its_first_pathway(paths, words):
  with pytest.raises(UsageError, match=words):
    process_lib.check_layout(example_process(), paths)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'format': 'other'}, 'expected the content of a process file'),
    ({'pathways': [['a', 'b']]}, 'expected a complete process'),
    ({'raw': [[1.0, 2.0]]}, r'raw to hold .* for 3 steps and 2 .* \(1, 2\)'),
    ({'weights': [[1, float('nan')]] * 3}, 'weights'),
    ({'steps': [0, 4, 4]}, 'increasing steps from 0 to below 11'),
    ({'steps': [0, float('nan'), 4]}, 'increasing steps'),
    ({'steps': [-1, 2, 4]}, 'increasing steps'),
    ({'steps': [[0], [4], [10]]}, 'increasing steps'),
    ({'steps': 4}, 'finite numbers for 1 steps'),
    ({'num_steps': 10}, 'below 10, the number of steps of the search'),
    ({'num_steps': float('inf')}, 'expected a complete process'),
  ],
)
def test_a_damaged_file_is_refused(change, words, tmp_path):
  path = tmp_path / 'process.json'
  path.write_text(
    json.dumps({**process_lib.to_json(example_process()), **change})
  )
  with pytest.raises(UsageError, match=words):
    process_lib.load(path)


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(UsageError, match='does not exist'):
    process_lib.load(tmp_path / 'none.json')
  with pytest.raises(UsageError, match=r'a \.json file'):
    process_lib.load(tmp_path / 'none')
