"""VGG, for small and for large images.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition, 2014, https://arxiv.org/abs/1409.1556; the layouts of
https://github.com/HobbitLong/RepDistiller,
https://github.com/Eric-mingjie/rethinking-network-pruning and
https://github.com/pytorch/vision.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.models import arguments

CONVOLUTIONS = {
  8: (1, 1, 1, 1, 1),
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


@description.register
class VGGUnit(nn.Module):
  """[2x2 max-pooling,] 3x3 convolution, [batch norm,] ReLU.

  Attributes:
    width: channels of the output.
    pool: whether the unit begins with the max-pooling.
    use_bias: whether the convolution has a bias.
    norm: whether the unit has the batch norm.
    scale: the initial scale of the batch norm.
    dtype: the type of the computation.
  """

  width: int
  pool: bool = False
  use_bias: bool = True
  norm: bool = True
  scale: float = 1.0
  dtype: str = 'float32'

  CHANNELS = (layers.Channels('width', 'norm', (), 'conv'),)

  def output_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces in a group."""
    return {'width': self.width}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    if self.pool:
      x = layers.max_pool(x)
    x = layers.conv(
      self.width, use_bias=self.use_bias, dtype=self.dtype, name='conv'
    )(x)
    if self.norm:
      x = layers.batch_norm(
        train, scale=self.scale, dtype=self.dtype, name='norm'
      )(x)
    return {'': nn.relu(x), '.pre': x}


@description.register
class PoolFlatten(nn.Module):
  """[2x2 max-pooling,] `[B, H, W, C]` -> `[B, C * H * W]`, channels first."""

  pool: bool = True

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    if self.pool:
      x = layers.max_pool(x)
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def cifar_vgg(
  depth: int = 13,
  *,
  num_classes: int = 10,
  width: float = 1.0,
  pools: Sequence[bool] = (True, True, True, False),
  use_bias: bool = True,
  widths: Sequence[int] | None = None,
  scale: float = 1.0,
  dtype: str = 'float32',
) -> Network:
  """Returns a VGG with batch norm, global average pooling and one linear layer.

  Args:
    depth: 8, 11, 13, 16 or 19.
    num_classes: the number of classes.
    width: a factor on the channels 64, 128, 256, 512, 512.
    pools: whether a 2x2 max-pooling comes before each of the groups 2 to 5. The
      layout of network slimming has all four, and no biases in its
      convolutions.
    use_bias: whether the convolutions have biases.
    widths: channels of each convolution, for pruned networks; None: those of
      its group.
    scale: the initial scale of the batch norms; network slimming uses 0.5.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'group{g}.conv{c}', 'pool' and 'head', where
    groups and convolutions are counted from 1. The feature of a group is its
    map before pooling, and every convolution has a feature '.pre', the value
    before its ReLU.
  """
  pools = checks.length('pools', pools, 4, 'places of a pooling')
  unit = VGGUnit(0, use_bias=use_bias, scale=scale, dtype=dtype)
  return Network(
    (
      *_convolutions(depth, width, pools, widths, unit),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes, std=0.01)),
    )
  )


def imagenet_vgg(
  depth: int = 16,
  *,
  num_classes: int = 1000,
  width: float = 1.0,
  pools: Sequence[bool] = (True,) * 5,
  norm: bool = True,
  widths: Sequence[int] | None = None,
  hidden_width: int = 4096,
  dropout: float = 0.5,
  dtype: str = 'float32',
) -> Network:
  """Returns a VGG with five max-poolings and three linear layers.

  Args:
    depth: 11, 13, 16 or 19.
    num_classes: the number of classes.
    width: a factor on the channels 64, 128, 256, 512, 512.
    pools: whether a 2x2 max-pooling comes after each of the five groups.
    norm: whether a batch norm follows each convolution.
    widths: channels of each convolution; None: those of its group.
    hidden_width: units of the first two linear layers.
    dropout: the rate of the dropout after each of them.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'group{g}.conv{c}', 'pool', 'hidden1', 'hidden2'
    and 'head'; see `cifar_vgg`. The weights of 'hidden1' fit only one size of
    images.
  """
  if depth == 8:
    raise UsageError('depth: expected 11, 13, 16 or 19, got 8')
  pools = checks.length('pools', pools, 5, 'places of a pooling')
  arguments.probability('dropout', dropout)
  hidden = layers.Hidden(hidden_width, std=0.01, dtype=dtype)
  unit = VGGUnit(0, norm=norm, dtype=dtype)
  return Network(
    (
      *_convolutions(depth, width, pools, widths, unit),
      Stage('pool', PoolFlatten(bool(pools[-1]))),
      Stage('hidden1', hidden),
      Stage('hidden2', hidden.clone(dropout=dropout)),
      Stage('head', layers.Classifier(num_classes, dropout, std=0.01)),
    )
  )


def _convolutions(
  depth: int,
  width: float,
  pools: Sequence[bool],
  widths: Sequence[int] | None,
  unit: VGGUnit,
) -> list[Stage]:
  """Returns the stages of the groups: copies of `unit` with their widths."""
  if depth not in CONVOLUTIONS:
    raise checks.unknown('depth of a VGG', depth, map(str, CONVOLUTIONS))
  places = [
    (g, c) for g, count in enumerate(CONVOLUTIONS[depth]) for c in range(count)
  ]
  conv_widths = arguments.per_block('widths', widths, len(places))
  return [
    Stage(
      f'group{g + 1}.conv{c + 1}',
      unit.clone(
        width=conv_width or max(1, int(WIDTHS[g] * width)),
        pool=bool(g and c == 0 and pools[g - 1]),
      ),
    )
    for (g, c), conv_width in zip(places, conv_widths)
  ]
