"""Batch norm as one scale and one shift equals Flax's batch norm."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import cpu
from jaxdistill.networks import layers
from jaxdistill.networks.layers import norms


def make(kind, train, dtype=jnp.float32):
  return kind(
    use_running_average=not train,
    epsilon=1e-5,
    momentum=0.9,
    scale_init=nn.initializers.ones,
    dtype=dtype,
  )


def outcome(kind, shape, train):
  """Gradients, output and statistics."""
  rng = np.random.default_rng(0)
  norm = make(kind, train)
  x, weights = jnp.float32(rng.normal(size=(2, *shape)) * 2 + 1)
  variables = norm.init(jax.random.key(0), x)
  variables = jax.tree.map(
    lambda v: v + jnp.float32(rng.uniform(0.1, 1, v.shape)), variables
  )

  def loss(params, x):
    y, statistics = norm.apply(
      {**variables, 'params': params}, x, mutable=['batch_stats']
    )
    return jnp.sum(jnp.sin(y) * weights), (y, statistics)

  return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables['params'], x)


@pytest.mark.parametrize(
  ('shape', 'train'),
  [((4, 3, 2, 5), True), ((4, 3, 2, 5), False), ((6, 5), True)],
)
def test_output_statistics_and_gradients_are_equal(shape, train):
  actual = outcome(norms.ScaleShift, shape, train)
  expected = outcome(nn.BatchNorm, shape, train)
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_spread_is_right_if_the_mean_is_much_larger():
  rng = np.random.default_rng(0)
  means = np.float32([1, 100, 1000, 10_000])
  x = rng.normal(size=(64, 8, 4)).astype(np.float32) + means
  norm = make(norms.ScaleShift, True)
  variables = {
    'params': {'scale': np.ones(4), 'bias': np.zeros(4)},
    'batch_stats': {'mean': means * np.float32(0.999), 'var': np.ones(4)},
  }
  variables = jax.tree.map(jnp.float32, variables)
  y, _ = norm.apply(variables, x, mutable=['batch_stats'])
  exact = np.float64(x) - np.float64(x).mean((0, 1))
  exact /= np.sqrt((exact**2).mean((0, 1)) + norm.epsilon)
  for i, tolerance in enumerate((1e-5, 1e-4, 1e-3, 1e-2)):
    np.testing.assert_allclose(y[..., i], exact[..., i], atol=tolerance)


def test_other_types_have_statistics_in_float32():
  norm = make(norms.ScaleShift, True, jnp.bfloat16)
  x = jax.ShapeDtypeStruct((4, 3, 3, 5), jnp.bfloat16)
  y, variables = jax.eval_shape(norm.init_with_output, jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_only_fast_processes_use_it(monkeypatch):
  assert type(layers.batch_norm(True)) is nn.BatchNorm
  for convolutions in ('oneDNN', 'XLA'):
    monkeypatch.setenv(cpu.MARK, convolutions)
    assert type(layers.batch_norm(True)) is norms.ScaleShift
