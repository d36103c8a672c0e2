"""MobileNetV3-Small.

Howard et al., Searching for MobileNetV3, 2019,
https://arxiv.org/abs/1905.02244.
"""

from collections.abc import Sequence
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import layers
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import arguments

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
_COUNT = sum(map(len, _GROUPS))


def mobilenet_v3_small(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  stem_width: int = 0,
  stem_stride: int = 2,
  widths: Sequence[int] | None = None,
  strides: Sequence[int] = (2, 2, 2, 2),
  inner_widths: Sequence[int] | None = None,
  hidden_width: int = 0,
  dropout: float = 0.2,
  epsilon: float = 1e-3,
  momentum: float = 0.99,
  dtype: str = 'float32',
) -> Network:
  """Returns a MobileNetV3-Small.

  Args:
    num_classes: the number of classes.
    width: a factor on the channels, which are rounded to multiples of 8.
    stem_width: channels of the stem, and inside the first block, which has no
      expansion; 0: 16 times `width`.
    stem_stride: the stride of the stem.
    widths: channels of each of the 11 blocks; None: those of the paper times
      `width`.
    strides: the stride of the first block of each of the four groups.
    inner_widths: expanded channels of each of the 11 blocks; None: those of the
      paper times `width`. Squeeze-and-excitation keeps a quarter of them.
    hidden_width: units of the layer before the head; 0: 1024 times `width`.
    dropout: the rate of the dropout before the head.
    epsilon: the epsilon of the batch norms. The paper and torchvision use 1e-3.
      timm uses 1e-5 in its models with symmetric padding, which this network
      has too, and 1e-3 in its 'tf_' variants, which are padded differently.
    momentum: the momentum of the batch norms' running statistics.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'last', 'pool',
    'hidden' and 'head', where groups and blocks are counted from 1. Blocks do
    not end with an activation.
  """
  arguments.probability('dropout', dropout)
  round_to_8 = inverted_residual.round_to_8
  common: dict[str, Any] = {
    'epsilon': epsilon,
    'momentum': momentum,
    'dtype': dtype,
  }
  stem = layers.ConvUnit(
    checks.integer('stem_width', stem_width or round_to_8(16 * width)),
    stride=stem_stride,
    activation='hard_swish',
    **common,
  )
  blocks = _blocks(
    stem.width,
    width,
    arguments.per_block('widths', widths, _COUNT),
    arguments.per_group('strides', strides, len(_GROUPS)),
    arguments.per_block('inner_widths', inner_widths, _COUNT),
    common,
  )
  last_width = 6 * blocks[-1].module.width
  hidden = layers.Hidden(
    checks.integer('hidden_width', hidden_width or round_to_8(1024 * width)),
    'hard_swish',
    std=0.01,
    dtype=dtype,
  )
  return Network(
    (
      Stage('stem', stem),
      *blocks,
      Stage('last', stem.clone(width=last_width, kernel=1, stride=1)),
      Stage('pool', layers.Pool()),
      Stage('hidden', hidden),
      Stage('head', layers.Classifier(num_classes, dropout, std=0.01)),
    )
  )


def _blocks(
  channels: int,
  factor: float,
  widths: Sequence[int | None],
  strides: Sequence[int],
  inner_widths: Sequence[int | None],
  common: dict[str, Any],
) -> list[Stage]:
  """Returns the stages of the groups; their input has `channels` channels."""
  round_to_8 = inverted_residual.round_to_8
  stages: list[Stage] = []
  for g, group in enumerate(_GROUPS):
    for b, (kernel, inner, width, squeezes, activation) in enumerate(group):
      i = len(stages)
      default = round_to_8(inner * factor) if i else channels
      inner = inner_widths[i] or default
      block = inverted_residual.InvertedResidual(
        widths[i] or round_to_8(width * factor),
        inner,
        strides[g] if b == 0 else 1,
        kernel,
        expand=i > 0,
        squeeze=round_to_8(inner // 4) if squeezes else 0,
        activation=activation,
        **common,
      )
      inverted_residual.check(block, channels)
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
      channels = block.width
  return stages
