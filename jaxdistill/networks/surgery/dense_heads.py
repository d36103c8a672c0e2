"""Networks with a class for each pixel, made from classifiers of images."""

from collections.abc import Sequence

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.losses import numerics
from jaxdistill.networks import description, graph, layers


@description.register
class FcnHead(nn.Module):
  """3x3 convolution, batch norm and ReLU, then a 1x1 convolution in float32.

  Attributes:
    num_classes: channels of the output.
    width: channels between the convolutions; 0: a quarter of the input's.
    dropout: the rate of the dropout before the last convolution.
  """

  num_classes: int
  width: int = 0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    width = self.width or max(1, x.shape[-1] // 4)
    x = _unit(x, width, train, 'conv', 'norm')
    return _logits(x, self.num_classes, self.dropout, train)


@description.register
class PixelClassifier(nn.Module):
  """A 1x1 convolution to the scores of classes, in float32.

  Attributes:
    num_classes: channels of the output.
    dropout: the rate of the dropout before it.
    prior: the output of a new head at all places, apart from a little noise;
      None: the output is random.
  """

  num_classes: int
  dropout: float = 0.0
  prior: float | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    return _logits(x, self.num_classes, self.dropout, train, self.prior)


@description.register
class PooledPyramid(nn.Module):
  """The pyramid of PSPNet: the map beside averages of its parts.

  The map is averaged over `size * size` parts for each size. Each result passes
  a 1x1 convolution, batch norm and ReLU, and is enlarged, bilinear. A 3x3
  convolution, batch norm and ReLU join them with the map.

  Attributes:
    width: channels of the output; 0: a quarter of the input's.
    sizes: into how many parts a side is divided.
    align_corners: how the results are enlarged, see `numerics.bilinear`.
  """

  width: int = 0
  sizes: tuple[int, ...] = (1, 2, 3, 6)
  align_corners: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    inner = max(1, x.shape[-1] // len(self.sizes))
    maps = [x]
    for size in self.sizes:
      y = numerics.adaptive_average_pool(x, size, size)
      y = _unit(y, inner, train, f'conv{size}', f'norm{size}', kernel=1)
      maps.append(
        numerics.bilinear(y, x.shape[1:3], align_corners=self.align_corners)
      )
    width = self.width or max(1, x.shape[-1] // 4)
    return _unit(jnp.concatenate(maps, -1), width, train, 'conv', 'norm')


@description.register
class AtrousPyramid(nn.Module):
  """The pyramid of DeepLabV3: convolutions of several dilations, and the mean.

  A 1x1 convolution, a 3x3 convolution for each rate, and a 1x1 convolution of
  the mean of the map, each with batch norm and ReLU, are joined by another 1x1
  convolution, batch norm and ReLU.

  Attributes:
    width: channels of each part and of the output; 0: an eighth of the input's.
    rates: the dilations of the 3x3 convolutions.
  """

  width: int = 0
  rates: tuple[int, ...] = (12, 24, 36)

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    width = self.width or max(1, x.shape[-1] // 8)
    maps = [_unit(x, width, train, 'conv1', 'norm1', kernel=1)]
    for i, rate in enumerate(self.rates, start=2):
      unit = _unit(x, width, train, f'conv{i}', f'norm{i}', dilation=rate)
      maps.append(unit)
    mean = x.mean((1, 2), keepdims=True)
    mean = _unit(mean, width, train, 'mean_conv', 'mean_norm', kernel=1)
    maps.append(jnp.broadcast_to(mean, (*x.shape[:3], width)))
    return _unit(
      jnp.concatenate(maps, -1), width, train, 'conv', 'norm', kernel=1
    )


def _unit(
  x: Array,
  width: int,
  train: bool,
  conv: str,
  norm: str,
  *,
  kernel: int = 3,
  dilation: int = 1,
) -> Array:
  """Applies a convolution, batch norm and ReLU of the calling module."""
  y = layers.conv(width, kernel, dilation=dilation, dtype=x.dtype, name=conv)(x)
  return nn.relu(layers.batch_norm(train, dtype=x.dtype, name=norm)(y))


def _logits(
  x: Array,
  num_classes: int,
  dropout: float,
  train: bool,
  prior: float | None = None,
) -> Array:
  """Applies dropout and the layer 'logits' of the calling module."""
  x = nn.Dropout(dropout)(x, deterministic=not train)
  conv = layers.conv(
    num_classes,
    1,
    use_bias=True,
    initial='fan_out' if prior is None else 'small',
    initial_bias=prior or 0.0,
    name='logits',
  )
  return conv(x.astype(jnp.float32))


def fcn(
  network: Network,
  *,
  num_classes: int,
  width: int = 0,
  dropout: float = 0.1,
  auxiliary: bool = False,
) -> Network:
  """Returns a network for segmentation: a head on the last map of a classifier.

  The logits `[B, h, w, num_classes]` have the resolution of that map, which is
  high enough if the classifier has dilations in place of strides.

  Args:
    network: a classifier that pools its last map. Everything from the pooling
      on is dropped.
    num_classes: the number of classes; 1 for a map of depths.
    width: channels inside the head; 0: a quarter of those of the map.
    dropout: the rate of the dropout in the head.
    auxiliary: whether a second head, 'aux', reads the group before the last
      one; see `tasks.segmentation`.

  Returns:
    A network with the stage 'head' after the groups of `network`.

  Raises:
    UsageError: the network does not pool its last map, or a number is out of
      its range.

  References:
    Long et al., Fully Convolutional Networks for Semantic Segmentation, 2014,
    https://arxiv.org/abs/1411.4038
  """
  _check(num_classes, width, dropout)
  head = FcnHead(num_classes, width, dropout)
  aux = head if auxiliary else None
  return with_heads(network, [Stage('head', head)], aux)


def psp(
  network: Network,
  *,
  num_classes: int,
  width: int = 0,
  sizes: Sequence[int] = (1, 2, 3, 6),
  dropout: float = 0.1,
  auxiliary: bool = False,
  align_corners: bool = False,
) -> Network:
  """Returns a network for segmentation with the pooled pyramid of PSPNet.

  Args:
    network: see `fcn`.
    num_classes: the number of classes; 1 for a map of depths.
    width: channels of the pyramid's output; 0: a quarter of those of the map.
    sizes: into how many parts the pyramid divides a side of the map.
    dropout: the rate of the dropout before the last convolution.
    auxiliary: see `fcn`.
    align_corners: whether the averages are enlarged so that the centres of the
      corner pixels coincide instead of the edges of the maps.

  Returns:
    A network with the stages 'pyramid' and 'head' after the groups of
    `network`.

  Raises:
    UsageError: see `fcn`.

  References:
    Zhao et al., Pyramid Scene Parsing Network, 2016,
    https://arxiv.org/abs/1612.01105
  """
  _check(num_classes, width, dropout)
  sizes = _whole_numbers('sizes', sizes)
  pyramid = PooledPyramid(width, sizes, align_corners)
  return _with_pyramid(network, pyramid, num_classes, dropout, auxiliary)


def deeplab(
  network: Network,
  *,
  num_classes: int,
  width: int = 0,
  rates: Sequence[int] = (12, 24, 36),
  dropout: float = 0.1,
  auxiliary: bool = False,
) -> Network:
  """Returns a network for segmentation with the dilations of DeepLabV3 (ASPP).

  Args:
    network: see `fcn`.
    num_classes: the number of classes; 1 for a map of depths.
    width: channels of the pyramid; 0: an eighth of those of the map.
    rates: the dilations of the pyramid; the default suits maps at 1/8 of the
      resolution of the images, and (6, 12, 18) maps at 1/16.
    dropout: the rate of the dropout before the last convolution.
    auxiliary: see `fcn`.

  Returns:
    A network with the stages 'pyramid' and 'head' after the groups of
    `network`.

  Raises:
    UsageError: see `fcn`.

  References:
    Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation,
    2017, https://arxiv.org/abs/1706.05587
  """
  _check(num_classes, width, dropout)
  pyramid = AtrousPyramid(width, _whole_numbers('rates', rates))
  return _with_pyramid(network, pyramid, num_classes, dropout, auxiliary)


def _check(num_classes: int, width: int, dropout: float) -> None:
  """Checks the arguments that all heads share."""
  checks.integer('num_classes', num_classes)
  checks.integer('width', width, at_least=0)
  checks.number('dropout', dropout, at_least=0, below=1)


def _whole_numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
  return tuple(checks.integer(name, value) for value in values)


def _with_pyramid(
  network: Network,
  pyramid: nn.Module,
  num_classes: int,
  dropout: float,
  auxiliary: bool,
) -> Network:
  """Returns a classifier with a pyramid, and a head that reads it."""
  classifier = PixelClassifier(num_classes, dropout)
  heads = [Stage('pyramid', pyramid), Stage('head', classifier)]
  aux = FcnHead(num_classes, 0, dropout) if auxiliary else None
  return with_heads(network, heads, aux)


def with_heads(
  network: Network, heads: list[Stage], auxiliary: nn.Module | None = None
) -> Network:
  """Returns a classifier whose last map is read by other stages.

  Args:
    network: the classifier.
    heads: the stages, of which each reads the one before it.
    auxiliary: the module of a second head; None: there is none.

  Raises:
    UsageError: the network does not pool its last map.
  """
  maps, groups = maps_of(network)
  if auxiliary is None:
    return Network((*maps.stages, *heads), ('head',))
  aux = Stage('aux', auxiliary, (groups[-2],))
  first = heads[0]._replace(inputs=(groups[-1],))
  return Network((*maps.stages, aux, first, *heads[1:]), ('head', 'aux'))


def maps_of(network: Network) -> tuple[Network, list[str]]:
  """Returns a classifier without its pooling and head, and its groups.

  Args:
    network: the classifier.

  Raises:
    UsageError: the network does not pool its last map.
  """
  is_pool = [isinstance(s.module, layers.Pool) for s in network.stages]
  maps = Network(network.stages[: (*is_pool, True).index(True)])
  groups = list(graph.groups(maps))
  if not any(is_pool) or len(groups) < 2:
    raise UsageError(
      'network: expected a classifier with groups of maps and a stage that '
      f'pools the last one, got {", ".join(graph.stage_names(network))}'
    )
  return maps, groups
