"""MobileNetV3-Small.

Howard et al., Searching for MobileNetV3, 2019,
https://arxiv.org/abs/1905.02244.
"""

from collections.abc import Sequence

from jaxdistill.networks import inverted_residual, layers
from jaxdistill.types import Network, Stage

# (kernel, expanded channels, width, squeeze-and-excitation, activation) of
# each block of each group; a group begins where the map gets smaller.
_GROUPS = (
  ((3, 16, 16, True, 'relu'),),
  ((3, 72, 24, False, 'relu'), (3, 88, 24, False, 'relu')),
  (
    (5, 96, 40, True, 'hard_swish'),
    (5, 240, 40, True, 'hard_swish'),
    (5, 240, 40, True, 'hard_swish'),
    (5, 120, 48, True, 'hard_swish'),
    (5, 144, 48, True, 'hard_swish'),
  ),
  (
    (5, 288, 96, True, 'hard_swish'),
    (5, 576, 96, True, 'hard_swish'),
    (5, 576, 96, True, 'hard_swish'),
  ),
)


def mobilenet_v3_small(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  stem_width: int = 0,
  stem_stride: int = 2,
  strides: Sequence[int] = (2, 2, 2, 2),
  inner_widths: Sequence[int] | None = None,
  hidden_width: int = 0,
  dropout: float = 0.2,
  epsilon: float = 1e-3,
  momentum: float = 0.99,
  dtype: str = 'float32',
) -> Network:
  """MobileNetV3-Small.

  Args:
    num_classes: size of the answer.
    width: factor on the channels, which are rounded to multiples of 8.
    stem_width: channels of the stem, which the first block does not expand; 0:
      16 times `width`.
    stem_stride: of the stem.
    strides: of the first block of each of the four groups.
    inner_widths: expanded channels of each of the 11 blocks; None: the
      paper's. Squeeze-and-excitation keeps a quarter of them.
    hidden_width: units of the layer before the head; 0: 1024 times `width`.
    dropout: rate of the dropout before the head.
    epsilon: of the batch norms; timm's weights without 'tf_' need 1e-5.
    momentum: of the batch norms' running statistics.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'stem', 'group{g}.block{b}', 'last', 'pool', 'hidden', 'head',
    counted from 1. A block ends without an activation.
  """
  blocks = sum(map(len, _GROUPS))
  inner = iter(layers.per_block('inner_widths', inner_widths, blocks))
  round_to_8 = inverted_residual.round_to_8

  def conv_unit(channels, kernel, stride):
    return layers.ConvUnit(
      channels,
      kernel,
      stride,
      activation='hard_swish',
      epsilon=epsilon,
      momentum=momentum,
      dtype=dtype,
    )

  channels = stem_width or round_to_8(16 * width)
  stages = [Stage('stem', conv_unit(channels, 3, stem_stride))]
  for g, (group, first) in enumerate(zip(_GROUPS, strides, strict=True)):
    for b, (kernel, expanded, out, squeezes, activation) in enumerate(group):
      usual = round_to_8(expanded * width) if (g, b) != (0, 0) else channels
      own = next(inner) or usual
      block = inverted_residual.InvertedResidual(
        round_to_8(out * width),
        own,
        first if b == 0 else 1,
        kernel,
        expand=(g, b) != (0, 0),
        squeeze=round_to_8(own // 4) if squeezes else 0,
        activation=activation,
        epsilon=epsilon,
        momentum=momentum,
        dtype=dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  last = 6 * round_to_8(_GROUPS[-1][-1][2] * width)
  hidden = layers.Hidden(
    hidden_width or round_to_8(1024 * width),
    'hard_swish',
    std=0.01,
    dtype=dtype,
  )
  stages += [
    Stage('last', conv_unit(last, 1, 1)),
    Stage('pool', layers.Pool()),
    Stage('hidden', hidden),
    Stage('head', layers.Classifier(num_classes, dropout, std=0.01)),
  ]
  return Network(tuple(stages))
