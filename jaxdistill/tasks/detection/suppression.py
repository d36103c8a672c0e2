"""Finds the objects of an image among the scores and boxes of anchors."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import boxes as boxes_lib
from jaxdistill.losses import detection as losses


class Detections(NamedTuple):
  """The objects of one image, those with the highest scores first.

  Attributes:
    boxes: `[D, 4]`.
    scores: in [0, 1], `[D]`; 0 for a row without an object.
    classes: int32 `[D]`; -1 for a row without an object.
  """

  boxes: Array
  scores: Array
  classes: Array


def candidates(
  logits: Sequence[Array],
  offsets: Sequence[Array],
  anchors: Sequence[Array],
  *,
  count: int = 1000,
  least_score: float = 0.05,
) -> Detections:
  """Returns the best pairs of an anchor and a class at each level.

  Args:
    logits: of each level, `[A_l, K]`.
    offsets: of each level, `[A_l, 4]`; see `boxes.encode`.
    anchors: of each level, `[A_l, 4]`.
    count: the largest number of pairs of a level.
    least_score: pairs whose score is lower get the score 0 and the class -1.

  Returns:
    The pairs, level by level; the boxes are not clipped.
  """
  levels = [
    _candidates(*level, count, least_score)
    for level in zip(logits, offsets, anchors)
  ]
  return Detections(*(jnp.concatenate(x) for x in zip(*levels)))


def _candidates(
  logits: Array, offsets: Array, anchors: Array, count: int, least_score: float
) -> Detections:
  num_classes = logits.shape[-1]
  best, place = jax.lax.top_k(logits.reshape(-1), min(count, logits.size))
  anchor = jax.lax.div(place, jnp.full_like(place, num_classes))
  label = place - anchor * num_classes
  scores = jax.nn.sigmoid(best)
  is_kept = scores >= least_score
  return Detections(
    boxes_lib.decode(offsets[anchor], anchors[anchor]),
    jnp.where(is_kept, scores, 0.0),
    jnp.where(is_kept, label, -1).astype(jnp.int32),
  )


def suppress(
  found: Detections, *, count: int = 100, overlap: float = 0.5
) -> Detections:
  """Non-maximum suppression within each class, with fixed shapes.

  The candidate with the highest score is kept, the first of equal ones. All
  others of its class whose intersection over union with it is above `overlap`
  are dropped, and so on.

  Args:
    found: the candidates, `[N, ...]`; a score of 0 stands for none.
    count: the largest number of candidates that are kept.
    overlap: the largest overlap of two candidates that are both kept.

  Returns:
    The detections, `[count, ...]`.
  """

  places = jnp.arange(len(found.scores))

  # This uses masks instead of indices, because converters to other formats do
  # not support a different index for each image inside a loop.
  def keep(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    scores, kept = carry
    best = scores.argmax()
    is_best = places == best
    box = jnp.where(is_best[:, None], found.boxes, 0.0).sum(0, keepdims=True)
    label = jnp.where(is_best, found.classes, 0).sum()
    overlaps = losses.box_overlaps(found.boxes, box)
    is_dropped = (found.classes == label) & (overlaps > overlap) | is_best
    chosen = jnp.where(scores.max() > 0, best, -1)
    kept = jnp.where(jnp.arange(count) == step, chosen, kept)
    return jnp.where(is_dropped, 0.0, scores), kept

  kept = jnp.full(count, -1, jnp.int32)
  _, kept = jax.lax.fori_loop(0, count, keep, (found.scores, kept))
  is_kept, row = kept >= 0, jnp.maximum(kept, 0)
  return Detections(
    jnp.where(is_kept[:, None], found.boxes[row], 0.0),
    jnp.where(is_kept, found.scores[row], 0.0),
    jnp.where(is_kept, found.classes[row], -1),
  )
