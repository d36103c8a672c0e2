"""EfficientNet-B0.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks, 2019, https://arxiv.org/abs/1905.11946.
"""

from collections.abc import Sequence
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import layers
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import arguments

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
  """Returns an EfficientNet-B0, padded symmetrically.

  Args:
    num_classes: the number of classes.
    width: a factor on the channels, which are rounded to multiples of 8.
    stem_width: channels of the stem; 0: 32 times `width`.
    stem_stride: the stride of the stem.
    widths: channels of each of the seven groups; None: those of the paper times
      `width`.
    strides: the stride of the first block of each of the seven groups.
    inner_widths: expanded channels of each of the 16 blocks; None: six times
      the channels of its input (as many as these in the first block, which has
      no expansion). Squeeze-and-excitation keeps a quarter of the channels of
      the block's input.
    last_width: channels of the last convolution; 0: 1280 times `width`.
    dropout: the rate of the dropout before the head.
    drop_path: block i of n drops its branch with probability
      drop_path * i / n, i = 0, 1, ...
    epsilon: the epsilon of the batch norms. torchvision and timm, whose padding
      is symmetric too, use 1e-5; the paper's code uses 1e-3.
    momentum: the momentum of the batch norms' running statistics; the paper
      uses 0.99, torchvision and timm use 0.9.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'last', 'pool' and
    'head', where groups and blocks are counted from 1. Blocks do not end with
    an activation. Weights are initialised as in torchvision.
  """
  arguments.probability('dropout', dropout)
  arguments.probability('drop_path', drop_path)
  round_to_8 = inverted_residual.round_to_8
  common: dict[str, Any] = {
    'epsilon': epsilon,
    'momentum': momentum,
    'dtype': dtype,
  }
  group_widths = arguments.per_block('widths', widths, len(_GROUPS), 'groups')
  stem = layers.ConvUnit(
    checks.integer('stem_width', stem_width or round_to_8(32 * width)),
    stride=stem_stride,
    activation='swish',
    **common,
  )
  blocks = _blocks(
    stem.width,
    [w or round_to_8(g[2] * width) for w, g in zip(group_widths, _GROUPS)],
    arguments.per_group('strides', strides, len(_GROUPS)),
    arguments.per_block('inner_widths', inner_widths, _COUNT),
    drop_path,
    common,
  )
  last_width = checks.integer(
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
  """Returns the stages of the groups; their input has `channels` channels."""
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
