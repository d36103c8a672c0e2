"""Distillation on noise, and on images that are made from the teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods import data_free
from jaxdistill.networks import layers
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))


def _fit(method, carry, dataset):
  return loop.fit(method, carry, dataset, options=SILENT)


def test_gaussian_kd_does_not_depend_on_the_images(
  recipe, student, teacher, dataset
):
  """With frozen statistics, the statistics do not change either."""
  carry = {'student': student, 'teacher': teacher}
  black = dataset._replace(
    splits={
      **dataset.splits,
      'train': {
        **dataset.splits['train'],
        'image': 0 * dataset.splits['train']['image'],
      },
    }
  )
  method = data_free.gaussian_kd(recipe, frozen_statistics=True)
  ends = [_fit(method, carry, d).carry['student'] for d in (dataset, black)]
  jax.tree.map(np.testing.assert_array_equal, *(end.variables for end in ends))
  jax.tree.map(
    np.testing.assert_array_equal,
    ends[0].variables['batch_stats'],
    student.variables['batch_stats'],
  )
  head = ends[0].variables['params']['head']['linear']['kernel']
  assert (head != student.variables['params']['head']['linear']['kernel']).any()


@pytest.fixture(scope='module')
def impressions(recipe, student, teacher):
  """The phase that makes two batches of 8 images, with all its states."""
  method = data_free.zero_shot(
    recipe, count=16, iterations=30, batch=8, rate=0.05, temperature=1.0
  )
  carry = {'student': student, 'teacher': teacher}
  phase = method[0](carry)
  assert (phase.num_steps, phase.streams) == (60, {})
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  states, losses = [], []
  for i in range(60):
    rng = jax.random.fold_in(jax.random.key(1), i)
    state, metrics = step(state, frozen, {}, rng)
    states.append(state)
    losses.append(float(metrics['loss']))
  return phase, states, losses, carry


def test_images_approach_the_targets_that_were_drawn(impressions):
  _, states, losses, _ = impressions
  for first in (0, 30):
    target = states[first].target
    np.testing.assert_allclose(target.sum(1), 1.0, rtol=1e-5)
    assert losses[first + 29] < losses[first]
  assert (states[0].target != states[30].target).any()


def test_each_batch_is_stored_and_every_image_uses_the_whole_range(impressions):
  phase, states, _, carry = impressions
  end = states[-1]
  for rows, state in ((slice(8), states[29]), (slice(8, 16), end)):
    levels = np.asarray(end.images[rows], np.float32) / 255
    np.testing.assert_allclose(levels, state.image, atol=0.5 / 255 + 1e-6)
  np.testing.assert_array_equal(end.labels[:8], states[29].label)
  assert (end.images.min((1, 2, 3)) == 0).all()
  assert (end.images.max((1, 2, 3)) == 255).all()
  data = phase.finish(end, (), carry)['impressions']
  assert data['image'].dtype == np.uint8
  np.testing.assert_array_equal(data['index'], np.arange(16))


def test_similarities_are_cosines_scaled_to_the_unit_interval():
  """The three weights are at 0, 45 and 90 degrees."""
  weights = jnp.array([[1.0, 2.0, 0.0], [0.0, 2.0, 3.0]])
  half = 0.5**0.5
  np.testing.assert_allclose(
    data_free._similarities(weights),
    [[1, half, 0], [0, 1, 0], [0, half, 1]],
    atol=1e-6,
  )


@pytest.mark.parametrize('weights', [np.zeros((2, 3)), np.ones((2, 3))])
def test_classes_of_equal_or_no_weights_have_finite_similarities(weights):
  similarities = data_free._similarities(jnp.asarray(weights))
  np.testing.assert_allclose(similarities, np.zeros((3, 3)), atol=1e-6)


def test_a_class_without_weights_is_similar_to_no_class():
  weights = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
  similarities = np.asarray(data_free._similarities(weights))
  assert np.isfinite(similarities).all()
  np.testing.assert_array_equal(similarities[1], 0)
  np.testing.assert_array_equal(similarities[:, 1], 0)


def test_zero_shot_does_not_depend_on_the_data(
  recipe, student, teacher, dataset
):
  method = data_free.zero_shot(recipe, count=16, iterations=2, batch=8)
  carry = {'student': student, 'teacher': teacher}
  black = {**dataset.splits['train']}
  black['image'] = 0 * black['image']
  other = dataset._replace(splits={**dataset.splits, 'train': black})
  fitted, fitted_on_black = (_fit(method, carry, d) for d in (dataset, other))
  jax.tree.map(
    np.testing.assert_array_equal,
    fitted.carry['student'].variables,
    fitted_on_black.carry['student'].variables,
  )
  head = fitted.carry['student'].variables['params']['head']['linear']
  before = student.variables['params']['head']['linear']
  assert (head['kernel'] != before['kernel']).any()
  assert set(fitted.carry) == {'student', 'teacher', 'impressions'}
  # 4 steps make images; two epochs of 16 images in batches of 8 follow.
  assert fitted.steps == 4 + 4


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      {'count': 16, 'batch': 5},
      'batch: expected a divisor of count, 16, got 5',
    ),
    ({'count': 4, 'batch': 2}, 'count: expected at least batch_size, 8, got 4'),
    (
      {'iterations': 0},
      'iterations: expected a whole number of at least 1, got 0',
    ),
    ({'scales': (0.0,)}, 'scales: expected a number above 0'),
  ],
)
def test_numbers_out_of_range_are_refused(recipe, arguments, message):
  with pytest.raises(UsageError, match=message):
    data_free.zero_shot(recipe, **arguments)


def test_a_teacher_whose_last_stage_is_not_linear_is_refused(recipe, student):
  ends = Network(
    (Stage('stem', layers.ConvUnit(3)), Stage('pool', layers.Pool()))
  )
  model = Model(ends, {'params': {'stem': {}}})
  method = data_free.zero_shot(recipe, count=16, batch=8)
  with pytest.raises(
    UsageError, match="last stage 'pool' to be a single linear"
  ):
    method[0]({'student': student, 'teacher': model})
