"""PyramidNet for small images, with ShakeDrop on request.

Han et al., Deep Pyramidal Residual Networks, 2016,
https://arxiv.org/abs/1610.02915; the layout of
https://github.com/clovaai/CutMix-PyTorch.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import stochastic_depth
from jaxdistill.networks.models import arguments


@description.register
class PyramidBlock(nn.Module):
  """Batch norm at both ends of the branch, no activation after the sum.

  If the shape changes, the shortcut averages patches and appends channels of
  zeros.

  Attributes:
    width: channels inside the block; the output of a bottleneck has four times
      as many.
    bottleneck: whether there are 1x1, 3x3 and 1x1 convolutions instead of two
      3x3 ones.
    stride: the stride of the first 3x3 convolution.
    inner: channels inside the block if they differ from `width`; 0: they do
      not.
    shake_drop: the probability that ShakeDrop disturbs the branch.
    pre: full name of the feature that is the input after this block's first
      batch norm; empty: no such feature.
    dtype: the type of the computation.
    inner_after: channels after the 3x3 convolution of a bottleneck; 0: as many
      as before it.
    selected: the indices of the input channels that the branch reads; empty:
      all.
  """

  width: int
  bottleneck: bool = True
  stride: int = 1
  inner: int = 0
  shake_drop: float = 0.0
  pre: str = ''
  dtype: str = 'float32'
  inner_after: int = 0
  selected: tuple[int, ...] = ()

  CHANNELS = (
    layers.Channels('selected', 'norm1', ('conv1',)),
    layers.Channels('inner', 'norm2', ('conv2',), 'conv1'),
    layers.Channels('inner_after', 'norm3', ('conv3',), 'conv2'),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    inner = self.inner or self.width
    after = {'inner_after': self.inner_after or inner}
    return {'inner': inner, **(after if self.bottleneck else {})}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    def norm(x, i):
      return layers.batch_norm(train, dtype=self.dtype, name=f'norm{i}')(x)

    def conv(x, i, features, kernel, stride=1):
      return layers.conv(
        features, kernel, stride, dtype=self.dtype, name=f'conv{i}'
      )(x)

    inner = self.inner or self.width
    y = normed = norm(layers.select(x, self.selected), 1)
    if self.bottleneck:
      y = nn.relu(norm(conv(y, 1, inner, 1), 2))
      after = self.inner_after or inner
      y = nn.relu(norm(conv(y, 2, after, 3, self.stride), 3))
      y = norm(conv(y, 3, 4 * self.width, 1), 4)
    else:
      y = nn.relu(norm(conv(y, 1, inner, 3, self.stride), 2))
      y = norm(conv(y, 2, self.width, 3), 3)
    if train and self.shake_drop and self.has_rng('dropout'):
      y = stochastic_depth.shake_drop(
        y, self.shake_drop, self.make_rng('dropout')
      )
    else:
      y = y * (1 - self.shake_drop)
    taps = {self.pre: normed} if self.pre else {}
    x = layers.pool_and_pad(x, y.shape[-1], self.stride)
    return {'': x + y, **taps}


def pyramidnet(
  depth: int = 110,
  widening: int = 64,
  *,
  num_classes: int = 10,
  bottleneck: bool = True,
  stem_width: int = 16,
  stem_stride: int = 1,
  strides: Sequence[int] = (1, 2, 2),
  inner_widths: Sequence[int] | None = None,
  shake_drop: float = 0.0,
  dtype: str = 'float32',
) -> Network:
  """Returns a PyramidNet, in which every block is a little wider than the last.

  Args:
    depth: the number of layers, 9n + 2 with bottlenecks and 6n + 2 otherwise.
    widening: how many channels the last block has more than the stem, before
      the factor of four of bottlenecks.
    num_classes: the number of classes.
    bottleneck: whether blocks are bottlenecks.
    stem_width: channels of the stem.
    stem_stride: the stride of the stem.
    strides: the stride of the first block of each of the three groups.
    inner_widths: channels inside each block, one number for each block of the
      network; None: those of the block's output, before the factor of four.
    shake_drop: the probability that ShakeDrop disturbs the last block; it grows
      linearly from the first. The paper uses 0.5.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'pool' and 'head',
    where groups and blocks are counted from 1. The feature of a group is the
    sum without an activation; 'group{g}.pre' is that sum after the next batch
    norm.
  """
  per_group = arguments.blocks_per_group(depth, 9 if bottleneck else 6, 2)
  count = 3 * per_group
  inner = arguments.per_block('inner_widths', inner_widths, count)
  strides = arguments.per_group('strides', strides, 3)
  checks.number('widening', widening, at_least=0)
  arguments.probability('shake_drop', shake_drop)
  stem_width = checks.integer('stem_width', stem_width)
  stem = layers.ConvUnit(stem_width, 3, stem_stride, activation='', dtype=dtype)
  stages, width = [Stage('stem', stem)], float(stem_width)
  for i in range(count):
    g, b = divmod(i, per_group)
    # The sum is formed step by step, as in the code of the paper, because
    # rounding errors decide some widths.
    width += widening / count
    before = f'group{g}.pre' if g else 'stem.pre'
    block = PyramidBlock(
      round(width),
      bottleneck,
      strides[g] if b == 0 else 1,
      inner[i] or 0,
      shake_drop * (i + 1) / count,
      before if b == 0 else '',
      dtype,
    )
    stages.append(Stage(f'group{g + 1}.block{b + 1}', block))
  stages.append(Stage('pool', layers.NormPool('group3.pre', dtype=dtype)))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))
