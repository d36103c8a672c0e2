"""Residual networks for small images: ResNet-6n+2 and wide ResNets.

He et al., Deep Residual Learning for Image Recognition, 2015,
https://arxiv.org/abs/1512.03385; Zagoruyko and Komodakis, Wide Residual
Networks, 2016, https://arxiv.org/abs/1605.07146. Widths and shortcuts follow
https://github.com/HobbitLong/RepDistiller.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.models import arguments


@description.register
class BasicBlock(nn.Module):
  """Two 3x3 convolutions plus a shortcut, with a ReLU after the sum.

  Attributes:
    width: channels of the output.
    inner: channels between the convolutions; 0: `width`.
    stride: the stride of the first convolution.
    shortcut: what happens if the shape changes. 'A': subsampling, and channels
      of zeros; 'pool': averages of patches, and channels of zeros; 'B': a 1x1
      convolution and batch norm.
    dilation: the dilation of both convolutions.
    frozen: whether norms use their running statistics in training too.
  """

  width: int
  inner: int = 0
  stride: int = 1
  shortcut: str = 'B'
  dtype: str = 'float32'
  dilation: int = 1
  frozen: bool = False

  CHANNELS = (layers.Channels('inner', 'norm1', ('conv2',), 'conv1'),)

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    return {'inner': self.inner or self.width}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    dtype, by_batch = self.dtype, train and not self.frozen
    y = layers.conv(
      self.inner or self.width,
      stride=self.stride,
      dilation=self.dilation,
      dtype=dtype,
      name='conv1',
    )(x)
    y = nn.relu(layers.batch_norm(by_batch, dtype=dtype, name='norm1')(y))
    y = layers.conv(
      self.width, dilation=self.dilation, dtype=dtype, name='conv2'
    )(y)
    y = layers.batch_norm(by_batch, dtype=dtype, name='norm2')(y)
    if self.stride != 1 or x.shape[-1] != self.width:
      x = self._project(x, by_batch)
    y = x + y
    return {'': nn.relu(y), '.pre': y}

  def _project(self, x: Array, by_batch: bool) -> Array:
    if self.shortcut in WITHOUT_PARAMETERS:
      return WITHOUT_PARAMETERS[self.shortcut](x, self.width, self.stride)
    x = layers.conv(
      self.width, 1, self.stride, dtype=self.dtype, name='shortcut_conv'
    )(x)
    return layers.batch_norm(by_batch, dtype=self.dtype, name='shortcut_norm')(
      x
    )


def subsample(x: Array, width: int, stride: int) -> Array:
  """Keeps every `stride`-th place, and appends channels of zeros."""
  return layers.append_zeros(x[:, ::stride, ::stride], width)


WITHOUT_PARAMETERS = {'A': subsample, 'pool': layers.pool_and_pad}


@description.register
class PreactivationBlock(nn.Module):
  """Batch norm and ReLU before each 3x3 convolution, and none after the sum.

  Attributes:
    width: channels of the output.
    inner: channels between the convolutions; 0: `width`.
    stride: the stride of the first convolution.
    pre: full name of the feature that is the input after this block's first
      batch norm, before its ReLU; empty: no such feature.
    dropout: the rate of the dropout before the second convolution.
    selected: the indices of the input channels that the branch reads; empty:
      all.
  """

  width: int
  inner: int = 0
  stride: int = 1
  pre: str = ''
  dropout: float = 0.0
  dtype: str = 'float32'
  selected: tuple[int, ...] = ()

  CHANNELS = (
    layers.Channels('selected', 'norm1', ('conv1', 'shortcut_conv')),
    layers.Channels('inner', 'norm2', ('conv2',), 'conv1'),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    return {'inner': self.inner or self.width}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    dtype = self.dtype
    normed = layers.batch_norm(train, dtype=dtype, name='norm1')(
      layers.select(x, self.selected)
    )
    y = activated = nn.relu(normed)
    y = layers.conv(
      self.inner or self.width, stride=self.stride, dtype=dtype, name='conv1'
    )(y)
    y = nn.relu(layers.batch_norm(train, dtype=dtype, name='norm2')(y))
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    y = layers.conv(self.width, dtype=dtype, name='conv2')(y)
    if x.shape[-1] != self.width or self.stride != 1:
      x = layers.conv(
        self.width, 1, self.stride, dtype=dtype, name='shortcut_conv'
      )(activated)
    taps = {self.pre: normed} if self.pre else {}
    return {'': x + y, **taps}


def cifar_resnet(
  depth: int = 20,
  *,
  num_classes: int = 10,
  stem_width: int = 16,
  widths: Sequence[int] = (16, 32, 64),
  strides: Sequence[int] = (1, 2, 2),
  stem_stride: int = 1,
  inner_widths: Sequence[int] | None = None,
  shortcut: str = 'B',
  dtype: str = 'float32',
) -> Network:
  """Returns a ResNet of 6n + 2 layers for small images.

  Args:
    depth: 8, 14, 20, 32, 44, 56, 110, ...
    num_classes: the number of classes.
    stem_width: channels of the stem.
    widths: channels of the three groups.
    strides: the stride of the first block of each group.
    stem_stride: the stride of the stem.
    inner_widths: channels inside each block, one number for each block of the
      network, such as pruned or searched widths; None: those of its group.
    shortcut: 'A' or 'pool', which have no parameters, or 'B', a 1x1
      convolution; see `BasicBlock`.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. Every block has a feature
    '.pre', the sum before its last ReLU.
  """
  blocks = arguments.blocks_per_group(depth, 6, 2)
  checks.choice('shortcut', shortcut, (*WITHOUT_PARAMETERS, 'B'))
  widths = arguments.per_group('widths', widths, 3)
  strides = arguments.per_group('strides', strides, 3)
  all_widths = (stem_width, *widths)
  if shortcut in WITHOUT_PARAMETERS and list(all_widths) != sorted(all_widths):
    raise UsageError(
      f'shortcut: {shortcut!r} cannot remove channels; expected stem_width and '
      f'widths that do not decrease, got {all_widths}'
    )
  inner = arguments.per_block('inner_widths', inner_widths, 3 * blocks)
  stem_width = checks.integer('stem_width', stem_width)
  stages = [
    Stage('stem', layers.ConvUnit(stem_width, stride=stem_stride, dtype=dtype))
  ]
  for g, (width, stride) in enumerate(zip(widths, strides)):
    for b in range(blocks):
      block = BasicBlock(
        width,
        inner[g * blocks + b] or 0,
        stride if b == 0 else 1,
        shortcut,
        dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages.append(Stage('pool', layers.Pool()))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))


def wide_resnet(
  depth: int = 16,
  width: int = 2,
  *,
  num_classes: int = 10,
  base_width: int = 16,
  strides: Sequence[int] = (1, 2, 2),
  stem_stride: int = 1,
  inner_widths: Sequence[int] | None = None,
  dropout: float = 0.0,
  dtype: str = 'float32',
) -> Network:
  """Returns a wide ResNet of 6n + 4 layers for small images.

  Args:
    depth: 10, 16, 22, 28, 40, ...
    width: a factor on the channels of the three groups, a whole number.
    num_classes: the number of classes.
    base_width: channels of the stem.
    strides: the stride of the first block of each group.
    stem_stride: the stride of the stem.
    inner_widths: channels inside each block, one number for each block of the
      network; None: those of its group.
    dropout: the rate of the dropout inside each block.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. The feature of a group is the
    sum without an activation; 'group{g}.pre' is that sum after the next batch
    norm, before the ReLU.
  """
  blocks = arguments.blocks_per_group(depth, 6, 4)
  base_width = checks.integer('base_width', base_width)
  arguments.probability('dropout', dropout)
  widths = [
    base_width * checks.integer('width', width) * 2**g for g in range(3)
  ]
  strides = arguments.per_group('strides', strides, 3)
  inner = arguments.per_block('inner_widths', inner_widths, 3 * blocks)
  stages = [
    Stage(
      'stem',
      layers.ConvUnit(
        base_width, 3, stem_stride, norm=False, activation='', dtype=dtype
      ),
    )
  ]
  for g, (channels, stride) in enumerate(zip(widths, strides)):
    for b in range(blocks):
      before = f'group{g}.pre' if g else 'stem.pre'
      block = PreactivationBlock(
        channels,
        inner[g * blocks + b] or 0,
        stride if b == 0 else 1,
        before if b == 0 else '',
        dropout,
        dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages.append(Stage('pool', layers.NormPool('group3.pre', dtype=dtype)))
  stages.append(Stage('head', layers.Classifier(num_classes, zero_bias=True)))
  return Network(tuple(stages))
