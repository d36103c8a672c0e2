"""MobileNetV1 and V2.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications, 2017, https://arxiv.org/abs/1704.04861; Sandler et al.,
MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018,
https://arxiv.org/abs/1801.04381. The small V2 for small images is that of
https://github.com/HobbitLong/RepDistiller.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.networks import inverted_residual, layers
from jaxdistill.types import Array, Network, Stage

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
  stem_stride: int = 2,
  strides: Sequence[int] = (1, 2, 2, 2, 2),
  dtype: str = 'float32',
) -> Network:
  """MobileNetV1.

  Args:
    num_classes: size of the answer.
    width: factor on all channels.
    widths: channels of each of the 13 blocks; None: the group's.
    stem_stride: of the stem.
    strides: of the first block of each of the five groups.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'stem', 'group{g}.block{b}', 'pool', 'head', counted from 1; every
    block gives out '.pre', the value before its last ReLU.
  """
  count = sum(blocks for _, blocks in _V1_GROUPS)
  given = iter(layers.per_block('widths', widths, count))
  stem = layers.ConvUnit(int(32 * width), stride=stem_stride, dtype=dtype)
  stages = [Stage('stem', stem)]
  for g, ((channels, blocks), first) in enumerate(
    zip(_V1_GROUPS, strides, strict=True)
  ):
    for b in range(blocks):
      stride = first if b == 0 else 1
      block = SeparableBlock(
        next(given) or int(channels * width), stride, dtype
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages.append(Stage('pool', layers.Pool()))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))


def mobilenet_v2(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  stem_stride: int = 2,
  strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 0,
  dropout: float = 0.2,
  dtype: str = 'float32',
) -> Network:
  """MobileNetV2.

  Args:
    num_classes: size of the answer.
    width: factor on the channels, which are rounded to multiples of 8.
    stem_stride: of the stem.
    strides: of the first block of each of the seven groups.
    inner_widths: expanded channels of each of the 17 blocks; None: six times
      the block's input (once in the first, which has no expansion).
    last_width: channels of the last convolution; 0: 1280, more if `width` is.
    dropout: rate of the dropout before the head.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'stem', 'group{g}.block{b}', 'last', 'pool', 'head', counted from 1.
    A block ends without an activation.
  """
  stem_width = inverted_residual.round_to_8(32 * width)
  stem = layers.ConvUnit(
    stem_width, stride=stem_stride, activation='relu6', dtype=dtype
  )
  blocks = _v2_blocks(
    [(t, inverted_residual.round_to_8(c * width), n) for t, c, n in _V2_GROUPS],
    strides,
    stem_width,
    inner_widths,
    'relu6',
    expand_first=False,
    dtype=dtype,
  )
  last = layers.ConvUnit(
    last_width or inverted_residual.round_to_8(1280 * max(1.0, width)),
    1,
    activation='relu6',
    dtype=dtype,
  )
  return Network(
    (
      Stage('stem', stem),
      *blocks,
      Stage('last', last),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes, dropout, std=0.01)),
    )
  )


def cifar_mobilenet_v2(
  *,
  num_classes: int = 10,
  width: float = 0.5,
  stem_stride: int = 2,
  strides: Sequence[int] = (1, 1, 2, 2, 1, 2, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 0,
  dtype: str = 'float32',
) -> Network:
  """MobileNetV2 for small images, half as wide.

  Unlike `mobilenet_v2` it has ReLU, truncates channels instead of rounding,
  expands in its first block too, and has no dropout.

  Args:
    num_classes: size of the answer.
    width: factor on the channels.
    stem_stride: of the stem.
    strides: of the first block of each of the seven groups.
    inner_widths: expanded channels of each of the 17 blocks; None: six times
      the block's input (once in the first).
    last_width: channels of the last convolution; 0: 1280, more if `width` is.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages as in `mobilenet_v2`.
  """
  stem_width = int(32 * width)
  blocks = _v2_blocks(
    [(t, int(c * width), n) for t, c, n in _V2_GROUPS],
    strides,
    stem_width,
    inner_widths,
    'relu',
    expand_first=True,
    dtype=dtype,
  )
  last_width = last_width or int(1280 * max(1.0, width))
  return Network(
    (
      Stage(
        'stem', layers.ConvUnit(stem_width, stride=stem_stride, dtype=dtype)
      ),
      *blocks,
      Stage('last', layers.ConvUnit(last_width, 1, dtype=dtype)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes, std=0.01)),
    )
  )


def _v2_blocks(
  groups: Sequence[tuple[int, int, int]],
  strides: Sequence[int],
  channels: int,
  inner_widths: Sequence[int] | None,
  activation: str,
  *,
  expand_first: bool,
  dtype: str,
) -> list[Stage]:
  """Stages of groups (expansion, width, blocks) after `channels` channels."""
  inner = iter(
    layers.per_block('inner_widths', inner_widths, sum(g[2] for g in groups))
  )
  stages = []
  for g, ((expansion, width, blocks), first) in enumerate(
    zip(groups, strides, strict=True)
  ):
    for b in range(blocks):
      block = inverted_residual.InvertedResidual(
        width,
        next(inner) or expansion * channels,
        first if b == 0 else 1,
        expand=expansion > 1 or expand_first,
        activation=activation,
        dtype=dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
      channels = width
  return stages
