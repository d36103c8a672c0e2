"""RoIAlign: reads maps of one size from boxes of any size."""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import detection as losses


def roi_align(
  maps: Sequence[Array],
  boxes: Array,
  *,
  stride: int,
  canonical: float,
  size: int = 7,
  samples: int = 2,
) -> Array:
  """Returns what maps show inside of boxes, `[N, size, size, C]`.

  A box is divided into `size * size` parts. Each part is the mean of the map's
  values at `samples * samples` points, by bilinear interpolation. A box with
  the area of a square of the side `canonical` is read from the third map, and a
  box of half or twice this side from the map before or after it.

  Args:
    maps: the levels of a pyramid for one image, `[H_l, W_l, C]`.
    boxes: (top, left, bottom, right) in pixels, `[N, 4]`.
    stride: pixels per place of the first map; each map has twice as many.
    canonical: the side of a square box that is read from the third map, in
      pixels.
    size: the number of parts of each side.
    samples: the number of points of a part in each direction.

  References:
    - He et al., Mask R-CNN, 2017, https://arxiv.org/abs/1703.06870
    - Lin et al., Feature Pyramid Networks for Object Detection, 2016,
      https://arxiv.org/abs/1612.03144, Equation 1
  """
  level = _levels(boxes, canonical, len(maps))
  # The maps one after another, so that one gather reads from all of them.
  places = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])
  counts = [x.shape[0] * x.shape[1] for x in maps]
  starts = jnp.array([sum(counts[:i]) for i in range(len(maps))])[level]
  sides = jnp.array([x.shape[:2] for x in maps])[level]
  strides = jnp.array([stride * 2.0**i for i in range(len(maps))])[level]
  points = _points(boxes / strides[:, None], size * samples)
  rows, columns = (_neighbours(points[..., i], sides[:, i]) for i in (0, 1))
  total = jnp.zeros((), places.dtype)
  for row, row_weight in rows:
    for column, column_weight in columns:
      place = row[:, :, None] * sides[:, 1, None, None] + column[:, None]
      weight = row_weight[:, :, None] * column_weight[:, None]
      values = places[starts[:, None, None] + place]
      total += values * weight[..., None].astype(places.dtype)
  parts = total.reshape(len(boxes), size, samples, size, samples, -1)
  return parts.mean((2, 4))


def _levels(boxes: Array, canonical: float, count: int) -> Array:
  """Returns the index of the map from which each box is read, `[N]`."""
  side = jnp.sqrt(losses.box_areas(boxes))
  # The small number keeps boxes of exactly the canonical side at their level.
  level = jnp.floor(2 + jnp.log2(side / canonical + 1e-6))
  return jnp.clip(level, 0, count - 1).astype(jnp.int32)


def _points(boxes: Array, count: int) -> Array:
  """Returns the points of boxes in places of their map, `[N, count, 2]`.

  The centre of the first place is 0.
  """
  fractions = (jnp.arange(count) + 0.5) / count
  corner, end = boxes[:, None, :2], boxes[:, None, 2:]
  return corner + (end - corner) * fractions[None, :, None] - 0.5


def _neighbours(points: Array, sides: Array) -> list[tuple[Array, Array]]:
  """Returns (index, weight) of the places before and after points, `[N, P]`.

  Points beyond the centre of the first or the last place have its value.

  Args:
    points: `[N, P]`.
    sides: the number of places of each box's map, `[N]`.
  """
  last = sides[:, None] - 1
  points = jnp.clip(points, 0, last)
  before = jnp.floor(points).astype(jnp.int32)
  share = points - before
  return [(before, 1 - share), (jnp.minimum(before + 1, last), share)]
