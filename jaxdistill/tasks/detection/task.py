"""Detection: the boxes and classes of the objects in an image."""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Batch,
  Metric,
  Metrics,
  Output,
  Task,
)
from jaxdistill.losses import boxes as boxes_lib
from jaxdistill.losses import detection as losses
from jaxdistill.losses import numerics
from jaxdistill.tasks.detection import (
  assignment,
  average_precision,
  checking,
  pycoco,
  suppression,
)

SCORES = ('ap', 'ap50', 'ap75')
BOX_LOSSES = ('smooth_l1', 'giou')
EVALUATORS = {
  'jaxdistill': average_precision.average_precisions,
  'pycocotools': pycoco.average_precisions,
}
# Smooth L1 is quadratic below this offset, as in Detectron.
_BETA = 1 / 9
# The names of what an exported file of a detector gives.
_FINAL = {*suppression.Detections._fields}
# The names of a detector's outputs; those of its anchors only begin like this.
_HEAD, _BOXES, _ANCHORS = 'head', 'head.boxes', 'head.anchors'


def detection(
  *,
  score: str = 'ap',
  box_loss: str = 'smooth_l1',
  box_weight: float = 1.0,
  least_score: float = 0.05,
  overlap: float = 0.5,
  evaluator: str = 'jaxdistill',
) -> Task:
  """Returns the task of detection, with the targets 'boxes' and 'classes'.

  The data have the columns 'boxes', float32 `[N, M, 4]`, which are (top, left,
  bottom, right) in pixels, and 'classes', int32 `[N, M]`, where -1 stands for
  no box. Four columns are optional. 'crowd', booleans `[N, M]`, says that a
  box holds many objects; it is not learned and need not be found. 'scale',
  `[N]`, is the factor by which each image was enlarged. 'areas', float32
  `[N, M]`, are the areas of the objects before that, which decide whether they
  are small, medium or large. 'extent', float32 `[N, 2]`, is the height and
  width of the part of each image that is not padding; it begins at the top
  left. Without it, this is the whole image.

  The network is a detector such as `networks.retinanet`. The loss of an image
  is the sum of `losses.focal_loss` over its anchors and classes, plus the loss
  of the boxes, both divided by the number of anchors that have a box; see
  `assignment.assign`. Boxes are predicted relative to anchors; see
  `boxes.encode`. At each level of the detector, the 1,000 best pairs of
  an anchor and a class are decoded. Non-maximum suppression within the classes
  then leaves at most 100 objects. Their boxes are clipped to the image, without
  its padding.

  The metrics are the loss, its parts 'class_loss' and 'box_loss', and the
  average precisions of COCO, see `average_precision.average_precisions`. Whole
  images are evaluated. Predictions are `[B, 100, 6]`: a box, its score and its
  class, which is -1 in a row without an object. The agreement of two models is
  the fraction of their objects that the other finds too. An exported file gives
  'boxes' `[B, 100, 4]`, 'scores' `[B, 100]` and 'classes' `[B, 100]`.

  Args:
    score: the metric that chooses the best epoch, 'ap', 'ap50' or 'ap75'.
    box_loss: 'smooth_l1', of the offsets and linear above 1/9, or 'giou', which
      is `losses.generalized_iou_loss` of the boxes.
    box_weight: the factor on the loss of the boxes.
    least_score: objects with a lower score are dropped.
    overlap: if the intersection over union of two objects of a class is larger,
      the one with the lower score is dropped.
    evaluator: what computes the average precisions, 'jaxdistill' or
      'pycocotools', which is COCO's own code (extra `detection`). Both give the
      same numbers.

  Raises:
    UsageError: there is no such score, loss or evaluator, a number is out of
      its range, or pycocotools is not installed.
  """
  checks.choice('score', score, SCORES)
  checks.choice('box_loss', box_loss, BOX_LOSSES)
  checks.weights(box_weight=box_weight)
  checks.number('least_score', least_score, at_least=0, below=1)
  checks.number('overlap', overlap, at_least=0, at_most=1)
  parts_of_loss = functools.partial(_losses, box_loss, box_weight)
  detect = functools.partial(_detect, least_score, overlap)
  return assembled('detection', parts_of_loss, detect, score, evaluator)


