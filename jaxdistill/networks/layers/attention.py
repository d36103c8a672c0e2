"""The attention of vision transformers, and their blocks."""

from collections.abc import Callable
import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import Array
from jaxdistill.networks import description
from jaxdistill.networks.layers import stochastic_depth

# DeiT and timm truncate it at +-2, which is a hundred standard deviations and
# has no effect.
NORMAL = nn.initializers.normal(0.02)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'gelu': functools.partial(nn.gelu, approximate=False),
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
  'quick_gelu': lambda x: x * nn.sigmoid(1.702 * x),
}


def layer_norm(epsilon: float, dtype: str, name: str) -> nn.LayerNorm:
  """Returns a layer norm over the channels.

  Args:
    epsilon: what is added to the variance.
    dtype: the type of the computation.
    name: the name of the layer in the module that calls it.
  """
  return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


@description.register
class TransformerBlock(nn.Module):
  """Layer norm and attention, then layer norm and two dense layers.

  Attributes:
    heads: the number of heads of the attention.
    inner: channels between the dense layers; 0: four times those of the input.
    dropout: the rate of the dropout after each dense layer.
    drop_path: the probability that a branch is dropped in training.
    dtype: the type of the computation.
    activation: a key of `ACTIVATIONS`, between the dense layers.
    epsilon: the epsilon of the layer norms.
    layer_scale: the initial factor of each channel of a branch; 0: there are
      no such factors.
    key_bias: whether the keys of the attention have a bias, as queries and
      values do.
    rotary: the base of the rotary positions; 0: there are none.
    prefix: the number of tokens before the patches, which have no position.

  References:
    Touvron et al., Going deeper with Image Transformers, 2021,
    https://arxiv.org/abs/2103.17239 (factors of the branches)
  """

  heads: int
  inner: int = 0
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype: str = 'float32'
  activation: str = 'gelu'
  epsilon: float = 1e-6
  layer_scale: float = 0.0
  key_bias: bool = True
  rotary: float = 0.0
  prefix: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    channels = x.shape[-1]
    norm = functools.partial(layer_norm, self.epsilon, self.dtype)
    dense = functools.partial(nn.Dense, kernel_init=NORMAL, dtype=self.dtype)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    y = dense(3 * channels, use_bias=self.key_bias, name='qkv')(
      norm(name='norm1')(x)
    )
    if not self.key_bias:
      bias = self.param('qv_bias', nn.initializers.zeros, (2 * channels,))
      query_bias, value_bias = jnp.split(bias.astype(y.dtype), 2)
      zeros = jnp.zeros_like(query_bias)
      bias = jnp.concatenate([query_bias, zeros, value_bias])
      y = y + bias[None, None]
    y = attention(y, self.heads, self.rotary, self.prefix)
    y = dense(channels, name='out')(y)
    x = x + self._drop_path(self._scaled(drop(y), 'scale1'), train)
    y = dense(self.inner or 4 * channels, name='dense1')(norm(name='norm2')(x))
    y = drop(ACTIVATIONS[self.activation](y))
    y = drop(dense(channels, name='dense2')(y))
    return x + self._drop_path(self._scaled(y, 'scale2'), train)

  def _scaled(self, y: Array, name: str) -> Array:
    if not self.layer_scale:
      return y
    initial = nn.initializers.constant(self.layer_scale)
    scale = self.param(name, initial, y.shape[-1:]).astype(y.dtype)
    return y * scale[None, None]

  def _drop_path(self, y: Array, train: bool) -> Array:
    if not (train and self.drop_path and self.has_rng('dropout')):
      return y
    return stochastic_depth.drop_path(
      y, self.drop_path, self.make_rng('dropout')
    )


def attention(
  qkv: Array, heads: int, rotary: float = 0.0, prefix: int = 1
) -> Array:
  """Returns the self-attention of every token to all tokens.

    softmax(q k^T / sqrt(D)) v for each head of D channels

  Args:
    qkv: queries, keys and values of all heads side by side, `[B, N, 3 * C]`.
    heads: number of heads; it divides C.
    rotary: the base of the rotary positions of queries and keys, see `rotated`;
      0: there are none.
    prefix: the number of tokens before the patches, for `rotated`.

  Returns:
    The outputs of the heads side by side, `[B, N, C]`.
  """
  q, k, v = split_heads(qkv, heads)
  if rotary:
    q, k = (rotated(x, rotary, prefix) for x in (q, k))
  return attend(q, k, v)


def split_heads(qkv: Array, heads: int) -> Array:
  """Returns queries, keys and values `[3, B, N, heads, D]` of `[B, N, 3C]`."""
  batch, tokens, _ = qkv.shape
  return jnp.moveaxis(qkv.reshape(batch, tokens, 3, heads, -1), 2, 0)


def attend(q: Array, k: Array, v: Array) -> Array:
  """Returns what queries read from values, `[B, N, heads * D]`.

  Args:
    q: queries `[B, N, heads, D]`.
    k: keys `[B, M, heads, D]`.
    v: values `[B, M, heads, D]`.
  """
  scores = jnp.einsum('bnhd,bmhd->bhnm', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(v.dtype)
  outputs = jnp.einsum('bhnm,bmhd->bnhd', weights, v)
  return outputs.reshape(*q.shape[:2], -1)


def rotated(x: Array, base: float, prefix: int) -> Array:
  """Turns pairs of channels by angles that grow with a patch's coordinates.

  The centre of a patch has coordinates in [-1, 1]. With D channels in a head,
  pair j of D / 2 is turned by 2 pi base^(-4 i / D) times the vertical
  coordinate for j = i < D / 4, and times the horizontal one for j = D / 4 + i.
  Channels j and j + D / 2 are a pair.

  Args:
    x: queries or keys `[B, prefix + N, heads, D]`, of a square of N patches.
    base: the base of the frequencies.
    prefix: the number of tokens before the patches, which are not turned.

  References:
    Siméoni et al., DINOv3, 2025, https://arxiv.org/abs/2508.10104
  """
  side, half = math.isqrt(x.shape[1] - prefix), x.shape[-1] // 2
  centers = (2 * np.arange(side) + 1) / side - 1
  grid = np.stack(np.meshgrid(centers, centers, indexing='ij'), -1)
  frequencies = 2 * np.pi * base ** -np.arange(0, 1, 2 / half)
  angles = (grid.reshape(-1, 2, 1) * frequencies).reshape(1, -1, 1, half)
  cos, sin = (jnp.asarray(f(angles), x.dtype) for f in (np.cos, np.sin))
  first, second = x[:, prefix:, :, :half], x[:, prefix:, :, half:]
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate([x[:, :prefix], jnp.concatenate(turned, -1)], axis=1)
