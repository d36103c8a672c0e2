"""ResNet-18 to 152, with a stem for large or for small images.

He et al., Deep Residual Learning for Image Recognition, 2015,
https://arxiv.org/abs/1512.03385. A bottleneck's stride is in its 3x3
convolution, as in https://github.com/pytorch/vision.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.models import arguments, resnet

BLOCKS = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}
# Kernel, stride and max-pooling.
_STEMS = {
  'imagenet': (7, 2, True),
  'deep': (3, 2, True),
  'cifar': (3, 1, False),
}


@description.register
class DeepStem(nn.Module):
  """Three 3x3 convolutions in place of one of 7x7, each with norm and ReLU.

  Attributes:
    width: channels of the first two convolutions; the third has twice as many.
    stride: the stride of the first convolution.
    pool: whether the stem ends with a 3x3 max-pooling of stride 2.
    dtype: the type of the computation.
    frozen: whether norms use their running statistics in training too.
  """

  width: int
  stride: int = 2
  pool: bool = True
  dtype: str = 'float32'
  frozen: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    for i, factor in enumerate((1, 1, 2), start=1):
      x = layers.conv(
        factor * self.width,
        stride=self.stride if i == 1 else 1,
        dtype=self.dtype,
        name=f'conv{i}',
      )(nn.relu(x) if i > 1 else x)
      x = layers.batch_norm(
        train and not self.frozen, dtype=self.dtype, name=f'norm{i}'
      )(x)
    y = nn.relu(x)
    if self.pool:
      y = nn.max_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return {'': y, '.pre': x}


@description.register
class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions plus a shortcut, with a ReLU after the sum.

  Attributes:
    width: channels of the output.
    inner: channels after the first convolution; 0: a quarter of `width`.
    inner_after: channels after the second convolution; 0: as many as after the
      first.
    stride: the stride of the second convolution.
    dtype: the type of the computation.
    dilation: the dilation of the second convolution.
    frozen: whether norms use their running statistics in training too.
  """

  width: int
  inner: int = 0
  inner_after: int = 0
  stride: int = 1
  dtype: str = 'float32'
  dilation: int = 1
  frozen: bool = False

  CHANNELS = (
    layers.Channels('inner', 'norm1', ('conv2',), 'conv1'),
    layers.Channels('inner_after', 'norm2', ('conv3',), 'conv2'),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    inner = self.inner or self.width // 4
    return {'inner': inner, 'inner_after': self.inner_after or inner}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    inner = self.inner or self.width // 4

    def conv_norm(x, suffix, features, kernel, stride=1, prefix=''):
      conv = layers.conv(
        features,
        kernel,
        stride,
        dilation=self.dilation if kernel == 3 else 1,
        dtype=self.dtype,
        name=f'{prefix}conv{suffix}',
      )
      norm = layers.batch_norm(
        train and not self.frozen,
        dtype=self.dtype,
        name=f'{prefix}norm{suffix}',
      )
      return norm(conv(x))

    y = nn.relu(conv_norm(x, 1, inner, 1))
    y = nn.relu(conv_norm(y, 2, self.inner_after or inner, 3, self.stride))
    y = conv_norm(y, 3, self.width, 1)
    if self.stride != 1 or x.shape[-1] != self.width:
      x = conv_norm(x, '', self.width, 1, self.stride, 'shortcut_')
    y = x + y
    return {'': nn.relu(y), '.pre': y}


def imagenet_resnet(
  depth: int = 18,
  *,
  num_classes: int = 1000,
  stem: str = 'imagenet',
  stem_width: int = 64,
  stem_stride: int | None = None,
  stem_pool: bool | None = None,
  widths: Sequence[int] = (64, 128, 256, 512),
  strides: Sequence[int] = (1, 2, 2, 2),
  dilations: Sequence[int] = (1, 1, 1, 1),
  inner_widths: Sequence[int | Sequence[int]] | None = None,
  frozen_norms: bool = False,
  dtype: str = 'float32',
) -> Network:
  """Returns a ResNet of basic blocks up to depth 34, and of bottlenecks above.

  Args:
    depth: 18, 34, 50, 101 or 152.
    num_classes: the number of classes.
    stem: 'imagenet': 7x7 convolution of stride 2 and 3x3 max-pooling of stride
      2; 'deep': three 3x3 convolutions, the first of stride 2, and the same
      pooling, as in networks for segmentation; 'cifar': 3x3 convolution.
    stem_width: channels of the stem; a deep stem ends with twice as many.
    stem_stride: the stride of the stem's convolution; None: that of `stem`.
    stem_pool: whether the stem has the max-pooling; None: as in `stem`.
    widths: channels of the four groups; the output of a bottleneck has four
      times as many.
    strides: the stride of the first block of each group.
    dilations: the dilation of the 3x3 convolutions of each group. Networks for
      segmentation have the strides (1, 2, 1, 1) and the dilations (1, 1, 2, 4).
    inner_widths: channels inside each block, one entry for each block of the
      network. For a bottleneck the entry is a number, or a pair for the
      channels after its first and after its second convolution. None: those of
      its group.
    frozen_norms: whether batch norms use their running statistics in training
      too and do not change them, as is usual for pretrained weights and small
      batches. Their scales and shifts are trained.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. Every block has a feature
    '.pre', the sum before its last ReLU.
  """
  if depth not in BLOCKS:
    raise checks.unknown('depth of a ResNet', depth, map(str, BLOCKS))
  kernel, stem_stride, pool = arguments.stem(
    stem, _STEMS, stem_stride, stem_pool
  )
  widths = arguments.per_group('widths', widths, 4)
  strides = arguments.per_group('strides', strides, 4)
  dilations = arguments.per_group('dilations', dilations, 4)
  inner = iter(
    arguments.pair_per_block('inner_widths', inner_widths, sum(BLOCKS[depth]))
  )
  checks.integer('stem_width', stem_width)
  unit: nn.Module
  if stem == 'deep':
    unit = DeepStem(stem_width, stem_stride, pool, dtype, frozen_norms)
  else:
    unit = layers.ConvUnit(
      stem_width,
      kernel,
      stem_stride,
      pool=pool,
      dtype=dtype,
      frozen=frozen_norms,
    )
  stages = [Stage('stem', unit)]
  for g, (blocks, width, first, dilation) in enumerate(
    zip(BLOCKS[depth], widths, strides, dilations)
  ):
    for b in range(blocks):
      stride = first if b == 0 else 1
      block = _block(depth, width, next(inner), stride, dilation, dtype)
      block = block.clone(frozen=frozen_norms)
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages.append(Stage('pool', layers.Pool()))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))


def _block(
  depth: int,
  width: int,
  inner: tuple[int, int],
  stride: int,
  dilation: int,
  dtype: str,
) -> nn.Module:
  first, second = inner
  if depth >= 50:
    return Bottleneck(
      4 * width, first or width, second, stride, dtype, dilation
    )
  if second:
    raise UsageError(
      f'inner_widths: expected one number for a basic block, got {inner}'
    )
  return resnet.BasicBlock(width, first, stride, dtype=dtype, dilation=dilation)