def assembled(
  name: str,
  parts_of_loss: Callable[[Output, Batch], dict[str, Array]],
  detect: Callable[..., suppression.Detections],
  score: str,
  evaluator: str,
) -> Task:
  """Returns the task of a kind of detector.

  Args:
    name: the name of the task.
    parts_of_loss: (outputs, batch) -> the 'loss' of each image and its parts,
      whose names end with 'loss', `[B]`.
    detect: (outputs, size) -> the objects of each image, `[B, 100, ...]`, with
      boxes that are clipped to this height and width, `[2]` or `[B, 2]`.
    score: the metric that chooses the best epoch.
    evaluator: what computes the average precisions.

  Raises:
    UsageError: there is no such evaluator, or its package is not installed.
  """
  checks.choice('evaluator', evaluator, EVALUATORS)
  if evaluator == 'pycocotools':
    pycoco.require(f"{name} with evaluator='pycocotools'")

  def predict(outputs: Output, batch: Batch) -> Array:
    if isinstance(outputs, Mapping) and outputs.keys() == _FINAL:
      return _joined(suppression.Detections(**outputs))
    size = jnp.array(batch['image'].shape[1:3], jnp.float32)
    return _joined(detect(outputs, batch.get('extent', size)))

  def statistics(outputs: Output, batch: Batch) -> dict[str, Array]:
    return {
      **parts_of_loss(outputs, batch),
      'detections': predict(outputs, batch),
      **_truth(batch),
    }

  def progress(outputs: Output, batch: Batch) -> Metrics:
    rows = parts_of_loss(outputs, batch)
    return {k: v.mean() for k, v in rows.items() if k != 'loss'}

  def final(outputs: Output, size: Sequence[int]) -> Output:
    return detect(outputs, jnp.array(size, jnp.float32))._asdict()

  return Task(
    name,
    lambda outputs, batch: parts_of_loss(outputs, batch)['loss'],
    statistics,
    functools.partial(_summarize, EVALUATORS[evaluator]),
    progress,
    predict,
    _agreement,
    Metric(score),
    targets=('boxes', 'classes'),
    class_scores=False,
    whole_images=True,
    final=final,
    check=checking.check_boxes,
    notes=checking.notes,
  )


class _Parts(NamedTuple):
  """The outputs of a detector for a batch.

  Attributes:
    logits: `[B, A, K]`.
    offsets: `[B, A, 4]`.
    anchors: of each level, `[B, A_l, 4]`.
  """

  logits: Array
  offsets: Array
  anchors: tuple[Array, ...]


def _parts(outputs: Output) -> _Parts:
  names = sorted(outputs) if isinstance(outputs, Mapping) else []
  anchors = [name for name in names if name.startswith(_ANCHORS)]
  if not anchors or _HEAD not in names or _BOXES not in names:
    got = ', '.join(names) if names else 'a single output'
    if 'proposals' in names:
      got += "; the task 'two_stage_detection' suits it"
    raise UsageError(
      f'detection: expected a network with the outputs {_HEAD!r}, {_BOXES!r}, '
      f"{_ANCHORS + '3'!r} and so on, such as 'retinanet', got {got}"
    )
  assert isinstance(outputs, Mapping)
  return _Parts(
    outputs[_HEAD].astype(jnp.float32),
    outputs[_BOXES].astype(jnp.float32),
    tuple(outputs[name] for name in anchors),
  )


def _losses(
  box_loss: str, box_weight: float, outputs: Output, batch: Batch
) -> dict[str, Array]:
  """Returns the loss of each image and its two parts, `[B]`."""
  parts = _parts(outputs)
  is_box = batch['classes'] >= 0
  if 'crowd' in batch:
    is_box &= ~batch['crowd'].astype(bool)

  def of_image(
    logits: Array,
    offsets: Array,
    anchors: tuple[Array, ...],
    boxes: Array,
    classes: Array,
    is_box: Array,
  ) -> dict[str, Array]:
    all_anchors = jnp.concatenate(anchors)
    assigned = assignment.assign(all_anchors, boxes, is_box)
    learned = assignment.targets(assigned, boxes, classes, logits.shape[-1])
    count = jnp.maximum(learned.is_positive.sum(), 1)
    focal = losses.focal_loss(logits, learned.classes).sum(-1)
    class_loss = jnp.where(learned.counts, focal, 0.0).sum() / count
    # Anchors without a box get themselves as targets, so that nothing is NaN.
    true = jnp.where(learned.is_positive[:, None], learned.boxes, all_anchors)
    if box_loss == 'giou':
      decoded = boxes_lib.decode(offsets, all_anchors)
      distance = losses.generalized_iou_loss(decoded, true)
    else:
      error = offsets - boxes_lib.encode(true, all_anchors)
      distance = _BETA * numerics.huber(error / _BETA).sum(-1)
    positive = jnp.where(learned.is_positive, distance, 0.0)
    part = positive.sum() / count
    loss = class_loss + box_weight * part
    return {'loss': loss, 'class_loss': class_loss, 'box_loss': part}

  rows: dict[str, Array] = jax.vmap(of_image)(
    *parts, batch['boxes'], batch['classes'], is_box
  )
  return rows


