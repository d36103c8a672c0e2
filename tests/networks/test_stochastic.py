"""Random branches keep their mean, and are not random at rate zero."""

import functools

from flax import linen as nn
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.networks.layers import (
  attention,
  inverted_residual,
  stochastic_depth,
)
from jaxdistill.networks.models import pyramidnet

OPTIONS = {'xla_backend_optimization_level': 0}
KEYS = jax.random.split(jax.random.key(0), 4000)


def jit_vmap(function):
  return jax.jit(jax.vmap(function), compiler_options=OPTIONS)


def test_drop_path_keeps_the_mean_and_drops_whole_examples():
  x = jnp.arange(1.0, 13.0).reshape(3, 2, 2, 1)
  drawn = jit_vmap(lambda k: stochastic_depth.drop_path(x, 0.25, k))(KEYS)
  # The factor is 4/3 with probability 3/4: its variance is 1/3.
  np.testing.assert_allclose(
    np.mean(drawn, 0) / x, 1.0, atol=4 * (1 / 3 / len(KEYS)) ** 0.5
  )
  factors = np.asarray(drawn) / np.asarray(x)
  np.testing.assert_allclose(factors.std((2, 3, 4)), 0.0, atol=1e-6)
  np.testing.assert_allclose(np.unique(factors.round(4)), [0.0, 1.3333])


def test_shake_drop_has_other_factors_backward_than_forward():
  x = jnp.ones((3, 2, 2, 1))

  def draw(key):
    y, back = jax.vjp(lambda x: stochastic_depth.shake_drop(x, 0.4, key), x)
    return y[:, 0, 0, 0], back(jnp.ones_like(y))[0][:, 1, 1, 0]

  forward, backward = map(np.asarray, jit_vmap(draw)(KEYS))
  kept = np.all(np.isclose(forward, 1), 1)
  assert abs(kept.mean() - 0.6) < 4 * (0.24 / len(KEYS)) ** 0.5
  # There is one gate for the batch: it disturbs every example or none.
  np.testing.assert_allclose(backward[kept], 1.0, rtol=1e-6)
  assert not np.isclose(forward[~kept], 1).any()
  # alpha ~ U(-1, 1) and beta ~ U(0, 1), independent of each other.
  alpha, beta = forward[~kept].ravel(), backward[~kept].ravel()
  assert alpha.min() < -0.9 and alpha.max() > 0.9
  assert beta.min() >= 0 and beta.max() > 0.9
  assert abs(alpha.mean()) < 4 * (1 / 3 / alpha.size) ** 0.5
  assert abs(beta.mean() - 0.5) < 4 * (1 / 12 / beta.size) ** 0.5
  assert abs(np.corrcoef(alpha, beta)[0, 1]) < 4 / alpha.size**0.5


def test_shake_drop_scales_the_branch_by_its_mean_in_inference():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 4, 4, 8)).astype(np.float32)
  plain = pyramidnet.PyramidBlock(2)
  shaken = plain.clone(shake_drop=0.4)

  init = functools.partial(plain.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(2), x)
  variables = jax.tree.map(lambda s: rng.uniform(0.5, 1, s.shape), shapes)

  @functools.partial(jax.jit, compiler_options=OPTIONS)
  def branches(variables, x):
    return (
      plain.apply(variables, x, train=False)[''] - x,
      shaken.apply(variables, x, train=False)[''] - x,
    )

  branch, scaled = branches(variables, x)
  assert float(jnp.abs(branch).max()) > 0.1
  np.testing.assert_allclose(scaled, 0.6 * branch, rtol=1e-4, atol=1e-4)


# (module with a rate, name of the rate, shape of the module's input).
RANDOM = {
  'drop path of an inverted residual': (
    functools.partial(inverted_residual.InvertedResidual, 4, 8),
    'drop_path',
    (2, 4, 4, 4),
  ),
  'drop path of a transformer': (
    functools.partial(attention.TransformerBlock, 2),
    'drop_path',
    (2, 3, 8),
  ),
  'dropout of a transformer': (
    functools.partial(attention.TransformerBlock, 2),
    'dropout',
    (2, 3, 8),
  ),
  'shake drop': (
    functools.partial(pyramidnet.PyramidBlock, 2),
    'shake_drop',
    (2, 4, 4, 8),
  ),
  'dropout of the head': (
    functools.partial(layers.Classifier, 3),
    'dropout',
    (2, 8),
  ),
}


class OwnDropout(nn.Module):
  """Dropout as users write it."""

  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    return nn.Dropout(self.rate)(x, deterministic=not train)


class OwnNnxDropout(nnx.Module):
  """The same in NNX."""

  def __init__(self, rate, rngs):
    self.dropout = nnx.Dropout(rate, rngs=rngs)

  def __call__(self, x):
    return self.dropout(x)


def network_with(name, rate):
  if name == 'dropout of an NNX module':
    make = functools.partial(OwnNnxDropout, rate)
    return networks.from_nnx(lambda rngs: make(rngs=rngs)), (2, 8)
  if name == 'dropout of a Linen module':
    return networks.from_linen(OwnDropout(rate)), (2, 8)
  make, key, shape = RANDOM[name]
  return Network((Stage('only', make(**{key: rate})),)), shape


@pytest.mark.parametrize(
  'name', [*RANDOM, 'dropout of a Linen module', 'dropout of an NNX module']
)
def test_without_a_key_training_draws_nothing(name):
  def program(rate, key):
    network, shape = network_with(name, rate)
    features = {'image': jax.ShapeDtypeStruct(shape, jnp.float32)}
    variables = graph.variable_shapes(network, features)
    rngs = {'dropout': jax.random.key(0)} if key else None
    run = functools.partial(graph.run, network, train=True, rngs=rngs)
    return str(jax.make_jaxpr(run)(variables, features))

  assert 'random_bits' in program(0.5, True)
  without_key = program(0.5, False)
  assert 'random_bits' not in without_key
  if name != 'shake drop':  # there the branch has its mean, as in inference
    assert without_key == program(0.0, False)


@pytest.mark.parametrize(
  'name', ['drop path of an inverted residual', 'drop path of a transformer']
)
def test_drop_path_does_not_change_inference(name):
  make, rate, shape = RANDOM[name]
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  init = functools.partial(make().init, train=False)
  variables = jax.eval_shape(init, jax.random.key(1), x)
  programs = [
    str(jax.make_jaxpr(functools.partial(m.apply, train=False))(variables, x))
    for m in (make(), make(**{rate: 0.9}))
  ]
  assert programs[0] == programs[1]


def test_rates_grow_linearly_with_depth():
  def rates(network, field):
    modules = [s.module for s in network.stages]
    return [getattr(m, field) for m in modules if hasattr(m, field)]

  small = networks.NETWORKS['vit'](8, 3, 2, drop_path=0.1)
  assert rates(small, 'drop_path') == [0.0, 0.05, 0.1]
  shaken = networks.NETWORKS['pyramidnet'](20, 6, shake_drop=0.6)
  np.testing.assert_allclose(
    rates(shaken, 'shake_drop'), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
  )
  mobile = networks.NETWORKS['efficientnet_b0']()
  np.testing.assert_allclose(
    rates(mobile, 'drop_path'), [0.2 * i / 16 for i in range(16)]
  )


def test_a_branch_that_is_always_dropped_is_zero():
  x = jnp.ones((3, 2))
  dropped = stochastic_depth.drop_path(x, 1.0, jax.random.key(0))
  np.testing.assert_array_equal(dropped, jnp.zeros((3, 2)))
