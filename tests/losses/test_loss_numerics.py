"""Norms at zero, adaptive pooling, types, and the ranges of arguments."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError
from jaxdistill.losses import numerics

TEMPERATURES = ' in [0.001, 1e+06]'


def test_the_gradient_of_the_absolute_value_at_zero_is_zero():
  grad = jax.vmap(jax.grad(numerics.absolute))(jnp.array([-2.0, 0.0, 3.0]))
  np.testing.assert_array_equal(grad, [-1, 0, 1])


def test_the_absolute_value_and_its_gradient_are_products_with_the_sign():
  x = jnp.array([-2.5, -0.0, 0.0, 1e-30, jnp.inf, -jnp.inf])
  np.testing.assert_array_equal(numerics.absolute(x), x * jnp.sign(x))
  both = jax.vmap(jax.grad(numerics.absolute))(x), jnp.sign(x)
  np.testing.assert_array_equal(*both)
  second = jax.vmap(jax.grad(jax.grad(numerics.absolute)))(x)
  np.testing.assert_array_equal(second, 0)


@pytest.mark.parametrize('shape', [(4, 3), (2, 4, 3), (2, 2, 3, 5)])
def test_all_derivatives_of_a_gram_matrix_are_those_of_the_product(shape):
  rng = np.random.default_rng(0)
  x, tangent, weights = np.float32(rng.normal(size=(3, *shape)))
  weights = weights @ weights[..., ::-1, :].swapaxes(-1, -2)

  @jax.jit
  def derivatives(x):
    def of(gram):
      grad = jax.grad(lambda x: jnp.sum(weights * gram(x) ** 2))
      return gram(x), grad(x), jax.jvp(grad, (x,), (tangent,))[1]

    return of(numerics.gram), of(lambda x: x @ x.swapaxes(-1, -2))

  for actual, expected in zip(*derivatives(x)):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_the_euclidean_norm_at_zero_is_zero():
  rows = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(numerics.norm(rows, axis=1), [5, 0])
  grad = jax.jit(jax.grad(lambda x: jnp.sum(numerics.norm(x, axis=1))))
  np.testing.assert_allclose(grad(rows), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_normalized_vectors_have_norm_1_and_a_zero_vector_stays_zero():
  rows = jnp.array([[3.0, 4.0], [0.0, 0.0], [3e4, -4e4]])
  np.testing.assert_allclose(
    numerics.normalize(rows), [[0.6, 0.8], [0, 0], [0.6, -0.8]], rtol=1e-6
  )
  # The first row has length 5. Moving it by one unit along (0.8, -0.6), which
  # is perpendicular to it, turns the unit vector by 1 / 5.
  across = jnp.array([0.8, -0.6])
  grad = jax.jit(jax.grad(lambda x: numerics.normalize(x)[0] @ across))
  np.testing.assert_allclose(
    grad(rows), [[0.16, -0.12], [0, 0], [0, 0]], atol=1e-6
  )


def test_adaptive_pooling_of_7_to_4_has_overlapping_windows():
  # Windows 0-1, 1-3, 3-5, 5-6 of the columns 0, 1, ..., 6.
  x = jnp.tile(jnp.arange(7.0)[None, None, :, None], (1, 7, 1, 2))
  pooled = numerics.adaptive_average_pool(x, 4, 4)
  expected = np.tile(np.array([0.5, 2, 4, 5.5])[:, None], (1, 4, 1, 2))
  np.testing.assert_allclose(pooled, expected)


def test_adaptive_pooling_treats_each_axis_separately():
  x = jnp.arange(24.0).reshape(1, 4, 6, 1)
  pooled = numerics.adaptive_average_pool(x, 2, 3)
  # The first window holds 0, 1, 6, 7. The next one to the right holds numbers
  # that are larger by 2, the next one below by 12.
  expected = 3.5 + np.array([[0, 2, 4], [12, 14, 16]])
  np.testing.assert_allclose(pooled[0, :, :, 0], expected)


def test_maps_of_equal_size_are_returned_unchanged():
  x = jnp.ones((1, 3, 3, 2))
  first, second = numerics.match_size(x, x)
  assert first is x and second is x


def test_the_larger_map_is_pooled_whichever_argument_it_is():
  large, small = jnp.ones((2, 4, 6, 1)), jnp.ones((2, 2, 3, 5))
  for pair in (large, small), (small, large):
    first, second = numerics.match_size(*pair)
    assert first.shape[:3] == second.shape[:3] == (2, 2, 3)


@pytest.mark.parametrize(
  'dtype, expected',
  [('bfloat16', 'float32'), ('float32', 'float32'), ('int32', 'float32')],
)
def test_types_narrower_than_float32_become_float32(dtype, expected):
  assert numerics.at_least_float32(jnp.ones(2, dtype)).dtype == expected


@pytest.mark.parametrize(
  'loss, name, value, expected',
  [
    (losses.soft_target_loss, 'temperature', 0.0, TEMPERATURES),
    (losses.tempered_cross_entropy, 'temperature', 1e300, TEMPERATURES),
    (losses.dist_loss, 'tau', math.nan, TEMPERATURES),
    (losses.activation_boundary_loss, 'margin', 0.0, ' above 0'),
    (losses.contrastive_loss, 'temperature', 0.0, TEMPERATURES),
  ],
)
def test_a_number_out_of_range_is_named_with_the_range(
  loss, name, value, expected
):
  message = f'{name}: expected a number{expected}, got {value}'
  with pytest.raises(UsageError, match=re.escape(message)):
    loss(jnp.ones((4, 5)), jnp.ones((4, 5)), **{name: value})


@pytest.mark.parametrize(
  'loss, value',
  [(losses.squared_distance, 'max'), (losses.normalized_l1_loss, 'none')],
)
def test_an_unknown_reduction_is_named_with_the_valid_ones(loss, value):
  with pytest.raises(
    UsageError, match=f"reduction '{value}'.*valid: mean, sum"
  ):
    loss(jnp.ones((4, 5)), jnp.ones((4, 5)), reduction=value)
