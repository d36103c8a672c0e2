"""Vision transformers: ViT-B/16 and DeiT-tiny.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2020,
https://arxiv.org/abs/2010.11929; Touvron et al., Training data-efficient image
transformers & distillation through attention, 2020,
https://arxiv.org/abs/2012.12877.
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import stochastic_depth
from jaxdistill.networks.models import arguments

# DeiT and timm truncate it at +-2, which is a hundred standard deviations and
# has no effect.
_normal = nn.initializers.normal(0.02)


@description.register
class Patches(nn.Module):
  """Image -> class token and N patches `[B, 1 + N, width]` with positions.

  Attributes:
    width: channels of a token.
    patch: height and width of a patch.
    dropout: the rate of the dropout at the end.
    dtype: the type of the computation.
  """

  width: int
  patch: int = 16
  dropout: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    uniform = layers.torch_uniform(x.shape[-1] * self.patch**2)
    x = nn.Conv(
      self.width,
      (self.patch, self.patch),
      strides=self.patch,
      padding='VALID',
      kernel_init=uniform,
      bias_init=uniform,
      dtype=self.dtype,
      name='conv',
    )(x)
    x = x.reshape(x.shape[0], -1, self.width)
    token = self.param('class_token', _normal, (1, 1, self.width))
    token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
    x = jnp.concatenate([token.astype(self.dtype), x], 1)
    positions = self.param('positions', _normal, (1, x.shape[1], self.width))
    x = x + positions.astype(self.dtype)
    return nn.Dropout(self.dropout)(x, deterministic=not train)


@description.register
class TransformerBlock(nn.Module):
  """Layer norm and attention, then layer norm and two dense layers.

  Attributes:
    heads: the number of heads of the attention.
    inner: channels between the dense layers; 0: four times those of the input.
    dropout: the rate of the dropout after each dense layer.
    drop_path: the probability that a branch is dropped in training.
    dtype: the type of the computation.
  """

  heads: int
  inner: int = 0
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    channels = x.shape[-1]
    norm = functools.partial(
      nn.LayerNorm, 1e-6, dtype=self.dtype, use_fast_variance=False
    )
    dense = functools.partial(nn.Dense, kernel_init=_normal, dtype=self.dtype)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    y = dense(3 * channels, name='qkv')(norm(name='norm1')(x))
    y = dense(channels, name='out')(attention(y, self.heads))
    x = x + self._drop_path(drop(y), train)
    y = dense(self.inner or 4 * channels, name='dense1')(norm(name='norm2')(x))
    y = drop(nn.gelu(y, approximate=False))
    y = drop(dense(channels, name='dense2')(y))
    return x + self._drop_path(y, train)

  def _drop_path(self, y: Array, train: bool) -> Array:
    if not (train and self.drop_path and self.has_rng('dropout')):
      return y
    return stochastic_depth.drop_path(
      y, self.drop_path, self.make_rng('dropout')
    )


@description.register
class ClassToken(nn.Module):
  """Layer norm of the class token, `[B, 1 + N, C]` -> `[B, C]`."""

  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    norm = nn.LayerNorm(
      1e-6, dtype=self.dtype, use_fast_variance=False, name='norm'
    )
    return norm(x[:, 0])


def attention(qkv: Array, heads: int) -> Array:
  """Returns the self-attention of every token to all tokens.

    softmax(q k^T / sqrt(D)) v for each head of D channels

  Args:
    qkv: queries, keys and values of all heads side by side, `[B, N, 3 * C]`.
    heads: number of heads; it divides C.

  Returns:
    The outputs of the heads side by side, `[B, N, C]`.
  """
  batch, tokens, width = qkv.shape
  q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, heads, -1), 2, 0)
  scores = jnp.einsum('bnhd,bmhd->bhnm', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(v.dtype)
  outputs = jnp.einsum('bhnm,bmhd->bnhd', weights, v)
  return outputs.reshape(batch, tokens, width // 3)


def vit(
  width: int = 768,
  depth: int = 12,
  heads: int = 12,
  *,
  num_classes: int = 1000,
  patch: int = 16,
  inner_widths: Sequence[int] | None = None,
  dropout: float = 0.0,
  drop_path: float = 0.0,
  dtype: str = 'float32',
) -> Network:
  """Returns a vision transformer with a class token and learned positions.

  Args:
    width: channels of a token.
    depth: the number of blocks.
    heads: the number of heads of each attention; it divides `width`.
    num_classes: the number of classes.
    patch: height and width of a patch; 4 suits images of 32x32.
    inner_widths: channels between the two dense layers of each block; None:
      four times `width`.
    dropout: the rate of the dropout after dense layers.
    drop_path: block i of n drops each of its branches with probability
      drop_path * i / (n - 1), i = 0, 1, ...
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group1.block{b}', 'pool' and 'head',
    where blocks are counted from 1. 'pool' is the normalised class token.
    Weights are initialised as in DeiT, where the class token, too, is normal
    with standard deviation 0.02.
  """
  width = checks.integer('width', width)
  depth = checks.integer('depth', depth, at_most=arguments.DEEPEST)
  patch = checks.integer('patch', patch)
  arguments.probability('dropout', dropout)
  arguments.probability('drop_path', drop_path)
  if width % checks.integer('heads', heads):
    raise UsageError(f'{heads} heads do not divide the width {width}')
  inner = arguments.per_block('inner_widths', inner_widths, depth)
  stages = [Stage('stem', Patches(width, patch, dropout, dtype))]
  for i in range(depth):
    rate = drop_path * i / max(depth - 1, 1)
    block = TransformerBlock(heads, inner[i] or 0, dropout, rate, dtype)
    stages.append(Stage(f'group1.block{i + 1}', block))
  stages.append(Stage('pool', ClassToken(dtype)))
  stages.append(Stage('head', layers.Classifier(num_classes, std=0.02)))
  return Network(tuple(stages))
