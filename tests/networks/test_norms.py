"""Batch norm as one scale and one shift equals Flax's batch norm."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import cpu
from jaxdistill.networks import layers
from jaxdistill.networks.layers import norms

SHAPES = ((4, 3, 2, 5), (6, 5))


def outcome(kind, shape, dtype, train):
  """Output, statistics, and first and second derivatives."""
  rng = np.random.default_rng(0)
  norm = kind(
    use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype
  )
  x, weights = jnp.float32(rng.normal(size=(2, *shape)) * 2 + 1)
  variables = norm.init(jax.random.key(0), x)
  variables = jax.tree.map(
    lambda v: v + jnp.float32(rng.uniform(0.1, 1, v.shape)), variables
  )

  def apply(params, x):
    return norm.apply(
      {**variables, 'params': params}, x, mutable=['batch_stats']
    )

  def loss(params, x):
    return jnp.sum(jnp.sin(apply(params, x)[0].astype(jnp.float32)) * weights)

  def second(params, x):
    grads = jax.grad(loss, (0, 1))(params, x)
    return sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))

  def everything(params, x):
    tangent = jax.jvp(apply, (params, x), (params, x**2))[1]
    first = jax.grad(loss, (0, 1))
    return (
      apply(params, x),
      tangent,
      first(params, x),
      jax.grad(second, 1)(params, x),
    )

  return jax.jit(everything)(variables['params'], x)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'train', 'tolerance'),
  [
    ((4, 3, 2, 5), jnp.float32, True, 1e-4),
    ((4, 3, 2, 5), jnp.float32, False, 1e-4),
    ((6, 5), jnp.float32, True, 1e-4),
  ],
)
def test_values_statistics_and_derivatives_are_equal(
  shape, dtype, train, tolerance
):
  actual = outcome(norms.ScaleShift, shape, dtype, train)
  expected = outcome(nn.BatchNorm, shape, dtype, train)
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_only_fast_processes_use_it(monkeypatch):
  assert type(layers.batch_norm(True)) is nn.BatchNorm
  for convolutions in ('oneDNN', 'XLA'):
    monkeypatch.setenv(cpu.MARK, convolutions)
    assert type(layers.batch_norm(True)) is norms.ScaleShift
