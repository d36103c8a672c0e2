"""Noise on residual branches: stochastic depth and ShakeDrop."""

import jax
from jax import lax
import jax.numpy as jnp

from jaxdistill.core.types import Array


def drop_path(x: Array, rate: float, rng: Array) -> Array:
  """Drops a residual branch for some examples and scales it up for the others.

  Args:
    x: the output of a residual branch `[B, ...]`.
    rate: the probability that an example's branch is dropped.
    rng: a random key.

  Returns:
    x * keep / (1 - rate) with keep ~ Bernoulli(1 - rate), one per example; its
    expected value is `x`. With rate 1 it is zero.

  References:
    Huang et al., Deep Networks with Stochastic Depth, 2016,
    https://arxiv.org/abs/1603.09382
  """
  keep = jax.random.bernoulli(rng, 1 - rate, _per_example(x))
  scale = 1 / (1 - rate) if rate < 1 else 0.0
  return x * (keep * scale).astype(x.dtype)


def shake_drop(x: Array, rate: float, rng: Array) -> Array:
  """Multiplies a branch by one random factor forward, by another one backward.

  With probability 1 - rate, drawn once for the batch, nothing changes.
  Otherwise the value is multiplied by alpha ~ U(-1, 1) and the gradient by beta
  ~ U(0, 1), both drawn per example. The mean of the value is (1 - rate) * x,
  which is used in inference.

  Args:
    x: the output of a residual branch `[B, ...]`.
    rate: the probability that the branch is disturbed.
    rng: a random key.

  References:
    Yamada et al., ShakeDrop Regularization for Deep Residual Learning, 2018,
    https://arxiv.org/abs/1802.02375
  """
  gate, forward, backward = jax.random.split(rng, 3)
  kept = jax.random.bernoulli(gate, 1 - rate)
  shape = _per_example(x)
  alpha = jax.random.uniform(forward, shape, x.dtype, minval=-1.0)
  beta = jax.random.uniform(backward, shape, x.dtype)
  alpha, beta = (jnp.where(kept, jnp.ones_like(a), a) for a in (alpha, beta))
  return x * beta + lax.stop_gradient(x * (alpha - beta))


def _per_example(x: Array) -> tuple[int, ...]:
  return (x.shape[0],) + (1,) * (x.ndim - 1)
