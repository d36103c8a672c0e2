"""Which anchors of an image learn which of its boxes."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import detection as losses

# Overlaps that differ by less are taken as equal, because of rounding.
_ROUNDING = 1e-5
# Numbers in place of that of a box, for anchors without one.
BACKGROUND, UNDECIDED = -1, -2


def assign(
  anchors: Array,
  boxes: Array,
  is_box: Array,
  *,
  positive: float = 0.5,
  negative: float = 0.4,
  every_box: bool = True,
) -> Array:
  """Returns the box that each anchor learns, int32 `[A]`.

  An anchor gets the box with which it overlaps most if their intersection over
  union is at least `positive`. If it is below `negative`, the anchor is
  `BACKGROUND`, and in between it is `UNDECIDED`. With `every_box`, each box
  gets the anchors with which it overlaps most, however little that is. If an
  anchor is the best of several boxes, it goes to the box with the largest
  overlap, and to the first of equal ones.

  Args:
    anchors: `[A, 4]`.
    boxes: the boxes of one image, `[M, 4]`.
    is_box: whether each row of `boxes` is a box, `[M]`; a box without an area
      gets no anchor.
    positive: the smallest overlap at which an anchor gets a box.
    negative: the overlap below which an anchor is background; at most
      `positive`.
    every_box: whether each box gets an anchor, even if the overlap is less.
  """
  if not boxes.shape[0]:
    return jnp.full(anchors.shape[0], BACKGROUND, jnp.int32)
  overlaps = losses.box_overlaps(anchors[:, None], boxes[None])
  overlaps = jnp.where(is_box[None], overlaps, 0.0)
  largest = overlaps.max(1)
  rest = jnp.where(largest < negative, BACKGROUND, UNDECIDED)
  chosen = jnp.where(largest >= positive, overlaps.argmax(1), rest)
  if not every_box:
    return chosen.astype(jnp.int32)
  best = overlaps.max(0)
  is_best = (overlaps > best[None] - _ROUNDING) & (overlaps > 0)
  claims = jnp.where(is_best, overlaps, 0.0)
  claimed = jnp.where(claims.max(1) > 0, claims.argmax(1), chosen)
  return claimed.astype(jnp.int32)


class Targets(NamedTuple):
  """What the anchors of an image learn.

  Attributes:
    classes: the class of each anchor, one-hot, booleans `[A, K]`; all False for
      the background.
    counts: whether the class loss of an anchor counts, booleans `[A]`.
    is_positive: whether an anchor has a box, booleans `[A]`.
    boxes: the boxes of these anchors, `[A, 4]`; arbitrary for the others.
  """

  classes: Array
  counts: Array
  is_positive: Array
  boxes: Array


def targets(
  assigned: Array, boxes: Array, classes: Array, num_classes: int
) -> Targets:
  """Returns what anchors learn.

  Args:
    assigned: see `assign`, `[A]`.
    boxes: `[M, 4]`.
    classes: the class of each box, `[M]`.
    num_classes: the number of classes, K.
  """
  is_positive = assigned >= 0
  if not boxes.shape[0]:
    nothing = jnp.zeros((len(assigned), 4), boxes.dtype)
    one_hot = jnp.zeros((len(assigned), num_classes), bool)
    return Targets(one_hot, ~is_positive, is_positive, nothing)
  row = jnp.maximum(assigned, 0)
  label = jnp.where(is_positive, classes[row], -1)
  one_hot = label[:, None] == jnp.arange(num_classes)[None]
  return Targets(one_hot, assigned != UNDECIDED, is_positive, boxes[row])
