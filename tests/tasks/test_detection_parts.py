"""Anchors, assignment, decoding and suppression, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.losses import boxes as boxes_lib
from jaxdistill.losses import detection as losses
from jaxdistill.networks.surgery import detectors
from jaxdistill.tasks.detection import assignment, suppression

SIZE = 64
CASES = range(6)


def random_boxes(rng, count, *, step=4):
  """Boxes on a coarse grid, so that many overlaps are equal."""
  corner = rng.integers(0, SIZE // step, (count, 2)) * step
  end = corner + rng.integers(0, 6, (count, 2)) * step  # some have no area
  return np.concatenate([corner, end.clip(max=SIZE)], 1).astype(np.float32)


def overlap(box, other):
  height, width = (
    max(0.0, min(box[i + 2], other[i + 2]) - max(box[i], other[i]))
    for i in (0, 1)
  )
  area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
  union = area + other_area - height * width
  return np.float32(height * width) / np.float32(union) if union else 0.0


ANCHORS = np.concatenate(
  [
    detectors.anchors(8, 8, 8, size=16, scales=(1.0,), ratios=(0.5, 1, 2)),
    detectors.anchors(4, 4, 16, size=32, scales=(1.0,), ratios=(1.0,)),
  ]
)


def test_anchors_are_centred_at_their_places_and_have_the_area_of_their_scale():
  found = np.asarray(
    detectors.anchors(2, 3, 8, size=32, scales=(1.0, 1.5), ratios=(0.5, 2.0))
  ).reshape(2, 3, 4, 4)
  for row, column, kind in np.ndindex(2, 3, 4):
    top, left, bottom, right = found[row, column, kind]
    centre = (top + bottom) / 2, (left + right) / 2
    np.testing.assert_allclose(centre, (8 * row + 4, 8 * column + 4), rtol=1e-5)
    height, width = bottom - top, right - left
    assert height * width == pytest.approx(
      (32 * (1.0, 1.5)[kind // 2]) ** 2, rel=1e-5
    )
    assert height / width == pytest.approx((0.5, 2.0)[kind % 2], rel=1e-5)


def test_boxes_are_decoded_from_their_offsets():
  rng = np.random.default_rng(0)
  boxes = random_boxes(rng, len(ANCHORS))
  boxes[:, 2:] += 1
  offsets = boxes_lib.encode(jnp.asarray(boxes), jnp.asarray(ANCHORS))
  np.testing.assert_allclose(
    boxes_lib.decode(offsets, jnp.asarray(ANCHORS)), boxes, atol=1e-4
  )
  shift, growth = np.split(np.asarray(offsets), 2, axis=1)
  sides = ANCHORS[:, 2:] - ANCHORS[:, :2]
  centres = (ANCHORS[:, 2:] + ANCHORS[:, :2]) / 2
  np.testing.assert_allclose(
    shift, ((boxes[:, 2:] + boxes[:, :2]) / 2 - centres) / sides, atol=1e-5
  )
  np.testing.assert_allclose(
    growth, np.log((boxes[:, 2:] - boxes[:, :2]) / sides), atol=1e-5
  )


def test_no_offset_makes_a_box_infinite():
  offsets = jnp.full((1, 4), 1e6)
  found = boxes_lib.decode(offsets, jnp.asarray(ANCHORS[:1]))
  assert np.isfinite(found).all()


def assigned_in_numpy(boxes, is_box):
  table = np.array([[overlap(a, b) for b in boxes] for a in ANCHORS])
  table[:, ~is_box] = 0
  result = np.full(len(ANCHORS), assignment.BACKGROUND)
  for a, row in enumerate(table):
    if row.max() >= 0.5:
      result[a] = row.argmax()
    elif row.max() >= 0.4:
      result[a] = assignment.UNDECIDED
  for a, row in enumerate(table):
    best_for = [
      b
      for b in range(len(boxes))
      if row[b] > table[:, b].max() - 1e-5 and row[b] > 0
    ]
    if best_for:
      result[a] = max(best_for, key=lambda b: (row[b], -b))
  return result


@functools.cache
def assign():
  return jax.jit(assignment.assign)


@pytest.mark.parametrize('seed', CASES)
def test_anchors_are_assigned_as_in_numpy(seed):
  rng = np.random.default_rng(seed)
  boxes = random_boxes(rng, 7)
  boxes[1] = boxes[0]  # two boxes at one place
  boxes[2] = (0, 0, SIZE, 3)  # at the border
  is_box = rng.random(7) < (0.8 if seed else 0.0)  # the first image is empty
  found = assign()(jnp.asarray(ANCHORS), boxes, is_box)
  np.testing.assert_array_equal(found, assigned_in_numpy(boxes, is_box))
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  for b in np.flatnonzero(is_box & (areas > 0)):
    is_equal = (boxes == boxes[b]).all(1) & is_box
    assert {*np.flatnonzero(is_equal)} & {*np.asarray(found)}
  assert not {*np.flatnonzero(areas == 0)} & {*np.asarray(found)}


def test_images_without_room_for_boxes_are_background():
  boxes, is_box = np.zeros((0, 4), np.float32), np.zeros(0, bool)
  found = assignment.assign(jnp.asarray(ANCHORS), boxes, is_box)
  assert (np.asarray(found) == assignment.BACKGROUND).all()
  learned = assignment.targets(found, boxes, np.zeros(0, int), 3)
  assert learned.counts.all() and not learned.classes.any()


def test_anchors_learn_the_class_and_the_box_that_they_are_assigned_to():
  boxes = random_boxes(np.random.default_rng(1), 3)
  assigned = jnp.array([2, assignment.BACKGROUND, assignment.UNDECIDED, 0])
  learned = assignment.targets(assigned, boxes, np.array([1, 0, 2]), 3)
  expected = [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
  np.testing.assert_array_equal(learned.classes, np.array(expected, bool))
  np.testing.assert_array_equal(learned.counts, [True, True, False, True])
  np.testing.assert_array_equal(learned.is_positive, [True, False, False, True])
  np.testing.assert_array_equal(learned.boxes[::3], boxes[[2, 0]])


def suppressed_in_numpy(boxes, scores, classes, count, limit):
  left, kept = list(range(len(boxes))), []
  while left and len(kept) < count:
    best = max(left, key=lambda i: (scores[i], -i))
    if scores[best] == 0:
      break
    kept.append(best)
    left = [
      i
      for i in left
      if i != best
      and (
        classes[i] != classes[best] or overlap(boxes[i], boxes[best]) <= limit
      )
    ]
  return kept


@functools.cache
def suppress():
  return jax.jit(functools.partial(suppression.suppress, count=8))


@pytest.mark.parametrize('seed', CASES)
def test_suppression_keeps_what_numpy_keeps(seed):
  rng = np.random.default_rng(seed)
  boxes = random_boxes(rng, 30)
  scores = np.round(rng.random(30), 1).astype(np.float32)  # many are equal
  if seed < 2:
    scores[:] = 0 if seed == 0 else scores * (np.arange(30) < 3)
  classes = np.where(scores > 0, rng.integers(0, 2, 30), -1).astype(np.int32)
  found = suppress()(suppression.Detections(boxes, scores, classes))
  kept = suppressed_in_numpy(boxes, scores, classes, 8, 0.5)
  rest = 8 - len(kept)
  np.testing.assert_array_equal(
    found.boxes, np.concatenate([boxes[kept], np.zeros((rest, 4))])
  )
  np.testing.assert_array_equal(found.scores, [*scores[kept], *[0] * rest])
  np.testing.assert_array_equal(found.classes, [*classes[kept], *[-1] * rest])


def test_the_best_pairs_of_each_level_are_candidates():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(len(ANCHORS), 3)).astype(np.float32)
  offsets = 0.1 * rng.normal(size=(len(ANCHORS), 4)).astype(np.float32)
  levels = [np.split(x, [192]) for x in (logits, offsets, ANCHORS)]
  found = suppression.candidates(*levels, count=20, least_score=0.7)
  assert len(found.scores) == 40
  for level, part in enumerate((slice(0, 20), slice(20, 40))):
    order = np.argsort(-levels[0][level].reshape(-1), kind='stable')[:20]
    anchor, label = np.divmod(order, 3)
    score = 1 / (1 + np.exp(-levels[0][level][anchor, label]))
    is_kept = score >= 0.7
    np.testing.assert_allclose(
      found.scores[part], np.where(is_kept, score, 0), rtol=1e-5
    )
    np.testing.assert_array_equal(
      found.classes[part], np.where(is_kept, label, -1)
    )
    boxes = boxes_lib.decode(
      *(jnp.asarray(x[level][anchor]) for x in levels[1:])
    )
    np.testing.assert_allclose(found.boxes[part], boxes, rtol=1e-4, atol=1e-4)


def test_boxes_without_an_area_overlap_with_nothing():
  boxes = jnp.asarray([[1.0, 1, 1, 5], [2.0, 2, 2, 2], [5.0, 5, 1, 1]])
  found = losses.box_overlaps(boxes[:, None], boxes[None])
  np.testing.assert_array_equal(found, np.zeros((3, 3)))
