"""Detectors: a pyramid of maps on a classifier, and a head that reads it."""

from collections.abc import Sequence
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, graph, layers
from jaxdistill.networks.surgery import dense_heads

# The side of a square image by which the strides of a network are measured.
_SIDE = 256
# The levels of the pyramid. With an ordinary stem, a place of the map of level
# k stands for 2**k pixels of each side.
LEVELS = (3, 4, 5, 6, 7)


def anchors(
  height: int,
  width: int,
  stride: int,
  *,
  size: float,
  scales: Sequence[float],
  ratios: Sequence[float],
) -> Array:
  """Returns the anchors of a map, (top, left, bottom, right) in pixels.

  Every place of the map has one anchor for each scale and ratio, centred at the
  place. Its area is (size * scale)**2.

  Args:
    height: the height of the map in places.
    width: the width of the map in places.
    stride: pixels per place.
    size: the side of a square anchor of scale 1, in pixels.
    scales: factors on the size.
    ratios: heights divided by widths.

  Returns:
    `[height * width * A, 4]`, place by place, row by row; A is the number of
    pairs of a scale and a ratio. Of these, the ratio changes fastest.
  """
  halves = jnp.array(
    [
      (size * scale * math.sqrt(ratio) / 2, size * scale / math.sqrt(ratio) / 2)
      for scale in scales
      for ratio in ratios
    ]
  )
  rows, columns = ((jnp.arange(n) + 0.5) * stride for n in (height, width))
  centres = jnp.stack(jnp.meshgrid(rows, columns, indexing='ij'), axis=-1)
  centres, halves = centres[:, :, None], halves[None, None]
  boxes = jnp.concatenate([centres - halves, centres + halves], axis=-1)
  return boxes.reshape(-1, 4)


@description.register
class Lateral(nn.Module):
  """A 1x1 convolution, plus the map of the next higher level, enlarged.

  Attributes:
    width: channels of the output.
  """

  width: int

  @nn.compact
  def __call__(self, x: Array, *above: Array, train: bool) -> Array:
    del train
    x = _conv(self.width, 1, x.dtype, 'lecun', 'conv')(x)
    for y in above:
      twice = y.repeat(2, axis=1).repeat(2, axis=2)
      x = x + twice[:, : x.shape[1], : x.shape[2]]
    return x


@description.register
class Level(nn.Module):
  """A 3x3 convolution with a bias.

  Attributes:
    width: channels of the output.
    stride: the stride of the convolution.
    activated: whether a ReLU comes before it.
  """

  width: int
  stride: int = 1
  activated: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = nn.relu(x) if self.activated else x
    conv = layers.conv(
      self.width,
      stride=self.stride,
      use_bias=True,
      initial='lecun',
      dtype=x.dtype,
      name='conv',
    )
    return conv(x)


