"""DenseNet for small and for large images.

Huang et al., Densely Connected Convolutional Networks, 2016,
https://arxiv.org/abs/1608.06993. DenseNet-40 has the layout of
https://github.com/Eric-mingjie/rethinking-network-pruning.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.models import arguments

# Kernel, stride and max-pooling of DenseNet-121's stems.
_STEMS = {'imagenet': (7, 2, True), 'cifar': (3, 1, False)}


@description.register
class DenseLayer(nn.Module):
  """Appends `growth` channels: batch norm, ReLU, [1x1,] 3x3 convolution.

  Attributes:
    growth: channels that are appended.
    inner: channels after the 1x1 convolution; 0: no such convolution.
    scale: the initial scale of the batch norms.
    initial: how the kernels are initialised, a key of `layers.KERNELS`.
    dtype: the type of the computation.
    selected: the indices of the input channels that are read; empty: all.
  """

  growth: int
  inner: int = 0
  scale: float = 1.0
  initial: str = 'fan_out'
  dtype: str = 'float32'
  selected: tuple[int, ...] = ()

  CHANNELS = (
    layers.Channels('selected', 'norm1', ('conv1',)),
    layers.Channels('inner', 'norm2', ('conv2',), 'conv1'),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    return {'inner': self.inner} if self.inner else {}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    def norm_conv(x, i, features, kernel):
      norm = layers.batch_norm(
        train, scale=self.scale, dtype=self.dtype, name=f'norm{i}'
      )
      conv = layers.conv(
        features,
        kernel,
        initial=self.initial,
        dtype=self.dtype,
        name=f'conv{i}',
      )
      return conv(nn.relu(norm(x)))

    y = layers.select(x, self.selected)
    y = norm_conv(y, 1, self.inner, 1) if self.inner else y
    y = norm_conv(y, 2 if self.inner else 1, self.growth, 3)
    return jnp.concatenate([x, y], -1)


@description.register
class Transition(nn.Module):
  """Batch norm, ReLU, 1x1 convolution, average pooling.

  Attributes:
    width: channels of the output.
    stride: the stride of the pooling; 1: no pooling.
    pre: full name of the feature after the norm, before the ReLU.
    scale: the initial scale of the batch norm.
    initial: how the kernel is initialised, a key of `layers.KERNELS`.
    dtype: the type of the computation.
    selected: the indices of the input channels that are read; empty: all.
  """

  width: int
  stride: int
  pre: str
  scale: float = 1.0
  initial: str = 'fan_out'
  dtype: str = 'float32'
  selected: tuple[int, ...] = ()

  CHANNELS = (layers.Channels('selected', 'norm', ('conv',)),)

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    normed = layers.batch_norm(
      train, scale=self.scale, dtype=self.dtype, name='norm'
    )(layers.select(x, self.selected))
    y = layers.conv(
      self.width, 1, initial=self.initial, dtype=self.dtype, name='conv'
    )(nn.relu(normed))
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
  """Returns a DenseNet of 3n + 4 layers, without bottlenecks.

  Args:
    depth: 22, 40, 100, ...
    growth: channels that each layer appends.
    num_classes: the number of classes.
    stem_width: channels of the stem; 0: twice the growth.
    stem_stride: the stride of the stem.
    strides: the strides of the two transitions.
    growths: channels that each layer of the network appends; None: `growth`.
    scale: the initial scale of the batch norms; network slimming uses 0.5.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'transition{g}',
    'pool' and 'head', where groups and blocks are counted from 1. The feature
    of a group holds its input and all channels that its layers have appended;
    'group{g}.pre' is that feature after the next batch norm, before the ReLU.
  """
  per_group = arguments.blocks_per_group(depth, 3, 4)
  stem = layers.ConvUnit(
    checks.integer('stem_width', stem_width or 2 * growth),
    3,
    stem_stride,
    norm=False,
    activation='',
    dtype=dtype,
  )
  return _densenet(
    stem,
    blocks=(per_group,) * 3,
    growth=growth,
    growths=growths,
    inner=0,
    inner_widths=None,
    strides=strides,
    compression=1.0,
    scale=scale,
    initial='fan_out',
    head=layers.Classifier(num_classes),
  )


def densenet121(
  *,
  num_classes: int = 1000,
  stem: str = 'imagenet',
  growth: int = 32,
  stem_width: int = 0,
  stem_stride: int | None = None,
  stem_pool: bool | None = None,
  strides: Sequence[int] = (2, 2, 2),
  growths: Sequence[int] | None = None,
  inner_widths: Sequence[int] | None = None,
  dtype: str = 'float32',
) -> Network:
  """Returns a DenseNet-121, whose transitions halve the channels.

  Args:
    num_classes: the number of classes.
    stem: 'imagenet': 7x7 convolution of stride 2, batch norm, ReLU and 3x3
      max-pooling of stride 2; 'cifar': only a 3x3 convolution.
    growth: channels that each layer appends.
    stem_width: channels of the stem; 0: twice the growth.
    stem_stride: the stride of the stem's convolution; None: that of `stem`.
    stem_pool: whether the stem has the max-pooling; None: as in `stem`.
    strides: the strides of the three transitions.
    growths: channels that each of the 58 layers appends; None: `growth`.
    inner_widths: channels inside each of them; None: four times `growth`.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    The stages are those of `cifar_densenet`.
  """
  kernel, stem_stride, pool = arguments.stem(
    stem, _STEMS, stem_stride, stem_pool
  )
  imagenet = stem == 'imagenet'
  unit = layers.ConvUnit(
    checks.integer('stem_width', stem_width or 2 * growth),
    kernel,
    stem_stride,
    norm=imagenet,
    activation='relu' if imagenet else '',
    pool=pool,
    initial='fan_in',
    dtype=dtype,
  )
  return _densenet(
    unit,
    blocks=(6, 12, 24, 16),
    growth=growth,
    growths=growths,
    inner=4 * growth,
    inner_widths=inner_widths,
    strides=strides,
    compression=0.5,
    scale=1.0,
    initial='fan_in',
    head=layers.Classifier(num_classes, zero_bias=True),
  )


def _densenet(
  stem: layers.ConvUnit,
  *,
  blocks: Sequence[int],
  growth: int,
  growths: Sequence[int] | None,
  inner: int,
  inner_widths: Sequence[int] | None,
  strides: Sequence[int],
  compression: float,
  scale: float,
  initial: str,
  head: layers.Classifier,
) -> Network:
  strides = arguments.per_group(
    'strides', strides, len(blocks) - 1, 'transitions'
  )
  block_widths = zip(
    arguments.per_block('growths', growths, sum(blocks)),
    arguments.per_block('inner_widths', inner_widths, sum(blocks)),
  )
  stages, channels = [Stage('stem', stem)], stem.width
  for g, count in enumerate(blocks, 1):
    for b in range(count):
      block_growth, block_inner = next(block_widths)
      layer = DenseLayer(
        block_growth or growth,
        block_inner or inner,
        scale,
        initial,
        stem.dtype,
      )
      stages.append(Stage(f'group{g}.block{b + 1}', layer))
      channels += layer.growth
    if g < len(blocks):
      channels = int(channels * compression)
      transition = Transition(
        channels, strides[g - 1], f'group{g}.pre', scale, initial, stem.dtype
      )
      stages.append(Stage(f'transition{g}', transition))
  pool = layers.NormPool(f'group{len(blocks)}.pre', scale, stem.dtype)
  stages += [Stage('pool', pool), Stage('head', head)]
  return Network(tuple(stages))
