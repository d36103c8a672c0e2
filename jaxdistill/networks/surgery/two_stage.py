"""Two-stage detectors: they propose regions, and then classify each region."""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import proposals, roi_align
from jaxdistill.networks.surgery import dense_heads, detectors

# The levels of the pyramid. RoIAlign reads from all of them but the last.
LEVELS = (2, 3, 4, 5, 6)
# The side of a proposal that is read from p4, as a multiple of the side of the
# finest anchors. In the paper, these are 224 and 32 pixels.
_CANONICAL = 7.0


@description.register
class Subsampled(nn.Module):
  """Every second row and column of a map."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return x[:, ::2, ::2]


@description.register
class RegionHead(nn.Module):
  """Region proposal network: one score and one box for each anchor.

  Attributes:
    width: channels of the 3x3 convolution, which all levels share.
    stride: pixels per place of the first level; each level has twice as many.
    ratios: the heights of the anchors divided by their widths.
    size: the side of a square anchor, in places.
  """

  width: int
  stride: int = 4
  ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  size: float = 8.0

  @nn.compact
  def __call__(self, *maps: Array, train: bool) -> dict[str, Array]:
    del train
    count = len(self.ratios)

    def conv(features: int, kernel: int, dtype: object, name: str) -> nn.Module:
      return layers.conv(
        features,
        kernel,
        use_bias=True,
        initial='small',
        dtype=dtype,
        name=name,
      )

    hidden = conv(self.width, 3, maps[0].dtype, 'conv')
    scores = conv(count, 1, jnp.float32, 'scores')
    boxes = conv(4 * count, 1, jnp.float32, 'boxes')
    read = [nn.relu(hidden(x)).astype(jnp.float32) for x in maps]
    batch = maps[0].shape[0]
    return {
      '': jnp.concatenate([scores(x).reshape(batch, -1) for x in read], 1),
      '.boxes': jnp.concatenate(
        [boxes(x).reshape(batch, -1, 4) for x in read], 1
      ),
      **detectors.level_anchors(
        maps, LEVELS, self.stride, self.size, (1.0,), self.ratios
      ),
    }


@description.register
class Proposals(nn.Module):
  """The proposals of each image, followed in training by the true boxes.

  No gradient flows through this stage.

  Attributes:
    count: the number of proposals.
    candidates: the number of anchors that are tried at each level.
    overlap: the largest overlap of two proposals of a level.
  """

  count: int = 1000
  candidates: int = 1000
  overlap: float = 0.7

  @nn.compact
  def __call__(
    self,
    logits: Array,
    offsets: Array,
    *anchors_and_true_boxes: Array,
    train: bool,
  ) -> dict[str, Array]:
    del train
    anchors = anchors_and_true_boxes[: len(LEVELS)]
    true_boxes = anchors_and_true_boxes[len(LEVELS) :]
    ends = [sum(x.shape[1] for x in anchors[:i]) for i in range(1, len(LEVELS))]
    propose = functools.partial(
      proposals.propose,
      count=self.count,
      candidates=self.candidates,
      overlap=self.overlap,
    )
    logits, offsets = jax.lax.stop_gradient((logits, offsets))
    boxes = jax.vmap(propose)(
      jnp.split(logits, ends, axis=1), jnp.split(offsets, ends, axis=1), anchors
    )
    batch = boxes.shape[0]
    draw = jnp.zeros((batch,), jnp.uint32)
    if self.has_rng('dropout'):
      draw = jax.random.bits(self.make_rng('dropout'), (batch,), jnp.uint32)
    return {'': jnp.concatenate([boxes, *true_boxes], axis=1), '.draw': draw}


@description.register
class RegionMaps(nn.Module):
  """What the levels of the pyramid show in each proposal, by RoIAlign.

  Attributes:
    stride: pixels per place of the first level; each level has twice as many.
    canonical: see `roi_align.roi_align`.
    size: the height and width of the maps.
  """

  stride: int
  canonical: float
  size: int = 7

  @nn.compact
  def __call__(self, boxes: Array, *maps: Array, train: bool) -> Array:
    del train
    align = functools.partial(
      roi_align.roi_align,
      stride=self.stride,
      canonical=self.canonical,
      size=self.size,
    )
    regions: Array = jax.vmap(align)(maps, boxes)
    return regions


@description.register
class BoxHead(nn.Module):
  """Two linear layers with ReLU, then a score and a box for each class.

  Attributes:
    num_classes: the number of classes, K; the background is one more.
    width: the number of outputs of the first two layers.
  """

  num_classes: int
  width: int = 1024

  @nn.compact
  def __call__(self, regions: Array, train: bool) -> dict[str, Array]:
    del train
    x = regions.reshape(*regions.shape[:2], -1)

    def linear(
      x: Array, features: int, initial: nn.initializers.Initializer, name: str
    ) -> Array:
      y: Array = nn.Dense(
        features, dtype=x.dtype, kernel_init=initial, name=name
      )(x)
      return y

    for i in (1, 2):
      initial = layers.KERNELS['lecun']
      x = nn.relu(linear(x, self.width, initial, f'hidden{i}'))
    x = x.astype(jnp.float32)
    normal = nn.initializers.normal
    boxes = linear(x, 4 * self.num_classes, normal(0.001), 'boxes')
    return {
      '': linear(x, self.num_classes + 1, normal(0.01), 'classes'),
      '.boxes': boxes.reshape(*boxes.shape[:2], self.num_classes, 4),
    }


def faster_rcnn(
  network: Network,
  *,
  num_classes: int,
  width: int = 256,
  head_width: int = 1024,
  ratios: Sequence[float] = (0.5, 1.0, 2.0),
  size: float = 8.0,
  count: int = 1000,
  candidates: int = 1000,
  overlap: float = 0.7,
) -> Network:
  """Returns a two-stage detector: Faster R-CNN with a feature pyramid.

  C2 to C5 are the last four groups of the classifier. P2 to P5 are made of them
  as in `retinanet`, and P6 is every second row and column of P5. The region
  proposal network gives each anchor of these five maps a score and a box. The
  best of these boxes are the proposals, see `layers.proposals.propose`. For
  each proposal, RoIAlign reads a map of 7x7 places from one of P2 to P5, and
  the head computes a class and a box from this map.

  A square proposal is read from P4 if its side is 7 times that of the finest
  anchors, and from the level before or after it for half or twice this side.
  With the default anchors, whose side is 32 pixels at P2, this is the usual
  side of 224 pixels.

  In training, the stage 'proposals' appends the true boxes of the image to the
  proposals if the task gives them as 'true_boxes', see
  `tasks.two_stage_detection`. The head computes its outputs for all of them;
  the loss then chooses those that count.

  Args:
    network: a classifier that pools its last map, such as a ResNet. Everything
      from the pooling on is dropped.
    num_classes: the number of classes; the background is not one of them.
    width: channels of the pyramid and of the region proposal network.
    head_width: the width of the two hidden layers of the head.
    ratios: the heights of the anchors divided by their widths.
    size: the side of a square anchor, in places of its map.
    count: the number of proposals, N.
    candidates: the number of anchors of each level from which proposals are
      chosen.
    overlap: the largest intersection over union of two proposals of a level.

  Returns:
    A network with the stages 'lateral5' to 'lateral2', 'p2' to 'p6', 'rpn',
    'proposals', 'regions' and 'head' after the groups of `network`. Its outputs
    are 'head', logits `[B, N, num_classes + 1]` of which the last one is the
    background; 'head.boxes' `[B, N, num_classes, 4]`; 'rpn' `[B, A]`, the
    logits of all anchors, level by level; 'rpn.boxes' `[B, A, 4]`;
    'rpn.anchors2' to 'rpn.anchors6', the anchors of each level; 'proposals'
    `[B, N, 4]`, with zeros in rows without a proposal; and 'proposals.draw'
    `[B]`, random numbers that training draws anew in each step.

  Raises:
    UsageError: the network does not pool its last map, its last four groups do
      not halve the resolution, or a number is out of its range.

  References:
    - Ren et al., Faster R-CNN, 2015, https://arxiv.org/abs/1506.01497
    - Lin et al., Feature Pyramid Networks for Object Detection, 2016,
      https://arxiv.org/abs/1612.03144
  """
  for name, value in {
    'num_classes': num_classes,
    'width': width,
    'head_width': head_width,
    'count': count,
    'candidates': candidates,
  }.items():
    checks.integer(name, value)
  ratios = detectors.positive_numbers('ratios', ratios)
  size = float(checks.number('size', size, above=0))
  checks.number('overlap', overlap, at_least=0, at_most=1)
  maps, groups = dense_heads.maps_of(network)
  stride = detectors.stride_of(maps, groups[-4:], 4)
  levels = tuple(f'p{k}' for k in LEVELS)
  anchor_names = tuple(f'rpn.anchors{k}' for k in LEVELS)
  rpn = ('rpn', 'rpn.boxes', *anchor_names)
  stages = (
    *_pyramid(groups[-4:], width),
    Stage('rpn', RegionHead(width, stride, ratios, size), levels),
    Stage(
      'proposals',
      Proposals(count, candidates, float(overlap)),
      rpn,
      optional=('true_boxes',),
    ),
    Stage(
      'regions',
      RegionMaps(stride, _CANONICAL * size * stride),
      ('proposals', *levels[:-1]),
    ),
    Stage('head', BoxHead(num_classes, head_width)),
  )
  outputs = ('head', 'head.boxes', *rpn, 'proposals', 'proposals.draw')
  return Network((*maps.stages, *stages), outputs)


def _pyramid(groups: Sequence[str], width: int) -> tuple[Stage, ...]:
  """Returns the stages 'lateral5' to 'lateral2' and 'p2' to 'p6'."""
  lateral, level = detectors.Lateral(width), detectors.Level(width)
  *lower, top = zip(LEVELS, groups)
  above = [
    Stage(f'lateral{k}', lateral, (group, f'lateral{k + 1}'))
    for k, group in reversed(lower)
  ]
  return (
    Stage('lateral5', lateral, (top[1],)),
    *above,
    *(Stage(f'p{k}', level, (f'lateral{k}',)) for k in LEVELS[:-1]),
    Stage('p6', Subsampled()),
  )