def _detect(
  least_score: float,
  overlap: float,
  outputs: Output,
  size: Array,
) -> suppression.Detections:
  """Returns the objects that are found in each image, `[B, 100, ...]`.

  Args:
    least_score: see `detection`.
    overlap: see `detection`.
    outputs: the outputs of a detector.
    size: the height and width to which boxes are clipped, of all images `[2]`
      or of each image `[B, 2]`.
  """
  parts = _parts(outputs)
  ends = np.cumsum([x.shape[1] for x in parts.anchors])[:-1].tolist()

  def of_image(
    size: Array, logits: Array, offsets: Array, anchors: tuple[Array, ...]
  ) -> suppression.Detections:
    found = suppression.candidates(
      jnp.split(logits, ends),
      jnp.split(offsets, ends),
      anchors,
      least_score=least_score,
    )
    found = found._replace(boxes=boxes_lib.clip(found.boxes, size))
    return suppression.suppress(found, overlap=overlap)

  axes = (None if size.ndim == 1 else 0, *(0 for _ in parts))
  return jax.vmap(of_image, axes)(size, *parts)


def _joined(found: suppression.Detections) -> Array:
  """Returns (box, score, class) of each object, `[B, D, 6]`."""
  columns = [found.scores, found.classes.astype(jnp.float32)]
  return jnp.concatenate([found.boxes, jnp.stack(columns, axis=-1)], axis=-1)


def _truth(batch: Batch) -> dict[str, Array]:
  """Returns the true objects of each image, with the optional columns."""
  boxes, classes = batch['boxes'].astype(jnp.float32), batch['classes']
  scale = batch.get('scale', jnp.ones(len(boxes), jnp.float32))
  areas = losses.box_areas(boxes) / scale[:, None] ** 2
  return {
    'boxes': boxes,
    'classes': classes,
    'crowd': batch.get('crowd', jnp.zeros(classes.shape, bool)).astype(bool),
    'areas': batch.get('areas', areas),
    'scale': scale,
  }


def _summarize(
  average_precisions: Callable[..., dict[str, float]],
  statistics: dict[str, Any],
) -> dict[str, float]:
  images = (
    (
      average_precision.Found(rows[:, :4], rows[:, 4], rows[:, 5].astype(int)),
      average_precision.Truth(*truth),
    )
    for rows, *truth in zip(
      *(
        statistics[key]
        for key in (
          *('detections', 'boxes', 'classes', 'crowd', 'areas', 'scale'),
        )
      )
    )
  )
  means = {
    key: float(np.mean(statistics[key], dtype=np.float64))
    for key in statistics
    if key.endswith('loss')
  }
  return {**means, **average_precisions(images)}


def _agreement(student: np.ndarray, teacher: np.ndarray) -> float:
  """Returns the fraction of objects that the other model finds too.

  An object is found if the other model has an object of the same class with an
  intersection over union of at least 0.5. Each object is matched at most once.
  If there are no objects at all, the agreement is 1.
  """
  shared = total = 0
  for student_rows, teacher_rows in zip(student, teacher):
    student_rows, teacher_rows = (
      rows[rows[:, 5] >= 0] for rows in (student_rows, teacher_rows)
    )
    overlap = average_precision.overlaps(
      student_rows[:, :4],
      teacher_rows[:, :4],
      np.zeros(len(teacher_rows), bool),
    )
    overlap = np.where(
      student_rows[:, None, 5] == teacher_rows[None, :, 5], overlap, 0.0
    )
    total += len(student_rows) + len(teacher_rows)
    for row in overlap:
      if len(row) and row.max() >= 0.5:
        overlap[:, row.argmax()] = 0.0
        shared += 2
  return shared / total if total else 1.0
