"""How an image becomes tokens, and how tokens become one vector."""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array
from jaxdistill.networks import description
from jaxdistill.networks.layers import attention as attention_lib
from jaxdistill.networks.layers import basic


@description.register
class Patches(nn.Module):
  """Image -> class token, registers and N patches `[B, 1 + R + N, width]`.

  Attributes:
    width: channels of a token.
    patch: height and width of a patch.
    dropout: the rate of the dropout at the end.
    dtype: the type of the computation.
    use_bias: whether the embedding of the patches has a bias.
    class_token: whether there is a class token.
    registers: how many further tokens there are, after the class token.
    positions: which tokens a learned position is added to: 'all' except the
      registers, 'patches', or 'none', for networks with rotary positions.
    grid: height and width of the learned positions, in patches. They are
      interpolated for images of another size. 0: those of the images for which
      the variables were made.
    antialias: whether the interpolation blurs before it shrinks.
    norm: whether a layer norm follows.
    epsilon: the epsilon of the layer norm.

  References:
    Darcet et al., Vision Transformers Need Registers, 2023,
    https://arxiv.org/abs/2309.16588
  """

  width: int
  patch: int = 16
  dropout: float = 0.0
  dtype: str = 'float32'
  use_bias: bool = True
  class_token: bool = True
  registers: int = 0
  positions: str = 'all'
  grid: int = 0
  antialias: bool = True
  norm: bool = False
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    rows, columns = self._grid(x.shape)
    x = self._embedded(x)
    first = int(self.class_token)
    if first:
      token = self.param('class_token', attention_lib.NORMAL, self._shape(1))
      x = jnp.concatenate([self._repeated(token, x), x], 1)
    if self.positions != 'none':
      with_class = first if self.positions == 'all' else 0
      count = self.grid**2 or rows * columns
      positions = self.param(
        'positions', attention_lib.NORMAL, self._shape(with_class + count)
      )
      if self.grid and (rows, columns) != (self.grid, self.grid):
        positions = interpolated(
          positions, with_class, rows, columns, self.antialias
        )
      if first > with_class:
        positions = jnp.pad(positions, ((0, 0), (first, 0), (0, 0)))
      x = x + positions.astype(self.dtype)
    if self.registers:
      registers = self.param(
        'registers', attention_lib.NORMAL, self._shape(self.registers)
      )
      registers = self._repeated(registers, x)
      x = jnp.concatenate([x[:, :first], registers, x[:, first:]], 1)
    if self.norm:
      x = attention_lib.layer_norm(self.epsilon, self.dtype, 'norm')(x)
    return nn.Dropout(self.dropout)(x, deterministic=not train)

  def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns how many patches fit below and beside each other."""
    rows, columns = (size // self.patch for size in shape[1:3])
    if not rows * columns:
      raise UsageError(
        f'expected images of at least {self.patch} x {self.patch} pixels, the '
        f'size of one patch, got {shape[1]} x {shape[2]}'
      )
    if self.positions == 'none' and rows != columns:
      raise UsageError(
        'expected square images, because the positions are rotary, got '
        f'{shape[1]} x {shape[2]}'
      )
    return rows, columns

  def _embedded(self, x: Array) -> Array:
    uniform = basic.torch_uniform(x.shape[-1] * self.patch**2)
    x = nn.Conv(
      self.width,
      (self.patch, self.patch),
      strides=self.patch,
      padding='VALID',
      use_bias=self.use_bias,
      kernel_init=uniform,
      bias_init=uniform,
      dtype=self.dtype,
      name='conv',
    )(x)
    return x.reshape(x.shape[0], -1, self.width)

  def _shape(self, count: int) -> tuple[int, int, int]:
    return 1, count, self.width

  def _repeated(self, tokens: Array, x: Array) -> Array:
    """Returns tokens for each image of the batch."""
    shape = (x.shape[0], *tokens.shape[1:])
    return jnp.broadcast_to(tokens, shape).astype(self.dtype)


def interpolated(
  positions: Array, prefix: int, rows: int, columns: int, antialias: bool
) -> Array:
  """Returns learned positions for a grid of another size.

  Args:
    positions: `[1, prefix + N, C]` of a square of N patches.
    prefix: the number of tokens before the patches, whose positions stay.
    rows: the height of the new grid.
    columns: the width of the new grid.
    antialias: whether to use the cubic kernel of Pillow, which blurs before it
      shrinks, or that of OpenCV, which does not.

  Returns:
    `[1, prefix + rows * columns, C]`.
  """
  side = math.isqrt(positions.shape[1] - prefix)
  grid = positions[0, prefix:].reshape(side, side, -1)
  if antialias:
    shape = (rows, columns, grid.shape[-1])
    grid = jax.image.resize(grid, shape, 'cubic')
  else:
    grid = jnp.einsum(
      'ri,cj,ijd->rcd', _cubic(side, rows), _cubic(side, columns), grid
    )
  grid = grid.reshape(1, rows * columns, -1)
  return jnp.concatenate([positions[:, :prefix], grid], 1)


def _cubic(size: int, new_size: int) -> np.ndarray:
  """Returns the matrix `[new_size, size]` of a cubic interpolation.

  It is that of OpenCV and PyTorch: the kernel of Keys with a = -0.75, and the
  values at the border repeat.
  """
  a = -0.75
  centers = (np.arange(new_size) + 0.5) * size / new_size - 0.5
  weights = np.zeros((new_size, size), np.float32)
  for offset in range(-1, 3):
    places = np.floor(centers) + offset
    x = np.abs(centers - places)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    rows = np.arange(new_size)
    columns = places.clip(0, size - 1).astype(int)
    np.add.at(weights, (rows, columns), np.where(x <= 1, near, far))
  return weights


@description.register
class ClassToken(nn.Module):
  """Layer norm of the class token, `[B, 1 + N, C]` -> `[B, C]`.

  Attributes:
    dtype: the type of the computation.
    epsilon: the epsilon of the layer norm.
    tokens: whether all tokens are normalised, and are a feature '.tokens'.
  """

  dtype: str = 'float32'
  epsilon: float = 1e-6
  tokens: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array | dict[str, Array]:
    del train
    norm = attention_lib.layer_norm(self.epsilon, self.dtype, 'norm')
    if not self.tokens:
      return norm(x[:, 0])
    x = norm(x)
    return {'': x[:, 0], '.tokens': x}


@description.register
class TokenMean(nn.Module):
  """Layer norm, then the mean of the patches, `[B, P + N, C]` -> `[B, C]`.

  The normalised tokens are the feature '.tokens'.

  Attributes:
    prefix: the number of tokens before the patches.
    with_class: whether the first token comes before the mean, `[B, 2 * C]`.
    dtype: the type of the computation.
    epsilon: the epsilon of the layer norm.
  """

  prefix: int
  with_class: bool = False
  dtype: str = 'float32'
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    x = attention_lib.layer_norm(self.epsilon, self.dtype, 'norm')(x)
    mean = x[:, self.prefix :].mean(1)
    if self.with_class:
      mean = jnp.concatenate([x[:, 0], mean], -1)
    return {'': mean, '.tokens': x}


@description.register
class AttentionPool(nn.Module):
  """Layer norm, then what one learned query reads, `[B, N, C]` -> `[B, C]`.

  The normalised tokens are the feature '.tokens'.

  Attributes:
    heads: the number of heads of the attention.
    inner: channels between the dense layers; 0: four times those of the input.
    activation: between the dense layers, a key of `attention.ACTIVATIONS`.
    dtype: the type of the computation.
    epsilon: the epsilon of the layer norms.

  References:
    Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023,
    https://arxiv.org/abs/2303.15343
  """

  heads: int
  inner: int = 0
  activation: str = 'gelu'
  dtype: str = 'float32'
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    channels = x.shape[-1]
    norm = functools.partial(attention_lib.layer_norm, self.epsilon, self.dtype)
    dense = functools.partial(
      nn.Dense, kernel_init=attention_lib.NORMAL, dtype=self.dtype
    )
    x = norm('norm')(x)
    query = self.param('query', attention_lib.NORMAL, (1, 1, channels))
    query = jnp.broadcast_to(query, (len(x), 1, channels)).astype(x.dtype)
    both = dense(3 * channels, name='qkv')(jnp.concatenate([query, x], 1))
    q, k, v = attention_lib.split_heads(both, self.heads)
    y = attention_lib.attend(q[:, :1], k[:, 1:], v[:, 1:])
    y = dense(channels, name='out')(y)
    z = dense(self.inner or 4 * channels, name='dense1')(norm('norm2')(y))
    z = attention_lib.ACTIVATIONS[self.activation](z)
    y = y + dense(channels, name='dense2')(z)
    return {'': y[:, 0], '.tokens': x}
