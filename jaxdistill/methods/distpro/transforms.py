"""The transforms of DistPro, from a student's feature to a teacher's shape.

m is the smallest of 512 and the two numbers of channels. 'attended' multiplies
a map by a map of one channel that a 1x1 convolution computes from it. 'resized'
enlarges to the teacher's size by the nearest neighbour, and shrinks to it by
the mean. No convolution has a bias, and a batch norm follows each of them
except those of the attention.

  T1: 1x1 to the teacher's channels, resized
  T2: 1x1 to m, attended, resized, 3x3
  T3: like T2, with one more 3x3 of m channels before the last one
  T4: 3x3 to m, ReLU, attended, 3x3, ReLU, resized, 3x3
  tokens: linear map to the teacher's channels, layer norm, resized

The paper draws T2 to T4 in Figure 4 and leaves the transform of tokens to its
supplement; T1 is the simplest transform of the authors' code. The paper does
not say how its interpolation layer shrinks a map. The authors' code has no
pathway that shrinks one, and enlarges by the nearest neighbour, which would
keep a corner of a map that shrinks.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import numerics
from jaxdistill.networks import description, layers
from jaxdistill.objectives import adapters, maps

_MAX_CHANNELS = 512  # Inside a transform.


@description.register
class Linear(nn.Module):
  """T1.

  Attributes:
    shape: (H, W, C) of the teacher's feature, as in all transforms.
  """

  shape: maps.MapShape

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    layer = _Layers(maps.as_map(x), train)
    x = layer.conv(layer.start, self.shape[-1], 1, 'conv')
    return _resized(x, self.shape)


@description.register
class Attended(nn.Module):
  """T2.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
    deep: whether there is one more convolution, which gives T3.
  """

  shape: maps.MapShape
  deep: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    layer = _Layers(maps.as_map(x), train)
    inner = _inner(layer.start, self.shape)
    x = layer.conv(layer.start, inner, 1, 'conv1')
    x = _resized(layer.attend(x), self.shape)
    if self.deep:
      x = layer.conv(x, inner, 3, 'conv2')
    return layer.conv(x, self.shape[-1], 3, 'conv3')


@description.register
class Rectified(nn.Module):
  """T4.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
  """

  shape: maps.MapShape

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    layer = _Layers(maps.as_map(x), train)
    inner = _inner(layer.start, self.shape)
    x = nn.relu(layer.conv(layer.start, inner, 3, 'conv1'))
    x = nn.relu(layer.conv(layer.attend(x), inner, 3, 'conv2'))
    return layer.conv(_resized(x, self.shape), self.shape[-1], 3, 'conv3')


@description.register
class Tokens(nn.Module):
  """The transform of tokens.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
  """

  shape: maps.MapShape

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = maps.as_map(x)
    dtype = _at_least_float32(x)
    x = nn.Dense(self.shape[-1], dtype=dtype, name='linear')(x)
    x = nn.LayerNorm(1e-6, dtype=dtype, use_fast_variance=False, name='norm')(x)
    return _resized(x, self.shape)


@description.register
class Deep(Attended):
  """T3, which is T2 with one more convolution."""

  deep: bool = True


# Name -> module.
TRANSFORMS: dict[str, type] = {
  'T1': Linear,
  'T2': Attended,
  'T3': Deep,
  'T4': Rectified,
  'tokens': Tokens,
}


class _Layers:
  """Adds layers to the module that calls it, in float32 or higher precision."""

  def __init__(self, start: Array, train: bool):
    self.start, self._train = start, train
    self._dtype = _at_least_float32(start)

  def conv(self, x: Array, channels: int, kernel: int, name: str) -> Array:
    """Applies a convolution and batch norm."""
    x = layers.conv(channels, kernel, dtype=self._dtype, name=name)(x)
    norm = name.replace('conv', 'norm')
    return layers.batch_norm(self._train, dtype=self._dtype, name=norm)(x)

  def attend(self, x: Array) -> Array:
    """Multiplies a map by a map of one channel computed from it."""
    attention = layers.conv(
      1, 1, initial='uniform', dtype=self._dtype, name='attention'
    )
    return x * attention(x)


def _at_least_float32(x: Array) -> Any:
  """Returns the dtype of an array, or float32 if that is more precise."""
  return jnp.promote_types(x.dtype, jnp.float32)


def _inner(x: Array, shape: maps.MapShape) -> int:
  """Returns m, the number of channels inside a transform."""
  return min(_MAX_CHANNELS, x.shape[-1], shape[-1])


def _resized(x: Array, shape: maps.MapShape) -> Array:
  """Enlarges a map to the teacher's size, and shrinks it to it by the mean."""
  height, width = shape[:2]
  if x.shape[1:3] == (height, width):
    return x
  x = numerics.adaptive_average_pool(
    x, min(height, x.shape[1]), min(width, x.shape[2])
  )
  return adapters.nearest(x, height, width)
