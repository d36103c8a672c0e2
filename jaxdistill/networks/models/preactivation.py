"""Pre-activation ResNets of bottlenecks for small images.

He et al., Identity Mappings in Deep Residual Networks, 2016,
https://arxiv.org/abs/1603.05027; the layout of
https://github.com/Eric-mingjie/rethinking-network-pruning.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.models import arguments


@description.register
class PreactivationBottleneck(nn.Module):
  """Batch norm and ReLU before each convolution, and none after the sum.

  Attributes:
    width: channels of the output.
    inner: channels after the first convolution; 0: a quarter of `width`.
    inner_after: channels after the second convolution; 0: as many as after the
      first.
    stride: the stride of the second convolution.
    pre: full name of the feature that is the input after this block's first
      batch norm, before its ReLU; empty: no such feature.
    scale: the initial scale of the batch norms.
    dtype: the type of the computation.
    selected: the indices of the input channels that the branch reads; empty:
      all.
  """

  width: int
  inner: int = 0
  inner_after: int = 0
  stride: int = 1
  pre: str = ''
  scale: float = 1.0
  dtype: str = 'float32'
  selected: tuple[int, ...] = ()

  CHANNELS = (
    layers.Channels('selected', 'norm1', ('conv1',)),
    layers.Channels('inner', 'norm2', ('conv2',), 'conv1'),
    layers.Channels('inner_after', 'norm3', ('conv3',), 'conv2'),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    inner = self.inner or self.width // 4
    return {'inner': inner, 'inner_after': self.inner_after or inner}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    def norm(x, name):
      layer = layers.batch_norm(
        train, scale=self.scale, dtype=self.dtype, name=name
      )
      return layer(x)

    def conv(x, name, features, kernel=1, stride=1):
      layer = layers.conv(features, kernel, stride, dtype=self.dtype, name=name)
      return layer(x)

    inner = self.inner or self.width // 4
    normed = norm(layers.select(x, self.selected), 'norm1')
    y = conv(nn.relu(normed), 'conv1', inner)
    y = nn.relu(norm(y, 'norm2'))
    y = conv(y, 'conv2', self.inner_after or inner, 3, self.stride)
    y = conv(nn.relu(norm(y, 'norm3')), 'conv3', self.width)
    if self.stride != 1 or x.shape[-1] != self.width:
      x = conv(x, 'shortcut_conv', self.width, 1, self.stride)
    return {'': x + y, **({self.pre: normed} if self.pre else {})}


def preactivation_resnet(
  depth: int = 164,
  *,
  num_classes: int = 10,
  stem_width: int = 16,
  widths: Sequence[int] = (16, 32, 64),
  strides: Sequence[int] = (1, 2, 2),
  stem_stride: int = 1,
  inner_widths: Sequence[int | Sequence[int]] | None = None,
  scale: float = 1.0,
  dtype: str = 'float32',
) -> Network:
  """Returns a pre-activation ResNet of 9n + 2 layers.

  Args:
    depth: 11, 20, 29, 56, 110, 164, ...
    num_classes: the number of classes.
    stem_width: channels of the stem.
    widths: channels inside the blocks of the three groups; the output of a
      block has four times as many.
    strides: the stride of the first block of each group.
    stem_stride: the stride of the stem.
    inner_widths: channels inside each block, one entry for each block of the
      network: a number, or a pair for the channels after the first and after
      the second convolution. None: those of its group.
    scale: the initial scale of the batch norms; network slimming uses 0.5.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. The feature of a group is the
    sum without an activation; 'group{g}.pre' is that sum after the next batch
    norm, before the ReLU.
  """
  blocks = arguments.blocks_per_group(depth, 9, 2)
  widths = arguments.per_group('widths', widths, 3)
  strides = arguments.per_group('strides', strides, 3)
  inner = iter(
    arguments.pair_per_block('inner_widths', inner_widths, 3 * blocks)
  )
  stem = layers.ConvUnit(
    checks.integer('stem_width', stem_width),
    3,
    stem_stride,
    norm=False,
    activation='',
    dtype=dtype,
  )
  stages = [Stage('stem', stem)]
  for g, (width, first) in enumerate(zip(widths, strides)):
    for b in range(blocks):
      one, two = next(inner)
      before = f'group{g}.pre' if g else 'stem.pre'
      block = PreactivationBottleneck(
        4 * width,
        one,
        two,
        first if b == 0 else 1,
        before if b == 0 else '',
        scale,
        dtype,
      )
      stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  pool = layers.NormPool('group3.pre', scale, dtype)
  stages.append(Stage('pool', pool))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))
