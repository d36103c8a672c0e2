"""Proposals: the boxes of an image that may hold an object of any class."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import boxes as boxes_lib
from jaxdistill.losses import detection as losses


def propose(
  logits: Sequence[Array],
  offsets: Sequence[Array],
  anchors: Sequence[Array],
  *,
  count: int,
  candidates: int,
  overlap: float,
) -> Array:
  """Returns the most promising boxes of one image, the best ones first.

  At each level, the anchors with the highest scores are decoded to boxes and
  clipped to the area that the finest map covers, which may be a few pixels
  larger than the image. Boxes without an area are dropped, and non-maximum
  suppression drops boxes that overlap too much with a better one of their
  level. The best boxes of all levels are the proposals.

  Args:
    logits: the scores of each level's anchors, `[A_l]`.
    offsets: the offsets of each level, `[A_l, 4]`; see `losses.boxes.encode`.
    anchors: the anchors of each level, `[A_l, 4]`.
    count: the largest number of proposals.
    candidates: the largest number of anchors of a level.
    overlap: the largest intersection over union of two proposals of a level.

  Returns:
    `[P, 4]`, where P is `count`, or less if all levels together have fewer
    candidates. Rows without a proposal are zeros.
  """
  size = boxes_lib.covered(anchors[0])
  found = []
  for scores, *level in zip(logits, offsets, anchors):
    scores, rows = jax.lax.top_k(scores, min(candidates, len(scores)))
    boxes = boxes_lib.clip(boxes_lib.decode(*(x[rows] for x in level)), size)
    is_kept = kept(boxes, losses.box_areas(boxes) > 0, overlap=overlap)
    found.append((boxes, jnp.where(is_kept, scores, -jnp.inf)))
  boxes, scores = (jnp.concatenate(x) for x in zip(*found))
  best, rows = jax.lax.top_k(scores, min(count, len(scores)))
  return jnp.where((best > -jnp.inf)[:, None], boxes[rows], 0.0)


def kept(boxes: Array, is_box: Array, *, overlap: float) -> Array:
  """Returns which boxes non-maximum suppression keeps, booleans `[N]`.

  A box is kept unless it overlaps too much with a kept box before it. Each
  round of the loop decides this for all boxes from the answers of the last
  round. Each round makes at least one more answer final, and usually many.

  Args:
    boxes: `[N, 4]`, the best ones first.
    is_box: which rows are boxes, `[N]`; the others are not kept.
    overlap: the largest intersection over union of two boxes that are kept.
  """
  overlaps = losses.box_overlaps(boxes[:, None], boxes[None]) > overlap
  is_earlier = jnp.tri(len(boxes), k=-1, dtype=bool)

  # Integers, because some runtimes of exported files do not know a choice
  # between booleans, which a loop over several images needs.
  def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
    before, _ = state
    is_dropped = (overlaps & is_earlier & (before > 0)[None]).any(1)
    after = (is_box & ~is_dropped).astype(jnp.int32)
    return after, jnp.abs(after - before).max()

  start = is_box.astype(jnp.int32)
  is_kept, _ = jax.lax.while_loop(
    lambda state: state[1] > 0, again, (start, jnp.int32(1))
  )
  return is_kept > 0
