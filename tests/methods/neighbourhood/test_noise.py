"""Neighbourhoods that learn from noise in place of data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.neighbourhood import forward, moments, piece_phases
from jaxdistill.methods.neighbourhood.plan import INPUTS
from jaxdistill.networks import graph, layers

BLOCKS = ('group1.block1', 'group2.block1')
NOISE = [kind for kind in INPUTS if kind != 'data']


@pytest.mark.parametrize('inputs', NOISE)
def test_parts_learn_from_noise_in_training_mode(
  recipe, carry, inputs, plan_of, take_steps
):
  plan = plan_of(recipe, inputs=inputs, look_ahead=(1.0,))
  phase = piece_phases.train_phase(plan, carry, ('student',))
  assert phase.streams == {}
  before, after, metrics = take_steps(phase, carry, {})
  assert float(metrics['loss']) > 0
  for name in BLOCKS:
    for collection in ('params', 'batch_stats'):
      old, new = (
        state.variables['student'][collection][name]
        for state in (before, after)
      )
      assert any(
        np.abs(x - y).max() > 1e-6
        for x, y in zip(jax.tree.leaves(old), jax.tree.leaves(new))
      )


def test_the_statistics_of_noise_give_the_map_that_learned_from_it(
  recipe, carry, plan_of, assert_close
):
  """Evaluation computes what training mode computes on the same noise."""
  plan = plan_of(recipe, inputs='gaussian')
  layout = piece_phases.layout_of(plan, carry, 'student')
  rng = jax.random.key(5)
  boundaries = forward.boundary_features(
    plan, layout, carry['teacher'], {}, rng
  )
  phase = piece_phases.statistics_phase(plan, carry, 'student', 1)
  state, frozen = phase.init(jax.random.key(0), carry)
  state, _ = jax.jit(functools.partial(phase.step, static=None))(
    state, frozen, {}, rng
  )
  ready = phase.finish(state, frozen, carry)
  for piece in layout.trained:
    trained, _ = forward.outputs_of(
      *(plan, layout, piece, {'student': carry['student']}, boundaries, rng),
      train=True,
    )
    evaluated, _ = forward.outputs_of(
      *(plan, layout, piece, {'student': ready['student']}, boundaries, rng),
      train=False,
    )
    assert_close(trained, evaluated, atol=1e-4)


def test_noise_of_moments_has_the_means_and_deviations_of_the_norms(
  recipe, whole
):
  """With means far above 0 the ReLUs change nothing."""
  teacher = whole
  params = dict(teacher.variables['params'])
  for stage, norm, mean, deviation in (
    ('stem', 'norm', 20.0, 0.5),
    (BLOCKS[0], 'norm2', 7.0, 2.0),
  ):
    shape = params[stage][norm]['scale'].shape
    moments_of_norm = {
      'scale': jnp.full(shape, deviation),
      'bias': jnp.full(shape, mean),
    }
    params[stage] = {**params[stage], norm: moments_of_norm}
  variables = {**teacher.variables, 'params': params}
  image = jnp.zeros((256, *recipe.example['image'].shape[1:]))
  features = moments.noise_features(
    Model(teacher.network, variables), image, 'group1', jax.random.key(0)
  )
  assert 'group2' not in features
  np.testing.assert_array_equal(features['group1'], features[BLOCKS[0]])
  np.testing.assert_allclose(features['stem'].mean((0, 1, 2)), 20.0, atol=0.05)
  np.testing.assert_allclose(features['stem'].std((0, 1, 2)), 0.5, atol=0.05)
  np.testing.assert_allclose(features['group1'].mean(), 27.0, atol=0.1)
  np.testing.assert_allclose(features['group1'].std(), 4.25**0.5, atol=0.1)


def test_moments_need_stages_that_end_with_a_norm_and_a_relu(recipe):
  image = jnp.zeros(recipe.example['image'].shape)
  pooled = Network(
    (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))
  )
  variables = graph.init(pooled, jax.random.key(0), {'image': image})
  with pytest.raises(UsageError, match=r"inputs='moments'.*stage 'pool'"):
    moments.noise_features(
      Model(pooled, variables), image, 'pool', jax.random.key(0)
    )


def test_noise_differs_between_steps_and_kinds(recipe, carry, plan_of):
  def loss(seed, inputs='gaussian', look_ahead=()):
    plan = plan_of(recipe, inputs=inputs, look_ahead=look_ahead)
    phase = piece_phases.train_phase(plan, carry, ('student',))
    state, frozen = phase.init(jax.random.key(0), carry)
    step = jax.jit(functools.partial(phase.step, static=None))
    return float(step(state, frozen, {}, jax.random.key(seed))[1]['loss'])

  first = loss(0)
  assert loss(0) == first
  assert abs(loss(1) - first) > 1e-3 * first
  assert abs(loss(0, 'rectified') - first) > 1e-3 * first
  assert loss(0, look_ahead=(1.0,)) > 1.001 * first


def test_statistics_on_noise_are_those_of_the_students_convolutions(
  recipe, carry, plan_of, take_steps
):
  plan = plan_of(recipe, inputs='gaussian')
  phase = piece_phases.statistics_phase(plan, carry, 'student', 2)
  assert phase.streams == {}
  _, after, _ = take_steps(phase, carry, {}, count=2)
  statistics = after.variables['batch_stats'][BLOCKS[0]]
  kernel = carry['student'].variables['params'][BLOCKS[0]]['conv1']['kernel']
  expected = (np.asarray(kernel) ** 2).sum((0, 1, 2))
  np.testing.assert_allclose(statistics['norm1']['var'], expected, rtol=0.5)
