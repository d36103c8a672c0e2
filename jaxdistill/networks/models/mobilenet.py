"""MobileNetV1 and V2.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications, 2017, https://arxiv.org/abs/1704.04861; Sandler et al.,
MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018,
https://arxiv.org/abs/1801.04381. The small V2 for small images is that of
https://github.com/HobbitLong/RepDistiller.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import arguments

# (width, blocks) of each group.
_V1_GROUPS = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
# (expansion, width, blocks) of each group.
_V2_GROUPS = (
  (1, 16, 1),
  (6, 24, 2),
  (6, 32, 3),
  (6, 64, 4),
  (6, 96, 3),
  (6, 160, 3),
  (6, 320, 1),
)


@description.register
class SeparableBlock(nn.Module):
  """3x3 depthwise and 1x1 convolution, each with batch norm and ReLU."""

  width: int
  stride: int = 1
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    dtype = self.dtype
    x = layers.conv(
      x.shape[-1],
      stride=self.stride,
      groups=x.shape[-1],
      dtype=dtype,
      name='depthwise_conv',
    )(x)
    x = layers.batch_norm(train, dtype=dtype, name='depthwise_norm')(x)
    x = layers.conv(self.width, 1, dtype=dtype, name='pointwise_conv')(
      nn.relu(x)
    )
    x = layers.batch_norm(train, dtype=dtype, name='pointwise_norm')(x)
    return {'': nn.relu(x), '.pre': x}


def mobilenet_v1(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  widths: Sequence[int] | None = None,
  stem_width: int = 0,
  stem_stride: int = 2,
  strides: Sequence[int] = (1, 2, 2, 2, 2),
  dtype: str = 'float32',
) -> Network:
  """Returns a MobileNetV1.

  Args:
    num_classes: the number of classes.
    width: a factor on all channels.
    widths: channels of each of the 13 blocks; None: those of its group.
    stem_width: channels of the stem; 0: 32 times `width`.
    stem_stride: the stride of the stem.
    strides: the stride of the first block of each of the five groups.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. Every block has a feature
    '.pre', the value before its last ReLU. Kernels are initialised Kaiming
    normal over the fan out; the paper does not say how.
  """
  count = sum(blocks for _, blocks in _V1_GROUPS)
  block_widths = iter(arguments.per_block('widths', widths, count))
  strides = arguments.per_group('strides', strides, len(_V1_GROUPS))
  stem_width = checks.integer('stem_width', stem_width or int(32 * width))
  stem = layers.ConvUnit(stem_width, stride=stem_stride, dtype=dtype)
  stages = [Stage('stem', stem)]
  for g, ((channels, blocks), first) in enumerate(zip(_V1_GROUPS, strides)):
    for b in range(blocks):
      stride = first if b == 0 else 1
      block = SeparableBlock(
        next(block_widths) or int(channels * width), stride, dtype
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages.append(Stage('pool', layers.Pool()))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))


def mobilenet_v2(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  stem_width: int = 0,
  stem_stride: int = 2,
  widths: Sequence[int] | None = None,
  strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
  dilations: Sequence[int] = (1, 1, 1, 1, 1, 1, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 0,
  dropout: float = 0.2,
  dtype: str = 'float32',
) -> Network:
  """Returns a MobileNetV2.

  Args:
    num_classes: the number of classes.
    width: a factor on the channels, which are rounded to multiples of 8.
    stem_width: channels of the stem; 0: 32 times `width`.
    stem_stride: the stride of the stem.
    widths: channels of each of the seven groups; None: those of the paper times
      `width`.
    strides: the stride of the first block of each of the seven groups.
    dilations: the dilation of the depthwise convolutions of each group.
      Networks for segmentation at a resolution of 1/8 have the strides
      (1, 2, 2, 1, 1, 1, 1) and the dilations (1, 1, 1, 2, 2, 4, 4).
    inner_widths: expanded channels of each of the 17 blocks; None: six times
      the channels of its input (as many as these in the first block, which has
      no expansion).
    last_width: channels of the last convolution; 0: 1280 times `width`, at
      least 1280.
    dropout: the rate of the dropout before the head.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'last', 'pool' and
    'head', where groups and blocks are counted from 1. Blocks do not end with
    an activation.
  """
  arguments.probability('dropout', dropout)
  round_to_8 = inverted_residual.round_to_8
  return _v2(
    stem_width or round_to_8(32 * width),
    stem_stride,
    [round_to_8(c * width) for _, c, _ in _V2_GROUPS],
    widths,
    strides,
    dilations,
    inner_widths,
    last_width or round_to_8(1280 * max(1.0, width)),
    layers.Classifier(num_classes, dropout, std=0.01),
    activation='relu6',
    expand_first=False,
    dtype=dtype,
  )


def cifar_mobilenet_v2(
  *,
  num_classes: int = 10,
  width: float = 0.5,
  stem_width: int = 0,
  stem_stride: int = 2,
  widths: Sequence[int] | None = None,
  strides: Sequence[int] = (1, 1, 2, 2, 1, 2, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 0,
  dtype: str = 'float32',
) -> Network:
  """Returns a MobileNetV2 for small images, half as wide by default.

  Unlike `mobilenet_v2`, it uses ReLU, truncates channels instead of rounding
  them, expands in its first block too, and has no dropout.

  Args:
    num_classes: the number of classes.
    width: a factor on the channels.
    stem_width: channels of the stem; 0: 32 times `width`.
    stem_stride: the stride of the stem.
    widths: channels of each of the seven groups; None: those of the paper times
      `width`.
    strides: the stride of the first block of each of the seven groups.
    inner_widths: expanded channels of each of the 17 blocks; None: six times
      the channels of its input (as many as these in the first block).
    last_width: channels of the last convolution; 0: 1280 times `width`, at
      least 1280.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    The stages are those of `mobilenet_v2`.
  """
  return _v2(
    stem_width or int(32 * width),
    stem_stride,
    [int(c * width) for _, c, _ in _V2_GROUPS],
    widths,
    strides,
    (1,) * len(_V2_GROUPS),
    inner_widths,
    last_width or int(1280 * max(1.0, width)),
    layers.Classifier(num_classes, std=0.01),
    activation='relu',
    expand_first=True,
    dtype=dtype,
  )


def _v2(
  stem_width: int,
  stem_stride: int,
  default_widths: Sequence[int],
  widths: Sequence[int] | None,
  strides: Sequence[int],
  dilations: Sequence[int],
  inner_widths: Sequence[int] | None,
  last_width: int,
  head: layers.Classifier,
  *,
  activation: str,
  expand_first: bool,
  dtype: str,
) -> Network:
  """Returns a MobileNetV2; `default_widths` holds where `widths` is None."""
  count = sum(blocks for *_, blocks in _V2_GROUPS)
  inner = iter(arguments.per_block('inner_widths', inner_widths, count))
  group_widths = arguments.per_block(
    'widths', widths, len(_V2_GROUPS), 'groups'
  )
  strides = arguments.per_group('strides', strides, len(_V2_GROUPS))
  dilations = arguments.per_group('dilations', dilations, len(_V2_GROUPS))
  channels = checks.integer('stem_width', stem_width)
  stem = layers.ConvUnit(
    channels, stride=stem_stride, activation=activation, dtype=dtype
  )
  stages = [Stage('stem', stem)]
  for g, (expansion, _, blocks) in enumerate(_V2_GROUPS):
    width = group_widths[g] or checks.integer('width', default_widths[g])
    for b in range(blocks):
      block = inverted_residual.InvertedResidual(
        width,
        next(inner) or expansion * channels,
        strides[g] if b == 0 else 1,
        expand=expansion > 1 or expand_first,
        activation=activation,
        dtype=dtype,
        dilation=dilations[g],
      )
      inverted_residual.check(block, channels)
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
      channels = width
  last = layers.ConvUnit(
    checks.integer('last_width', last_width),
    1,
    activation=activation,
    dtype=dtype,
  )
  return Network(
    (
      *stages,
      Stage('last', last),
      Stage('pool', layers.Pool()),
      Stage('head', head),
    )
  )
