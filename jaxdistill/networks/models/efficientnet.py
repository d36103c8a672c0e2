"""EfficientNet-B0, and EfficientNet-Lite.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks, 2019, https://arxiv.org/abs/1905.11946. EfficientNet-Lite is that of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from collections.abc import Sequence
import math
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
  round_to_8 = inverted_residual.round_to_8
  return _network(
    num_classes,
    checks.integer('stem_width', stem_width or round_to_8(32 * width)),
    stem_stride,
    widths or [round_to_8(group[2] * width) for group in _GROUPS],
    [group[3] for group in _GROUPS],
    strides,
    inner_widths,
    checks.integer('last_width', last_width or round_to_8(1280 * width)),
    dropout,
    drop_path,
    {
      'activation': 'swish',
      'epsilon': epsilon,
      'momentum': momentum,
      'dtype': dtype,
    },
    squeeze=True,
  )


def efficientnet_lite(
  width: float = 1.0,
  depth: float = 1.0,
  *,
  num_classes: int = 1000,
  stem_width: int = 32,
  stem_stride: int = 2,
  widths: Sequence[int] | None = None,
  strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
  inner_widths: Sequence[int] | None = None,
  last_width: int = 1280,
  dropout: float = 0.2,
  drop_path: float = 0.2,
  epsilon: float = 1e-3,
  momentum: float = 0.99,
  dtype: str = 'float32',
) -> Network:
  """Returns an EfficientNet-Lite, padded as in TensorFlow.

  It is an EfficientNet without squeeze-and-excitation and with ReLU6, for
  devices.

  Args:
    width: a factor on the channels of the groups, which are rounded to
      multiples of 8.
    depth: a factor on the number of blocks of each group but the first and the
      last, rounded up.
    num_classes: the number of classes.
    stem_width: channels of the stem.
    stem_stride: the stride of the stem.
    widths: channels of each of the seven groups; None: those of the paper times
      `width`.
    strides: the stride of the first block of each of the seven groups.
    inner_widths: expanded channels of each block; None: six times the channels
      of its input (as many as these in the first block, which has no
      expansion).
    last_width: channels of the last convolution.
    dropout: the rate of the dropout before the head.
    drop_path: see `efficientnet_b0`.
    epsilon: the epsilon of the batch norms.
    momentum: the momentum of the batch norms' running statistics.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages of `efficientnet_b0`.
  """
  width = checks.number('width', width, above=0, at_most=100)
  depth = checks.number('depth', depth, above=0, at_most=100)
  round_to_8 = inverted_residual.round_to_8
  first, *middle, last = (group[3] for group in _GROUPS)
  return _network(
    num_classes,
    checks.integer('stem_width', stem_width),
    stem_stride,
    widths or [round_to_8(group[2] * width) for group in _GROUPS],
    [first, *(math.ceil(blocks * depth) for blocks in middle), last],
    strides,
    inner_widths,
    checks.integer('last_width', last_width),
    dropout,
    drop_path,
    {
      'activation': 'relu6',
      'epsilon': epsilon,
      'momentum': momentum,
      'dtype': dtype,
      'same_padding': True,
    },
    squeeze=False,
  )


def _network(
  num_classes: int,
  stem_width: int,
  stem_stride: int,
  widths: Sequence[int],
  depths: Sequence[int],
  strides: Sequence[int],
  inner_widths: Sequence[int] | None,
  last_width: int,
  dropout: float,
  drop_path: float,
  common: dict[str, Any],
  *,
  squeeze: bool,
) -> Network:
  """Returns an EfficientNet.

  Args:
    num_classes: see `efficientnet_b0`.
    stem_width: see `efficientnet_b0`.
    stem_stride: see `efficientnet_b0`.
    widths: channels of each group.
    depths: the number of blocks of each group.
    strides: see `efficientnet_b0`.
    inner_widths: see `efficientnet_b0`.
    last_width: see `efficientnet_b0`.
    dropout: see `efficientnet_b0`.
    drop_path: see `efficientnet_b0`.
    common: fields of all units and blocks.
    squeeze: whether there is squeeze-and-excitation.
  """
  arguments.probability('dropout', dropout)
  arguments.probability('drop_path', drop_path)
  widths = arguments.per_group('widths', widths, len(_GROUPS))
  strides = arguments.per_group('strides', strides, len(_GROUPS))
  count = sum(depths)
  inner = arguments.per_block('inner_widths', inner_widths, count)
  stem = layers.ConvUnit(stem_width, stride=stem_stride, **common)
  stages, channels = [Stage('stem', stem)], stem_width
  for g, (expansion, kernel, *_) in enumerate(_GROUPS):
    for b in range(depths[g]):
      i = len(stages) - 1
      block = inverted_residual.InvertedResidual(
        widths[g],
        inner[i] or expansion * channels,
        strides[g] if b == 0 else 1,
        kernel,
        expand=expansion > 1,
        squeeze=max(1, channels // 4) if squeeze else 0,
        squeeze_activation='swish',
        gate='sigmoid',
        drop_path=drop_path * i / count,
        **common,
      )
      inverted_residual.check(block, channels)
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
      channels = block.width
  head = layers.Classifier(
    num_classes, dropout, bound=num_classes**-0.5, zero_bias=True
  )
  last = stem.clone(width=last_width, kernel=1, stride=1)
  return Network(
    (
      *stages,
      Stage('last', last),
      Stage('pool', layers.Pool()),
      Stage('head', head),
    )
  )
