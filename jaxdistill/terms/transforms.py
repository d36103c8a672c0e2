"""The transforms of DistPro: a student's feature in the shape of a teacher's.

m is the least of 512 and both numbers of channels; 'attended' is a map times a
map of one channel that a 1x1 convolution makes of it; 'resized' is by nearest
neighbour to the teacher's size. No convolution has a bias, and a batch norm
follows each of them but those of the attention.

  T1: 1x1 to the teacher's channels, resized
  T2: 1x1 to m, attended, resized, 3x3
  T3: as T2, with one more 3x3 of m channels before the last
  T4: 3x3 to m, ReLU, attended, 3x3, ReLU, resized, 3x3
  tokens: linear map to the teacher's channels, layer norm, resized

The paper draws T2 to T4 (Figure 4) and leaves the one of transformers to its
supplement; T1 is the simplest one of the authors' code.
"""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.networks import layers
from jaxdistill.terms import helpers
from jaxdistill.types import Array

Shape = tuple[int, int, int]
_MOST = 512  # channels inside a transform


def as_map(x: Array) -> Array:
  """A feature as a map `[B, H, W, C]`.

  Args:
    x: a map; a vector `[B, C]`, which becomes one place; or tokens
      `[B, N, C]`, whose patches become a square and whose class token, if
      there is one, is left out.
  """
  if x.ndim != 3:
    return helpers.as_map(x)
  height, width, channels = map_shape(x.shape)
  return x[:, -height * width :].reshape(len(x), height, width, channels)


def map_shape(shape: tuple[int, ...]) -> Shape:
  """(H, W, C) of `as_map` of a feature of that shape, `[B, ...]`.

  Tokens whose number is neither a square nor one more are a column.
  """
  if len(shape) == 2:
    return 1, 1, shape[-1]
  if len(shape) == 4:
    return shape[1], shape[2], shape[3]
  for patches in (shape[1] - 1, shape[1]):
    side = round(patches**0.5)
    if patches and side**2 == patches:
      return side, side, shape[-1]
  return shape[1], 1, shape[-1]


class Linear(nn.Module):
  """T1. `shape` is (H, W, C) of the teacher's feature, as in all of them."""

  shape: Shape

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    layer = _Layers(as_map(x), train)
    x = layer.conv(layer.start, self.shape[-1], 1, 'conv')
    return _resized(x, self.shape)


class Attended(nn.Module):
  """T2, and T3 where `deep`."""

  shape: Shape
  deep: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    layer = _Layers(as_map(x), train)
    inner = _inner(layer.start, self.shape)
    x = layer.conv(layer.start, inner, 1, 'conv1')
    x = _resized(layer.attend(x), self.shape)
    if self.deep:
      x = layer.conv(x, inner, 3, 'conv2')
    return layer.conv(x, self.shape[-1], 3, 'conv3')


class Rectified(nn.Module):
  """T4."""

  shape: Shape

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    layer = _Layers(as_map(x), train)
    inner = _inner(layer.start, self.shape)
    x = nn.relu(layer.conv(layer.start, inner, 3, 'conv1'))
    x = nn.relu(layer.conv(layer.attend(x), inner, 3, 'conv2'))
    return layer.conv(_resized(x, self.shape), self.shape[-1], 3, 'conv3')


class Tokens(nn.Module):
  """The transform of tokens."""

  shape: Shape

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = as_map(x)
    dtype = _at_least_float32(x)
    x = nn.Dense(self.shape[-1], dtype=dtype, name='linear')(x)
    x = nn.LayerNorm(1e-6, dtype=dtype, use_fast_variance=False, name='norm')(x)
    return _resized(x, self.shape)


class Deep(Attended):
  """T3."""

  deep: bool = True


TRANSFORMS: dict[str, type] = {
  'T1': Linear,
  'T2': Attended,
  'T3': Deep,
  'T4': Rectified,
  'tokens': Tokens,
}


class _Layers:
  """Makes the layers of the module that calls it, in at least float32."""

  def __init__(self, start: Array, train: bool):
    self.start, self._train = start, train
    self._dtype = _at_least_float32(start)

  def conv(self, x: Array, channels: int, kernel: int, name: str) -> Array:
    """Convolution and batch norm."""
    x = layers.conv(channels, kernel, dtype=self._dtype, name=name)(x)
    norm = name.replace('conv', 'norm')
    return layers.batch_norm(self._train, dtype=self._dtype, name=norm)(x)

  def attend(self, x: Array) -> Array:
    attention = layers.conv(
      1, 1, initial='uniform', dtype=self._dtype, name='attention'
    )
    return x * attention(x)


def _at_least_float32(x: Array) -> Any:
  return jnp.promote_types(x.dtype, jnp.float32)


def _inner(x: Array, shape: Shape) -> int:
  return min(_MOST, x.shape[-1], shape[-1])


def _resized(x: Array, shape: Shape) -> Array:
  height, width = shape[:2]
  if x.shape[1:3] == (height, width):
    return x
  return helpers.nearest(x, height, width)
