"""ShuffleNetV1 and V2.

Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network
for Mobile Devices, 2017, https://arxiv.org/abs/1707.01083; Ma et al.,
ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018,
https://arxiv.org/abs/1807.11164. The networks for small images are those of
https://github.com/HobbitLong/RepDistiller. Weights are initialised like
PyTorch's layers, as in that code and in https://github.com/pytorch/vision.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import convolutions
from jaxdistill.networks.models import arguments

_V2_BLOCKS = (4, 8, 4)
# Kernel, stride and max-pooling of ShuffleNetV2's stems.
_STEMS = {'imagenet': (3, 2, True), 'cifar': (1, 1, False)}


@description.register
class GroupedUnit(nn.Module):
  """ShuffleNetV1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1.

  ReLUs follow the first and the depthwise convolution, and end the unit.

  Attributes:
    width: channels of the output.
    inner: channels of the depthwise convolution.
    groups: the groups of the last convolution.
    first_groups: the groups of the first convolution and of the shuffle.
    stride: the stride of the depthwise convolution.
    concat: whether the (averaged) input is appended to the branch, which then
      has only the missing channels. Otherwise it is added.
    dtype: the type of the computation.
  """

  width: int
  inner: int
  groups: int = 3
  first_groups: int = 3
  stride: int = 1
  concat: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    def conv_norm(x, i, features, kernel, stride, groups):
      conv = layers.conv(
        features,
        kernel,
        stride,
        groups=groups,
        initial='uniform',
        dtype=self.dtype,
        name=f'conv{i}',
      )
      norm = layers.batch_norm(train, dtype=self.dtype, name=f'norm{i}')
      return norm(conv(x))

    y = nn.relu(conv_norm(x, 1, self.inner, 1, 1, self.first_groups))
    y = shuffle(y, self.first_groups)
    y = nn.relu(conv_norm(y, 2, self.inner, 3, self.stride, self.inner))
    missing = self.width - (x.shape[-1] if self.concat else 0)
    y = conv_norm(y, 3, missing, 1, 1, self.groups)
    if self.stride != 1:
      x = convolutions.average_pool(x, 3, self.stride)
    y = jnp.concatenate([y, x], -1) if self.concat else x + y
    return {'': nn.relu(y), '.pre': y}


@description.register
class SplitUnit(nn.Module):
  """ShuffleNetV2: half of the channels pass, the others are convolved.

  With `down`, all channels go through both branches, which are convolved.

  Attributes:
    width: channels of the output.
    inner: channels of the branch's depthwise convolution; 0: half of `width`.
    stride: the stride of the depthwise convolutions.
    down: whether the other branch is convolved as well.
    dtype: the type of the computation.
  """

  width: int
  inner: int = 0
  stride: int = 1
  down: bool = False
  dtype: str = 'float32'

  CHANNELS = (
    layers.Channels(
      'inner',
      'depthwise_norm',
      ('project_conv',),
      'expand_conv',
      ('expand_norm', 'depthwise_conv'),
    ),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    return {'inner': self.inner or self.width // 2}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    def conv_norm(x, name, features, kernel=1, stride=1, groups=1):
      conv, norm = f'{name}_conv', f'{name}_norm'
      x = layers.conv(
        features,
        kernel,
        stride,
        groups=groups,
        initial='uniform',
        dtype=self.dtype,
        name=conv,
      )(x)
      return layers.batch_norm(train, dtype=self.dtype, name=norm)(x)

    half = self.width // 2
    inner = self.inner or half
    if self.down:
      channels = x.shape[-1]
      left = conv_norm(x, 'left_depthwise', channels, 3, self.stride, channels)
      left = conv_norm(left, 'left_pointwise', half)
      right = x
    else:
      left, right = jnp.split(x, 2, -1)
    right = nn.relu(conv_norm(right, 'expand', inner))
    right = conv_norm(right, 'depthwise', inner, 3, self.stride, inner)
    right = conv_norm(right, 'project', half)
    out = nn.relu(left) if self.down else left
    return {
      '': shuffle(jnp.concatenate([out, nn.relu(right)], -1), 2),
      '.pre': shuffle(jnp.concatenate([left, right], -1), 2),
    }


def shuffle(x: Array, groups: int) -> Array:
  """Interleaves the channels of `groups` equal parts of `[B, H, W, C]`."""
  if groups == 1:
    return x
  parts = x.reshape(*x.shape[:-1], groups, -1)
  return parts.swapaxes(-1, -2).reshape(x.shape)


def cifar_shufflenet_v1(
  *,
  num_classes: int = 10,
  groups: int = 3,
  widths: Sequence[int] = (240, 480, 960),
  blocks: Sequence[int] = (4, 8, 4),
  stem_width: int = 24,
  stem_stride: int = 1,
  strides: Sequence[int] = (2, 2, 2),
  inner_widths: Sequence[int] | None = None,
  dtype: str = 'float32',
) -> Network:
  """Returns a ShuffleNetV1 for small images.

  Args:
    num_classes: the number of classes.
    groups: the groups of the 1x1 convolutions, except the very first, which has
      one group.
    widths: channels of the three groups of blocks.
    blocks: the number of blocks in each.
    stem_width: channels of the stem.
    stem_stride: the stride of the stem.
    strides: the stride of the first block of each group.
    inner_widths: channels inside each block, multiples of `groups`; None: a
      quarter of the channels of the branch's output.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. Every block has a feature
    '.pre', the value before its last ReLU.
  """
  groups = checks.integer('groups', groups)
  widths = arguments.per_group('widths', widths, 3)
  blocks = arguments.per_group('blocks', blocks, 3)
  strides = arguments.per_group('strides', strides, 3)
  inner = iter(arguments.per_block('inner_widths', inner_widths, sum(blocks)))
  channels = checks.integer('stem_width', stem_width)
  unit = layers.ConvUnit(
    channels, 1, stem_stride, initial='uniform', dtype=dtype
  )
  stages = [Stage('stem', unit)]
  for g, (width, count, first) in enumerate(zip(widths, blocks, strides)):
    for b in range(count):
      branch = width - channels if b == 0 else width
      block_inner = next(inner) or branch // 4
      if branch % groups or block_inner < 1 or block_inner % groups:
        raise UsageError(
          f'{groups} groups do not divide the {block_inner} channels inside '
          f'group{g + 1}.block{b + 1} or the {branch} channels of its output'
        )
      block = GroupedUnit(
        width,
        block_inner,
        groups,
        1 if g == b == 0 else groups,
        first if b == 0 else 1,
        concat=b == 0,
        dtype=dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
    channels = width
  stages.append(Stage('pool', layers.Pool()))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))


def shufflenet_v2(
  *,
  num_classes: int = 1000,
  stem: str = 'imagenet',
  stem_width: int = 24,
  stem_stride: int | None = None,
  stem_pool: bool | None = None,
  widths: Sequence[int] = (116, 232, 464),
  last_width: int = 1024,
  strides: Sequence[int] = (2, 2, 2),
  inner_widths: Sequence[int] | None = None,
  dtype: str = 'float32',
) -> Network:
  """Returns a ShuffleNetV2, by default x1.

  Args:
    num_classes: the number of classes.
    stem: 'imagenet': 3x3 convolution of stride 2 and 3x3 max-pooling of stride
      2; 'cifar': 1x1 convolution.
    stem_width: channels of the stem.
    stem_stride: the stride of the stem's convolution; None: that of `stem`.
    stem_pool: whether the stem has the max-pooling; None: as in `stem`.
    widths: channels of the three groups, even numbers.
    last_width: channels of the last convolution.
    strides: the stride of the first block of each group.
    inner_widths: channels inside each of the 16 blocks; None: half of its
      group's.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'last', 'pool' and
    'head', where groups and blocks are counted from 1. Every block has a
    feature '.pre', the value before its last ReLUs, with the channels in the
    order of its output.
  """
  kernel, stem_stride, pool = arguments.stem(
    stem, _STEMS, stem_stride, stem_pool
  )
  widths = arguments.per_group('widths', widths, 3)
  strides = arguments.per_group('strides', strides, 3)
  if any(width % 2 for width in widths):
    raise UsageError(f'widths: expected even numbers, got {widths}')
  inner = iter(
    arguments.per_block('inner_widths', inner_widths, sum(_V2_BLOCKS))
  )

  def conv_unit(width, kernel=1, stride=1, pool=False):
    return layers.ConvUnit(
      width, kernel, stride, pool=pool, initial='uniform', dtype=dtype
    )

  stem_width = checks.integer('stem_width', stem_width)
  stages = [Stage('stem', conv_unit(stem_width, kernel, stem_stride, pool))]
  for g, (width, blocks, first) in enumerate(zip(widths, _V2_BLOCKS, strides)):
    for b in range(blocks):
      block = SplitUnit(
        width, next(inner) or 0, first if b == 0 else 1, b == 0, dtype
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages += [
    Stage('last', conv_unit(checks.integer('last_width', last_width))),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(num_classes)),
  ]
  return Network(tuple(stages))
