"""Layers that several architectures share, with PyTorch's conventions."""

import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.types import Array

# Kaiming normal over the fan out, not truncated.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
  """Uniform in +-1/sqrt(fan_in): PyTorch's default for weights and biases."""

  def initializer(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initializer


def conv(
  features: int,
  kernel: int = 3,
  stride: int = 1,
  *,
  groups: int = 1,
  use_bias: bool = False,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.Conv:
  """A square convolution, padded by kernel // 2 on each side."""
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=stride,
    padding=kernel // 2,
    feature_group_count=groups,
    use_bias=use_bias,
    kernel_init=kaiming_normal,
    dtype=dtype,
    name=name,
  )


def batch_norm(
  train: bool,
  *,
  epsilon: float = 1e-5,
  momentum: float = 0.9,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.BatchNorm:
  """Batch normalisation over all axes but the last."""
  return nn.BatchNorm(
    use_running_average=not train,
    epsilon=epsilon,
    momentum=momentum,
    dtype=dtype,
    name=name,
  )


class Classifier(nn.Module):
  """Linear map `[B, C]` -> logits `[B, num_classes]`, in float32."""

  num_classes: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    initializer = torch_uniform(x.shape[-1])
    return nn.Dense(
      self.num_classes,
      kernel_init=initializer,
      bias_init=initializer,
      name='linear',
    )(x.astype(jnp.float32))


class Pool(nn.Module):
  """Global average `[B, H, W, C]` -> `[B, C]`."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return x.mean((1, 2))


class ConvStem(nn.Module):
  """3x3 convolution, and batch norm and ReLU unless `bare`."""

  width: int
  stride: int = 1
  bare: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Any:
    x = conv(self.width, stride=self.stride, dtype=self.dtype, name='conv')(x)
    if self.bare:
      return x
    x = batch_norm(train, dtype=self.dtype, name='norm')(x)
    return {'': nn.relu(x), '.pre': x}


max_pool = functools.partial(
  nn.max_pool, window_shape=(2, 2), strides=(2, 2), padding='VALID'
)
