"""Vision transformers: ViT, DeiT, DINOv2, DINOv3, and those of CLIP and SigLIP.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2020,
https://arxiv.org/abs/2010.11929; Touvron et al., Training data-efficient image
transformers & distillation through attention, 2020,
https://arxiv.org/abs/2012.12877; Oquab et al., DINOv2, 2023,
https://arxiv.org/abs/2304.07193; Siméoni et al., DINOv3, 2025,
https://arxiv.org/abs/2508.10104; Radford et al., Learning Transferable Visual
Models From Natural Language Supervision, 2021,
https://arxiv.org/abs/2103.00020; Zhai et al., Sigmoid Loss for Language Image
Pre-Training, 2023, https://arxiv.org/abs/2303.15343.
"""

from collections.abc import Sequence
import functools
from typing import Any

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import layers
from jaxdistill.networks.layers import attention, tokens
from jaxdistill.networks.models import arguments

# What learned positions are added to, or the base of rotary positions.
POSITIONS = ('all', 'patches', 'rotary')
POOLS = ('class', 'mean', 'class_mean', 'attention')
# The base of the rotary positions of DINOv3.
_ROTARY_BASE = 100.0


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
  image_size: int = 0,
  class_token: bool = True,
  registers: int = 0,
  positions: str = 'all',
  antialias: bool = True,
  patch_bias: bool = True,
  key_bias: bool = True,
  first_norm: bool = False,
  layer_scale: float = 0.0,
  activation: str = 'gelu',
  epsilon: float = 1e-6,
  pool: str = 'class',
  pool_tokens: bool = False,
  head: bool = True,
  dtype: str = 'float32',
) -> Network:
  """Returns a vision transformer; by default, ViT or DeiT.

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
    image_size: height and width of the images that the learned positions are
      for, in pixels; they are interpolated for other images. 0: the size of the
      images for which the variables are made.
    class_token: whether there is a class token.
    registers: the number of registers, which are tokens between the class token
      and the patches.
    positions: what the learned positions are added to, 'all' tokens but the
      registers or the 'patches' only; or 'rotary', see
      `layers.attention.rotated`, which need square images.
    antialias: whether the interpolation of positions blurs before it shrinks.
    patch_bias: whether the embedding of the patches has a bias.
    key_bias: whether the keys of the attention have a bias.
    first_norm: whether a layer norm precedes the blocks.
    layer_scale: the initial factor of each channel of a branch; 0: there are
      no such factors.
    activation: 'gelu', 'gelu_tanh' or 'quick_gelu', between dense layers.
    epsilon: the epsilon of the layer norms.
    pool: how the tokens become one vector: the 'class' token, the 'mean' of the
      patches, 'class_mean', both side by side, or 'attention' with one learned
      query.
    pool_tokens: whether all normalised tokens are a feature 'pool.tokens', as
      they always are if `pool` is not 'class'.
    head: whether there is a classifier; without it, the network ends with
      'pool', and `num_classes` is not used.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group1.block{b}', 'pool' and 'head',
    where blocks are counted from 1. 'pool' is the pooled, normalised feature.
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
  rotary = checks.choice('positions', positions, POSITIONS) == 'rotary'
  if rotary and width // heads % 4:
    raise UsageError(
      'expected a multiple of 4 channels in each head, because the positions '
      f'are rotary, got {width // heads}'
    )
  checks.choice('activation', activation, attention.ACTIVATIONS)
  inner = arguments.per_block('inner_widths', inner_widths, depth)
  registers = checks.integer('registers', registers, at_least=0)
  prefix = int(class_token) + registers
  common: dict[str, Any] = {'dtype': dtype, 'epsilon': epsilon}
  stem = tokens.Patches(
    width,
    patch,
    dropout,
    use_bias=patch_bias,
    class_token=class_token,
    registers=registers,
    positions='none' if rotary else positions,
    grid=checks.integer('image_size', image_size, at_least=0) // patch,
    antialias=antialias,
    norm=first_norm,
    **common,
  )
  stages = [Stage('stem', stem)]
  for i in range(depth):
    block = attention.TransformerBlock(
      heads,
      inner[i] or 0,
      dropout,
      drop_path * i / max(depth - 1, 1),
      activation=activation,
      layer_scale=checks.number('layer_scale', layer_scale, at_least=0),
      key_bias=key_bias,
      rotary=_ROTARY_BASE if rotary else 0.0,
      prefix=prefix,
      **common,
    )
    stages.append(Stage(f'group1.block{i + 1}', block))
  pooling = _pool(pool, stages, pool_tokens, common)
  stages.append(Stage('pool', pooling))
  if head:
    classifier = layers.Classifier(num_classes, std=0.02)
    stages.append(Stage('head', classifier))
  return Network(tuple(stages))


def _pool(
  kind: str, stages: Sequence[Stage], pool_tokens: bool, common: dict[str, Any]
) -> nn.Module:
  """Returns what pools the tokens of a stem and blocks; see `vit`."""
  stem: Any = stages[0].module
  block: Any = stages[-1].module
  checks.choice('pool', kind, POOLS)
  if not stem.class_token and kind in ('class', 'class_mean'):
    raise UsageError(
      f"pool: expected 'mean' or 'attention' without a class token, got "
      f'{kind!r}'
    )
  if kind == 'class':
    return tokens.ClassToken(tokens=pool_tokens, **common)
  if kind == 'attention':
    return tokens.AttentionPool(
      block.heads, block.inner, block.activation, **common
    )
  return tokens.TokenMean(block.prefix, kind == 'class_mean', **common)


dinov2 = functools.partial(
  vit,
  patch=14,
  image_size=518,
  antialias=False,
  layer_scale=1.0,
  pool_tokens=True,
)
dinov3 = functools.partial(
  vit,
  registers=4,
  positions='rotary',
  key_bias=False,
  layer_scale=1.0,
  epsilon=1e-5,
  pool_tokens=True,
)
clip = functools.partial(
  vit,
  image_size=224,
  antialias=False,
  patch_bias=False,
  first_norm=True,
  activation='quick_gelu',
  epsilon=1e-5,
)
siglip = functools.partial(
  vit,
  image_size=224,
  antialias=False,
  class_token=False,
  activation='gelu_tanh',
  pool='attention',
)
