"""Average precision of detections, as COCO defines it, in NumPy.

It gives the numbers of `COCOeval` in pycocotools. Boxes are
(top, left, bottom, right) in pixels.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_LARGEST = 1e5**2
# Name of a range of sizes -> the smallest and the largest area in pixels.
RANGES = {
  '': (0.0, _LARGEST),
  '_small': (0.0, 32.0**2),
  '_medium': (32.0**2, 96.0**2),
  '_large': (96.0**2, _LARGEST),
}


class Found(NamedTuple):
  """The detections of one image, those with the highest scores first.

  Attributes:
    boxes: `[D, 4]`.
    scores: `[D]`.
    classes: `[D]`; -1 for a row without an object.
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray


class Truth(NamedTuple):
  """The objects of one image.

  Attributes:
    boxes: `[M, 4]`.
    classes: `[M]`; -1 for a row without an object.
    crowd: whether a box holds many objects, booleans `[M]`. It need not be
      found, and detections inside it do not count, however many they are.
    areas: the areas by which objects are small, medium or large, `[M]`.
    scale: by how much the image was enlarged after the areas were measured.
  """

  boxes: np.ndarray
  classes: np.ndarray
  crowd: np.ndarray
  areas: np.ndarray
  scale: float


class _Matches(NamedTuple):
  """How the detections of one class in one image match.

  Attributes:
    scores: `[D]`.
    is_true: whether each has an object, `[R, T, D]` for the ranges of sizes and
      the thresholds of overlap.
    counts: whether each detection counts, `[R, T, D]`.
    objects: the number of objects that count, `[R]`.
  """

  scores: np.ndarray
  is_true: np.ndarray
  counts: np.ndarray
  objects: np.ndarray


def average_precisions(
  images: Iterator[tuple[Found, Truth]],
) -> dict[str, float]:
  """Returns the average precisions of a split, fractions in [0, 1].

  Args:
    images: the detections and the objects of each image.

  Returns:
    'ap', the mean over the classes that occur and over the overlaps 0.5 to 0.95
    in steps of 0.05; 'ap50' and 'ap75', for one overlap; and 'ap_small',
    'ap_medium' and 'ap_large', for objects of up to 32 * 32 pixels, up to
    96 * 96, and above, if the split has such objects. Without any objects, the
    first three are 0. 'ap/3' and so on are like 'ap', for each class that
    occurs.
  """
  by_class: dict[int, list[_Matches]] = defaultdict(list)
  for found, truth in images:
    present = {*found.classes.tolist(), *truth.classes.tolist()} - {-1}
    for label in present:
      by_class[label].append(_matches(found, truth, label))
  labels = sorted(by_class)
  classes = [_precisions(by_class[label]) for label in labels]
  # For classes without objects, all entries are NaN.
  table = np.array(classes).reshape(-1, len(RANGES), len(THRESHOLDS))
  metrics = {}
  for i, name in enumerate(RANGES):
    known = table[~np.isnan(table[:, i, 0]), i]
    if len(known):
      metrics[f'ap{name}'] = float(known.mean())
    if not name:
      zero = np.zeros((1, len(THRESHOLDS)))
      all_sizes = known if len(known) else zero
      metrics['ap'] = float(all_sizes.mean())
      metrics['ap50'] = float(all_sizes[:, 0].mean())
      metrics['ap75'] = float(all_sizes[:, 5].mean())
  by_label = zip(labels, table[:, 0].mean(-1).tolist(), strict=True)
  return metrics | {f'ap/{k}': ap for k, ap in by_label if not np.isnan(ap)}


def overlaps(
  boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
  """Returns the intersection over union of boxes, `[D, M]`.

  Args:
    boxes: `[D, 4]`.
    others: `[M, 4]`.
    crowd: `[M]`; where it is true, the intersection is divided by the area of
      the box of `boxes` alone.
  """
  corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
  end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
  shared = np.prod(np.maximum(end - corner, 0.0), axis=-1)
  area, other_area = areas(boxes)[:, None], areas(others)[None]
  union = np.where(crowd[None], area, area + other_area - shared)
  return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def areas(boxes: np.ndarray) -> np.ndarray:
  """Returns the areas of boxes `[..., 4]`."""
  return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def _matches(found: Found, truth: Truth, label: int) -> _Matches:
  """Matches the detections of a class with the objects of an image.

  In the order of their scores, each detection chooses the object with the
  largest overlap among those that are left. It chooses an object that does not
  count only if there is no other.
  """
  rows, columns = found.classes == label, truth.classes == label
  boxes, crowd = found.boxes[rows].astype(np.float64), truth.crowd[columns]
  overlap = overlaps(boxes, truth.boxes[columns].astype(np.float64), crowd)
  ranges = np.array(list(RANGES.values()))[:, :, None]

  def outside(area: np.ndarray) -> np.ndarray:
    return (area < ranges[:, 0]) | (area > ranges[:, 1])

  ignored = outside(truth.areas[columns]) | crowd
  taken = np.zeros((len(RANGES), len(THRESHOLDS), len(crowd)), bool)
  is_true = np.zeros((*taken.shape[:2], len(boxes)), bool)
  counts = np.repeat(
    ~outside(areas(boxes) / truth.scale**2)[:, None], len(THRESHOLDS), 1
  )
  least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
  for d in range(len(boxes) if len(crowd) else 0):
    fits = (~taken | crowd) & (overlap[d] >= least)
    preferred = fits & ~ignored[:, None]
    fits = np.where(preferred.any(-1, keepdims=True), preferred, fits)
    # Of objects with equal overlaps, the last one is chosen.
    value = np.where(fits, overlap[d], -1.0)[..., ::-1]
    choice = len(crowd) - 1 - value.argmax(-1)[..., None]
    is_true[..., d] = fits.any(-1)
    is_ignored = np.take_along_axis(
      np.broadcast_to(ignored[:, None], fits.shape), choice, -1
    )[..., 0]
    counts[..., d] = np.where(is_true[..., d], ~is_ignored, counts[..., d])
    chosen = np.arange(len(crowd)) == choice
    taken |= chosen & is_true[..., d, None]
  return _Matches(found.scores[rows], is_true, counts, (~ignored).sum(-1))


def _precisions(matches: list[_Matches]) -> np.ndarray:
  """Returns the average precisions of a class, `[R, T]`; NaN: no objects."""
  order = np.argsort(
    -np.concatenate([m.scores for m in matches]), kind='stable'
  )
  is_true, counts = (
    np.concatenate([getattr(m, name) for m in matches], axis=-1)[..., order]
    for name in ('is_true', 'counts')
  )
  objects = np.sum([m.objects for m in matches], axis=0)
  hits = np.cumsum(is_true & counts, axis=-1, dtype=np.float64)
  misses = np.cumsum(~is_true & counts, axis=-1, dtype=np.float64)
  precision = hits / np.maximum(hits + misses, np.spacing(1))
  # The best precision at this recall or a higher one.
  precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
  result = np.full(is_true.shape[:2], np.nan)
  for r, t in np.ndindex(*result.shape):
    if objects[r]:
      place = np.searchsorted(hits[r, t] / objects[r], RECALLS, side='left')
      reached = np.append(precision[r, t], 0.0)
      result[r, t] = reached[np.minimum(place, len(reached) - 1)].mean()
  return result
