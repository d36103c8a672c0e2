"""Layers that several architectures share, with PyTorch's conventions."""

from collections.abc import Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.networks import convolutions
from jaxdistill.types import Array, UsageError

# Kaiming normal over the fan out, not truncated.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
  """Uniform in +-1/sqrt(fan_in): PyTorch's default for weights and biases."""

  def initializer(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initializer


ACTIVATIONS = {
  '': lambda x: x,
  'relu': nn.relu,
  'relu6': nn.relu6,
  'swish': nn.swish,
  'hard_swish': nn.hard_swish,
  'sigmoid': nn.sigmoid,
  'hard_sigmoid': nn.hard_sigmoid,
}


def conv(
  features: int,
  kernel: int = 3,
  stride: int = 1,
  *,
  groups: int = 1,
  use_bias: bool = False,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.Module:
  """A square convolution, padded by kernel // 2 on each side."""
  return convolutions.Conv(
    features,
    kernel,
    stride,
    groups,
    use_bias,
    kernel_init=kaiming_normal,
    dtype=jnp.dtype(dtype),
    name=name,
  )


def batch_norm(
  train: bool,
  *,
  epsilon: float = 1e-5,
  momentum: float = 0.9,
  scale: float = 1.0,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.BatchNorm:
  """Batch normalisation over all axes but the last; `scale` is initial."""
  return nn.BatchNorm(
    use_running_average=not train,
    epsilon=epsilon,
    momentum=momentum,
    scale_init=nn.initializers.constant(scale),
    dtype=dtype,
    name=name,
  )


class Classifier(nn.Module):
  """Linear map `[B, C]` -> logits `[B, num_classes]`, in float32.

  Attributes:
    num_classes: size of the answer.
    dropout: rate of the dropout before it.
    std: of the normal initial weights, with zero bias; 0: uniform in
      +-1/sqrt(C), bias too.
  """

  num_classes: int
  dropout: float = 0.0
  std: float = 0.0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return linear(x.astype(jnp.float32), self.num_classes, self.std)


class Hidden(nn.Module):
  """Linear map `[B, C]` -> `[B, width]` and activation; see `Classifier`."""

  width: int
  activation: str = 'relu'
  dropout: float = 0.0
  std: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = linear(x.astype(self.dtype), self.width, self.std)
    return {'': ACTIVATIONS[self.activation](x), '.pre': x}


def linear(x: Array, features: int, std: float) -> Array:
  """The layer 'linear' of the module that calls it; see `Classifier`."""
  normal = nn.initializers.normal(std)
  uniform = torch_uniform(x.shape[-1])
  return nn.Dense(
    features,
    kernel_init=normal if std else uniform,
    bias_init=nn.initializers.zeros if std else uniform,
    dtype=x.dtype,
    name='linear',
  )(x)


class Pool(nn.Module):
  """Global average `[B, H, W, C]` -> `[B, C]`."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return x.mean((1, 2))


class NormPool(nn.Module):
  """Batch norm, ReLU and global average `[B, H, W, C]` -> `[B, C]`.

  Attributes:
    pre: full name of the feature after the norm, before the ReLU.
    scale: initial scale of the norm.
    dtype: of the computation.
  """

  pre: str
  scale: float = 1.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    norm = batch_norm(train, scale=self.scale, dtype=self.dtype, name='norm')
    x = norm(x)
    return {'': nn.relu(x).mean((1, 2)), self.pre: x}


class ConvUnit(nn.Module):
  """Convolution, and batch norm, activation and pooling where asked for.

  Attributes:
    width: channels of the output.
    kernel: size of the convolution's kernel.
    stride: of the convolution.
    norm: whether a batch norm follows.
    activation: a key of `ACTIVATIONS`.
    pool: whether a 3x3 max-pooling of stride 2 ends it.
    epsilon: of the batch norm.
    momentum: of the batch norm's running statistics.
    dtype: of the computation.
  """

  width: int
  kernel: int = 3
  stride: int = 1
  norm: bool = True
  activation: str = 'relu'
  pool: bool = False
  epsilon: float = 1e-5
  momentum: float = 0.9
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    x = conv(
      self.width, self.kernel, self.stride, dtype=self.dtype, name='conv'
    )(x)
    if self.norm:
      x = batch_norm(
        train,
        epsilon=self.epsilon,
        momentum=self.momentum,
        dtype=self.dtype,
        name='norm',
      )(x)
    y = ACTIVATIONS[self.activation](x)
    if self.pool:
      y = nn.max_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return {'': y, '.pre': x} if self.activation else {'': y}


max_pool = functools.partial(
  nn.max_pool, window_shape=(2, 2), strides=(2, 2), padding='VALID'
)


def per_block(
  name: str, values: Sequence[Any] | None, count: int
) -> tuple[Any, ...]:
  """A value for each of `count` blocks; None: zeros.

  Raises:
    UsageError: `values` has another length.
  """
  if values is None:
    return (0,) * count
  if len(values) != count:
    raise UsageError(
      f'{name} has {len(values)} entries; the network has {count} blocks'
    )
  return tuple(values)