@description.register
class AnchorHead(nn.Module):
  """Scores and boxes for the anchors of all levels, by shared convolutions.

  Attributes:
    num_classes: the number of classes, K.
    width: channels of the convolutions.
    depth: the number of 3x3 convolutions with ReLU, for classes and for boxes.
    stride: pixels per place of the first level; each level has twice as many.
    scales: the scales of the anchors.
    ratios: their heights divided by their widths.
    size: the side of an anchor of scale 1, in places.
    prior: the probability that a new network gives to each class.
  """

  num_classes: int
  width: int = 256
  depth: int = 4
  stride: int = 8
  scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
  ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  size: float = 4.0
  prior: float = 0.01

  @nn.compact
  def __call__(self, *maps: Array, train: bool) -> dict[str, Array]:
    del train
    per_place = len(self.scales) * len(self.ratios)
    dtype, batch = maps[0].dtype, maps[0].shape[0]

    def subnet(kind: str, outputs: int, use_bias: bool) -> list[nn.Module]:
      return [
        *(
          _conv(self.width, 3, dtype, 'small', f'{kind}{i}')
          for i in range(1, self.depth + 1)
        ),
        _conv(outputs, 3, 'float32', 'small', kind, use_bias),
      ]

    def of_levels(convs: list[nn.Module], length: int) -> Array:
      *hidden, last = convs
      rows = []
      for x in maps:
        for conv in hidden:
          x = nn.relu(conv(x))
        y = last(x.astype(jnp.float32))
        rows.append(y.reshape(batch, -1, length))
      return jnp.concatenate(rows, axis=1)

    classes = subnet('classes', per_place * self.num_classes, False)
    boxes = subnet('boxes', per_place * 4, True)
    bias = nn.initializers.constant(-math.log((1 - self.prior) / self.prior))
    prior = self.param('prior', bias, (per_place, self.num_classes))
    logits = of_levels(classes, self.num_classes)
    logits += jnp.tile(prior, (logits.shape[1] // per_place, 1))[None]
    return {
      '': logits,
      '.boxes': of_levels(boxes, 4),
      **level_anchors(
        maps, LEVELS, self.stride, self.size, self.scales, self.ratios
      ),
    }


def level_anchors(
  maps: Sequence[Array],
  levels: Sequence[int],
  stride: int,
  size: float,
  scales: Sequence[float],
  ratios: Sequence[float],
) -> dict[str, Array]:
  """Returns the anchors of each level, '.anchors3' `[B, A_l, 4]` and so on.

  Args:
    maps: the map of each level.
    levels: the numbers of the levels.
    stride: pixels per place of the first level; each level has twice as many.
    size: the side of an anchor of scale 1, in places.
    scales: the scales of the anchors.
    ratios: their heights divided by their widths.
  """
  named = {}
  for i, (level, x) in enumerate(zip(levels, maps)):
    batch, height, width, _ = x.shape
    pixels = stride * 2**i
    boxes = anchors(
      height, width, pixels, size=size * pixels, scales=scales, ratios=ratios
    )
    named[f'.anchors{level}'] = jnp.broadcast_to(boxes, (batch, *boxes.shape))
  return named


def _conv(
  features: int,
  kernel: int,
  dtype: object,
  initial: str,
  name: str,
  use_bias: bool = True,
) -> nn.Module:
  return layers.conv(
    features,
    kernel,
    use_bias=use_bias,
    initial=initial,
    dtype=dtype,
    name=name,
  )


def retinanet(
  network: Network,
  *,
  num_classes: int,
  width: int = 256,
  depth: int = 4,
  scales: Sequence[float] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
  ratios: Sequence[float] = (0.5, 1.0, 2.0),
  size: float = 4.0,
  prior: float = 0.01,
) -> Network:
  """Returns a detector: a classifier with a feature pyramid and a shared head.

  C3 to C5 are the last three groups of the classifier. A 1x1 convolution is
  applied to each of them, the enlarged result of the next higher level is
  added, and a 3x3 convolution then gives P3 to P5. P6 is a 3x3 convolution of
  C5 with stride 2, and P7 is another one of P6 after a ReLU. Every place of the
  five maps has one anchor for each scale and ratio; see `detectors.anchors`.

  Args:
    network: a classifier that pools its last map, such as a ResNet. Everything
      from the pooling on is dropped.
    num_classes: the number of classes; the background is not one of them.
    width: channels of the pyramid and of the head.
    depth: the number of hidden convolutions of the head, for classes and for
      boxes.
    scales: the scales of the anchors.
    ratios: their heights divided by their widths.
    size: the side of an anchor of scale 1, in places of its map.
    prior: the probability that a new network gives to each class.

  Returns:
    A network with the stages 'lateral5', 'lateral4', 'lateral3', 'p3' to 'p7'
    and 'head' after the groups of `network`. Its outputs are 'head', the
    logits `[B, A, num_classes]` of all anchors, level by level; 'head.boxes'
    `[B, A, 4]`, see `tasks.detection`; and 'head.anchors3' to 'head.anchors7',
    the anchors of each level.

  Raises:
    UsageError: the network does not pool its last map, its last three groups
      do not halve the resolution, or a number is out of its range.

  References:
    - Lin et al., Feature Pyramid Networks for Object Detection, 2016,
      https://arxiv.org/abs/1612.03144
    - Lin et al., Focal Loss for Dense Object Detection, 2017,
      https://arxiv.org/abs/1708.02002
  """
  checks.integer('num_classes', num_classes)
  checks.integer('width', width)
  checks.integer('depth', depth, at_least=0)
  scales = positive_numbers('scales', scales)
  ratios = positive_numbers('ratios', ratios)
  checks.number('size', size, above=0)
  checks.number('prior', prior, above=0, below=1)
  maps, groups = dense_heads.maps_of(network)
  stride = stride_of(maps, groups[-3:])
  third, fourth, fifth = groups[-3:]
  head = AnchorHead(
    num_classes,
    width,
    depth,
    stride,
    scales,
    ratios,
    float(size),
    float(prior),
  )
  stages = (
    Stage('lateral5', Lateral(width), (fifth,)),
    Stage('lateral4', Lateral(width), (fourth, 'lateral5')),
    Stage('lateral3', Lateral(width), (third, 'lateral4')),
    *(Stage(f'p{k}', Level(width), (f'lateral{k}',)) for k in (3, 4, 5)),
    Stage('p6', Level(width, 2), (fifth,)),
    Stage('p7', Level(width, 2, True), ('p6',)),
    Stage('head', head, tuple(f'p{k}' for k in LEVELS)),
  )
  anchor_names = tuple(f'head.anchors{k}' for k in LEVELS)
  outputs = ('head', 'head.boxes', *anchor_names)
  return Network((*maps.stages, *stages), outputs)


def positive_numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
  """Returns the scales or ratios of anchors, after checking them.

  Args:
    name: the name of the argument, for messages.
    values: its value.

  Raises:
    UsageError: there is none, or one of them is not above 0.
  """
  if not values:
    raise UsageError(f'{name}: expected at least one number above 0, got none')
  return tuple(checks.number(name, value, above=0) for value in values)


def stride_of(maps: Network, groups: Sequence[str], count: int = 3) -> int:
  """Returns the stride of the first of some groups, in pixels per place.

  Args:
    maps: the network without its pooling and head.
    groups: the last groups of the network.
    count: how many groups the pyramid needs.

  Raises:
    UsageError: there are fewer groups, or one of them does not halve the
      resolution.
  """
  image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)  # type: ignore[no-untyped-call,unused-ignore]
  shapes = graph.shapes(maps, {'image': image})
  sides = [shapes[group].shape[1] for group in groups]
  if sides != [sides[-1] << k for k in reversed(range(count))]:
    raise UsageError(
      f'network: expected a classifier whose last {count} groups each halve '
      f'the resolution, got maps of the sides {", ".join(map(str, sides))} for '
      f'images of {_SIDE}'
    )
  return _SIDE // sides[0]
