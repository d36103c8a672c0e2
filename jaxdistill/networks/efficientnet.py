"""EfficientNet-B0.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks, 2019, https://arxiv.org/abs/1905.11946.
"""

from collections.abc import Sequence

from jaxdistill.networks import inverted_residual, layers
from jaxdistill.types import Network, Stage

# (expansion, kernel, width, blocks) of each group.
_GROUPS = (
  (1, 3, 16, 1),
  (6, 3, 24, 2),
  (6, 5, 40, 2),
  (6, 3, 80, 3),
  (6, 5, 112, 3),
  (6, 5, 192, 4),
  (6, 3, 320, 1),
)


def efficientnet_b0(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  stem_stride: int = 2,
  strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 0,
  dropout: float = 0.2,
  drop_path: float = 0.2,
  epsilon: float = 1e-3,
  momentum: float = 0.99,
  dtype: str = 'float32',
) -> Network:
  """EfficientNet-B0, padded symmetrically.

  Args:
    num_classes: size of the answer.
    width: factor on the channels, which are rounded to multiples of 8.
    stem_stride: of the stem.
    strides: of the first block of each of the seven groups.
    inner_widths: expanded channels of each of the 16 blocks; None: six times
      the block's input (once in the first, which has no expansion).
    last_width: channels of the last convolution; 0: 1280 times `width`.
    dropout: rate of the dropout before the head.
    drop_path: block i of n drops its branch with probability
      drop_path * i / n, i = 0, 1, ...
    epsilon: of the batch norms; torchvision's and timm's weights need 1e-5.
    momentum: of the batch norms' running statistics.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'stem', 'group{g}.block{b}', 'last', 'pool', 'head', counted from 1.
    A block ends without an activation.
  """
  count = sum(blocks for *_, blocks in _GROUPS)
  given = layers.per_block('inner_widths', inner_widths, count)
  round_to_8 = inverted_residual.round_to_8

  def conv_unit(channels, kernel, stride):
    return layers.ConvUnit(
      channels,
      kernel,
      stride,
      activation='swish',
      epsilon=epsilon,
      momentum=momentum,
      dtype=dtype,
    )

  channels, i = round_to_8(32 * width), 0
  stages = [Stage('stem', conv_unit(channels, 3, stem_stride))]
  for g, ((expansion, kernel, out, blocks), first) in enumerate(
    zip(_GROUPS, strides, strict=True)
  ):
    for b in range(blocks):
      block = inverted_residual.InvertedResidual(
        round_to_8(out * width),
        given[i] or expansion * channels,
        first if b == 0 else 1,
        kernel,
        expand=expansion > 1,
        squeeze=max(1, channels // 4),
        activation='swish',
        squeeze_activation='swish',
        gate='sigmoid',
        drop_path=drop_path * i / count,
        epsilon=epsilon,
        momentum=momentum,
        dtype=dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
      channels, i = round_to_8(out * width), i + 1
  stages += [
    Stage('last', conv_unit(last_width or round_to_8(1280 * width), 1, 1)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(num_classes, dropout)),
  ]
  return Network(tuple(stages))
