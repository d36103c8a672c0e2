"""EfficientNet-B0.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks, 2019, https://arxiv.org/abs/1905.11946.
"""

from collections.abc import Sequence
from typing import Any

from jaxdistill.networks import arguments, inverted_residual, layers
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
_COUNT = sum(blocks for *_, blocks in _GROUPS)


def efficientnet_b0(
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  stem_width: int = 0,
  stem_stride: int = 2,
  widths: Sequence[int] | None = None,
  strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 0,
  dropout: float = 0.2,
  drop_path: float = 0.2,
  epsilon: float = 1e-5,
  momentum: float = 0.99,
  dtype: str = 'float32',
) -> Network:
  """EfficientNet-B0, padded symmetrically.

  Args:
    num_classes: size of the answer.
    width: factor on the channels, which are rounded to multiples of 8.
    stem_width: channels of the stem; 0: 32 times `width`.
    stem_stride: of the stem.
    widths: channels of each of the seven groups; None: the paper's times
      `width`.
    strides: of the first block of each of the seven groups.
    inner_widths: expanded channels of each of the 16 blocks; None: six times
      the block's input (once in the first, which has no expansion).
      Squeeze-and-excitation keeps a quarter of the block's input.
    last_width: channels of the last convolution; 0: 1280 times `width`.
    dropout: rate of the dropout before the head.
    drop_path: block i of n drops its branch with probability
      drop_path * i / n, i = 0, 1, ...
    epsilon: of the batch norms. 1e-5 is torchvision's and timm's, whose
      padding is symmetric too; the paper's code has 1e-3.
    momentum: of the batch norms' running statistics; 0.99 is the paper's,
      torchvision and timm have 0.9.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'stem', 'group{g}.block{b}', 'last', 'pool', 'head', counted from 1.
    A block ends without an activation. Weights begin as in torchvision.
  """
  round_to_8 = inverted_residual.round_to_8
  common: dict[str, Any] = {
    'epsilon': epsilon,
    'momentum': momentum,
    'dtype': dtype,
  }
  given = arguments.per_block('widths', widths, len(_GROUPS), 'groups')
  stem = layers.ConvUnit(
    arguments.whole('stem_width', stem_width or round_to_8(32 * width)),
    stride=stem_stride,
    activation='swish',
    **common,
  )
  blocks = _blocks(
    stem.width,
    [own or round_to_8(g[2] * width) for own, g in zip(given, _GROUPS)],
    arguments.per_group('strides', strides, len(_GROUPS)),
    arguments.per_block('inner_widths', inner_widths, _COUNT),
    drop_path,
    common,
  )
  last_width = arguments.whole(
    'last_width', last_width or round_to_8(1280 * width)
  )
  head = layers.Classifier(
    num_classes, dropout, bound=num_classes**-0.5, zero_bias=True
  )
  return Network(
    (
      Stage('stem', stem),
      *blocks,
      Stage('last', stem.clone(width=last_width, kernel=1, stride=1)),
      Stage('pool', layers.Pool()),
      Stage('head', head),
    )
  )


def _blocks(
  channels: int,
  widths: Sequence[int],
  strides: Sequence[int],
  inner_widths: Sequence[int | None],
  drop_path: float,
  common: dict[str, Any],
) -> list[Stage]:
  """Stages of the groups after `channels` channels."""
  stages: list[Stage] = []
  for g, (expansion, kernel, _, blocks) in enumerate(_GROUPS):
    for b in range(blocks):
      i = len(stages)
      block = inverted_residual.InvertedResidual(
        widths[g],
        inner_widths[i] or expansion * channels,
        strides[g] if b == 0 else 1,
        kernel,
        expand=expansion > 1,
        squeeze=max(1, channels // 4),
        activation='swish',
        squeeze_activation='swish',
        gate='sigmoid',
        drop_path=drop_path * i / _COUNT,
        **common,
      )
      inverted_residual.check(block, channels)
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
      channels = block.width
  return stages
