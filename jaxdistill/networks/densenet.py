"""DenseNet for small and for large images.

Huang et al., Densely Connected Convolutional Networks, 2016,
https://arxiv.org/abs/1608.06993. DenseNet-40 has the layout of
https://github.com/Eric-mingjie/rethinking-network-pruning.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.networks import layers, staged
from jaxdistill.types import Array, Network, Stage, UsageError


class DenseLayer(nn.Module):
  """Appends `growth` channels: batch norm, ReLU, [1x1,] 3x3 convolution.

  Attributes:
    growth: channels that are appended.
    inner: channels after the 1x1 convolution; 0: there is none.
    scale: initial scale of the batch norms.
    dtype: of the computation.
  """

  growth: int
  inner: int = 0
  scale: float = 1.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    def norm_conv(x, i, features, kernel):
      norm = layers.batch_norm(
        train, scale=self.scale, dtype=self.dtype, name=f'norm{i}'
      )
      conv = layers.conv(features, kernel, dtype=self.dtype, name=f'conv{i}')
      return conv(nn.relu(norm(x)))

    y = norm_conv(x, 1, self.inner, 1) if self.inner else x
    y = norm_conv(y, 2 if self.inner else 1, self.growth, 3)
    return jnp.concatenate([x, y], -1)


class Transition(nn.Module):
  """Batch norm, ReLU, 1x1 convolution, average pooling.

  Attributes:
    width: channels of the output.
    stride: of the pooling; 1: none.
    pre: full name of the feature after the norm, before the ReLU.
    scale: initial scale of the batch norm.
    dtype: of the computation.
  """

  width: int
  stride: int
  pre: str
  scale: float = 1.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    normed = layers.batch_norm(
      train, scale=self.scale, dtype=self.dtype, name='norm'
    )(x)
    y = layers.conv(self.width, 1, dtype=self.dtype, name='conv')(
      nn.relu(normed)
    )
    window = (self.stride, self.stride)
    return {'': nn.avg_pool(y, window, window), self.pre: normed}


def cifar_densenet(
  depth: int = 40,
  growth: int = 12,
  *,
  num_classes: int = 10,
  stem_width: int = 0,
  stem_stride: int = 1,
  strides: Sequence[int] = (2, 2),
  growths: Sequence[int] | None = None,
  scale: float = 1.0,
  dtype: str = 'float32',
) -> Network:
  """DenseNet-depth-growth of 3n + 4 layers, without bottlenecks.

  Args:
    depth: 22, 40, 100, ...
    growth: channels that each layer appends.
    num_classes: size of the answer.
    stem_width: channels of the stem; 0: twice the growth.
    stem_stride: of the stem.
    strides: of the two transitions.
    growths: channels that each layer of the whole network appends; None:
      `growth`.
    scale: initial scale of the batch norms; network slimming uses 0.5.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'stem', 'group{g}.block{b}', 'transition{g}', 'pool', 'head',
    counted from 1. A group's feature is all that its layers have appended;
    'group{g}.pre' is that after the next batch norm, before the ReLU.
  """
  layers_per_group, rest = divmod(depth - 4, 3)
  if rest or layers_per_group < 1:
    raise UsageError(f'no DenseNet of depth {depth}; valid: 7, 10, 13, ...')
  stem = layers.ConvUnit(
    stem_width or 2 * growth,
    3,
    stem_stride,
    norm=False,
    activation='',
    dtype=dtype,
  )
  return _densenet(
    stem,
    (layers_per_group,) * 3,
    growths or (growth,) * (3 * layers_per_group),
    (0,) * (3 * layers_per_group),
    strides,
    1.0,
    num_classes,
    scale,
    dtype,
  )


def densenet121(
  *,
  num_classes: int = 1000,
  stem: str = 'imagenet',
  growth: int = 32,
  stem_width: int = 0,
  strides: Sequence[int] = (2, 2, 2),
  growths: Sequence[int] | None = None,
  inner_widths: Sequence[int] | None = None,
  dtype: str = 'float32',
) -> Network:
  """DenseNet-121, with bottlenecks and transitions that halve the channels.

  Args:
    num_classes: size of the answer.
    stem: 'imagenet': 7x7 convolution of stride 2, batch norm, ReLU and 3x3
      max-pooling of stride 2; 'cifar': 3x3 convolution alone.
    growth: channels that each layer appends.
    stem_width: channels of the stem; 0: twice the growth.
    strides: of the three transitions.
    growths: channels that each of the 58 layers appends; None: `growth`.
    inner_widths: channels inside each of them; None: four times `growth`.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages as in `cifar_densenet`.
  """
  width = stem_width or 2 * growth
  stems = {
    'imagenet': layers.ConvUnit(width, 7, 2, pool=True, dtype=dtype),
    'cifar': layers.ConvUnit(width, norm=False, activation='', dtype=dtype),
  }
  if stem not in stems:
    raise staged.unknown('stem', stem, stems)
  return _densenet(
    stems[stem],
    (6, 12, 24, 16),
    growths or (growth,) * 58,
    inner_widths or (4 * growth,) * 58,
    strides,
    0.5,
    num_classes,
    1.0,
    dtype,
  )


def _densenet(
  stem: layers.ConvUnit,
  blocks: Sequence[int],
  growths: Sequence[int],
  inner_widths: Sequence[int],
  strides: Sequence[int],
  compression: float,
  num_classes: int,
  scale: float,
  dtype: str,
) -> Network:
  if len(strides) != len(blocks) - 1:
    raise UsageError(f'strides must be {len(blocks) - 1} numbers: {strides}')
  own = zip(
    layers.per_block('growths', growths, sum(blocks)),
    layers.per_block('inner_widths', inner_widths, sum(blocks)),
  )
  stages, channels = [Stage('stem', stem)], stem.width
  for g, count in enumerate(blocks, 1):
    for b in range(count):
      growth, inner = next(own)
      layer = DenseLayer(growth, inner, scale, dtype)
      stages.append(Stage(f'group{g}.block{b + 1}', layer))
      channels += growth
    if g < len(blocks):
      channels = int(channels * compression)
      transition = Transition(
        channels, strides[g - 1], f'group{g}.pre', scale, dtype
      )
      stages.append(Stage(f'transition{g}', transition))
  pool = layers.NormPool(f'group{len(blocks)}.pre', scale, dtype)
  stages.append(Stage('pool', pool))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))
