"""The task of two-stage detectors, such as Faster R-CNN."""

from collections.abc import Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Batch, Features, Output, Task
from jaxdistill.losses import boxes as boxes_lib
from jaxdistill.losses import detection as losses
from jaxdistill.losses import numerics
from jaxdistill.tasks.detection import assignment, sampling, suppression
from jaxdistill.tasks.detection.task import SCORES, assembled

# Offsets of regions are divided by these units, so that their variance is about
# 1. Offsets of anchors are not divided.
_UNITS = (0.1, 0.1, 0.2, 0.2)
# Smooth L1 is quadratic below this offset, for anchors and for regions.
_BETAS = (1 / 9, 1.0)
_NAMES = ('head', 'head.boxes', 'rpn', 'rpn.boxes', 'proposals')
_ANCHORS, _DRAW = 'rpn.anchors', 'proposals.draw'


def two_stage_detection(
  *,
  score: str = 'ap',
  anchor_samples: int = 256,
  region_samples: int = 512,
  least_score: float = 0.05,
  overlap: float = 0.5,
  evaluator: str = 'jaxdistill',
) -> Task:
  """Returns the task of detection for networks such as `faster_rcnn`.

  The data, the metrics of COCO, the predictions and the exported file are those
  of `detection`. The loss of an image has four parts, with equal weights:

  - 'rpn_class_loss': the binary cross-entropy of `anchor_samples` random
    anchors, of which at most half are positive. An anchor is positive if its
    overlap with a box is at least 0.7, or the largest of all anchors with this
    box. It is negative if all its overlaps are below 0.3.
  - 'rpn_box_loss': smooth L1 of the offsets of the positives, linear above 1/9.
  - 'class_loss': the cross-entropy of `region_samples` random regions, of which
    at most a quarter are positive. Regions are the proposals of the network
    and, in training, the true boxes. A region is positive if its overlap with a
    box is at least 0.5, and negative otherwise.
  - 'box_loss': smooth L1 of the offsets for the class of each positive, linear
    above 1. Shifts are first divided by 0.1, and logarithms of sizes by 0.2.

  Each part is divided by the number of anchors or regions that were drawn. The
  network's output 'proposals.draw' decides which ones are drawn: other ones in
  each step of training, and always the same in evaluation. In contrast to the
  usual implementation, the head of the network runs on all regions, not only on
  those that are drawn. The loss is the same.

  Args:
    score: the metric that chooses the best epoch, 'ap', 'ap50' or 'ap75'.
    anchor_samples: the largest number of anchors of an image that count.
    region_samples: the largest number of regions of an image that count.
    least_score: objects with a lower score are dropped.
    overlap: if the intersection over union of two objects of a class is larger,
      the one with the lower score is dropped.
    evaluator: see `detection`.

  Raises:
    UsageError: there is no such score or evaluator, a number is out of its
      range, or pycocotools is not installed.

  References:
    - Ren et al., Faster R-CNN, 2015, https://arxiv.org/abs/1506.01497
    - Girshick, Fast R-CNN, 2015, https://arxiv.org/abs/1504.08083
  """
  checks.choice('score', score, SCORES)
  checks.integer('anchor_samples', anchor_samples, at_least=2)
  checks.integer('region_samples', region_samples, at_least=4)
  checks.number('least_score', least_score, at_least=0, below=1)
  checks.number('overlap', overlap, at_least=0, at_most=1)
  parts_of_loss = functools.partial(_losses, anchor_samples, region_samples)
  detect = functools.partial(_detect, least_score, overlap)
  name = 'two_stage_detection'
  task = assembled(name, parts_of_loss, detect, score, evaluator)
  return task._replace(inputs=_inputs)


def _inputs(batch: Batch) -> Features:
  """Returns the images and the boxes to learn; other rows are 0."""
  is_box = _is_learned(batch)
  boxes = jnp.where(is_box[..., None], batch['boxes'].astype(jnp.float32), 0.0)
  return {'image': batch['image'], 'true_boxes': boxes}


def _is_learned(batch: Batch) -> Array:
  """Returns which rows hold a box that is not a crowd, `[B, M]`."""
  is_box = batch['classes'] >= 0
  if 'crowd' in batch:
    is_box &= ~batch['crowd'].astype(bool)
  return is_box


class _Parts(NamedTuple):
  """The outputs of a detector for a batch.

  Attributes:
    logits: of the regions, `[B, N, K + 1]`.
    offsets: `[B, N, K, 4]`.
    rpn_logits: of the anchors, `[B, A]`.
    rpn_offsets: `[B, A, 4]`.
    regions: `[B, N, 4]`.
    draw: `[B]`.
    anchors: of each level, `[B, A_l, 4]`.
  """

  logits: Array
  offsets: Array
  rpn_logits: Array
  rpn_offsets: Array
  regions: Array
  draw: Array
  anchors: tuple[Array, ...]


def _parts(outputs: Output) -> _Parts:
  names = sorted(outputs) if isinstance(outputs, Mapping) else []
  anchors = [name for name in names if name.startswith(_ANCHORS)]
  if not anchors or not {*_NAMES, _DRAW} <= {*names}:
    got = ', '.join(names) if names else 'a single output'
    if 'head.anchors3' in names:
      got += "; the task 'detection' suits it"
    raise UsageError(
      f'two_stage_detection: expected a network with the outputs '
      f"{', '.join(_NAMES)} and so on, such as 'faster_rcnn', got {got}"
    )
  assert isinstance(outputs, Mapping)
  logits, offsets, rpn_logits, rpn_offsets, regions = (
    outputs[name].astype(jnp.float32) for name in _NAMES
  )
  return _Parts(
    logits,
    offsets,
    rpn_logits,
    rpn_offsets,
    regions,
    outputs[_DRAW],
    tuple(outputs[name] for name in anchors),
  )


def _losses(
  anchor_samples: int, region_samples: int, outputs: Output, batch: Batch
) -> dict[str, Array]:
  """Returns the loss of each image and its four parts, `[B]`."""

  def of_image(
    parts: _Parts, boxes: Array, classes: Array, is_box: Array
  ) -> dict[str, Array]:
    keys = jax.random.split(jax.random.key(parts.draw))
    losses_of_both = {
      **_anchor_losses(keys[0], anchor_samples, parts, boxes, is_box),
      **_region_losses(keys[1], region_samples, parts, boxes, classes, is_box),
    }
    total = sum(losses_of_both.values(), jnp.zeros(()))
    return {'loss': total, **losses_of_both}

  rows: dict[str, Array] = jax.vmap(of_image)(
    _parts(outputs), batch['boxes'], batch['classes'], _is_learned(batch)
  )
  return rows


def _anchor_losses(
  rng: Array, count: int, parts: _Parts, boxes: Array, is_box: Array
) -> dict[str, Array]:
  """Returns the two losses of an image's anchors, `[]`."""
  anchors = jnp.concatenate(parts.anchors)
  assigned = assignment.assign(
    anchors, boxes, is_box, positive=0.7, negative=0.3
  )
  one_class = jnp.zeros(len(boxes), jnp.int32)
  learned = assignment.targets(assigned, boxes, one_class, 1)
  is_drawn = sampling.sample(
    rng,
    learned.is_positive,
    learned.counts & ~learned.is_positive,
    count=count,
    share=0.5,
  )
  towards_truth = jnp.where(
    learned.is_positive, parts.rpn_logits, -parts.rpn_logits
  )
  # Anchors without a box get themselves as targets, so that nothing is NaN.
  true = jnp.where(learned.is_positive[:, None], learned.boxes, anchors)
  error = parts.rpn_offsets - boxes_lib.encode(true, anchors)
  distance = _smooth_l1(error, _BETAS[0])
  return {
    'rpn_class_loss': _mean(jax.nn.softplus(-towards_truth), is_drawn),
    'rpn_box_loss': _mean(
      jnp.where(learned.is_positive, distance, 0.0), is_drawn
    ),
  }


def _region_losses(
  rng: Array,
  count: int,
  parts: _Parts,
  boxes: Array,
  classes: Array,
  is_box: Array,
) -> dict[str, Array]:
  """Returns the two losses of an image's regions, `[]`."""
  regions, is_region = _regions(parts)
  assigned = assignment.assign(
    regions, boxes, is_box, positive=0.5, negative=0.5, every_box=False
  )
  learned = assignment.targets(
    assigned, boxes, classes, parts.offsets.shape[-2]
  )
  is_drawn = sampling.sample(
    rng,
    is_region & learned.is_positive,
    is_region & ~learned.is_positive,
    count=count,
    share=0.25,
  )
  background = ~learned.is_positive[:, None]
  answers = jnp.concatenate([learned.classes, background], axis=-1)
  log_p = jax.nn.log_softmax(parts.logits)
  true = jnp.where(learned.is_positive[:, None], learned.boxes, regions)
  target = boxes_lib.encode(true, regions) / jnp.array([_UNITS])
  # Only the offsets for the true class count.
  error = jnp.where(
    learned.classes[..., None], parts.offsets - target[:, None], 0.0
  )
  return {
    'class_loss': _mean(-jnp.where(answers, log_p, 0.0).sum(-1), is_drawn),
    'box_loss': _mean(_smooth_l1(error, _BETAS[1]).sum(-1), is_drawn),
  }


def _regions(parts: _Parts) -> tuple[Array, Array]:
  """Returns (regions `[N, 4]`, which rows hold one `[N]`) of an image.

  The other rows get an arbitrary box with an area, so that nothing is NaN.
  """
  is_region = losses.box_areas(parts.regions) > 0
  unit = jnp.array([(0.0, 0.0, 1.0, 1.0)])
  return jnp.where(is_region[:, None], parts.regions, unit), is_region


def _smooth_l1(error: Array, beta: float) -> Array:
  return beta * numerics.huber(error / beta).sum(-1)


def _mean(values: Array, is_drawn: Array) -> Array:
  """Returns the mean over the rows that are drawn; 0 if there are none."""
  total = jnp.where(is_drawn, values, 0.0).sum()
  return total / jnp.maximum(is_drawn.sum(), 1)


def _detect(
  least_score: float,
  overlap: float,
  outputs: Output,
  size: Array,
) -> suppression.Detections:
  """Returns the objects that are found in each image; see `task.assembled`."""

  def of_image(size: Array, parts: _Parts) -> suppression.Detections:
    regions, is_region = _regions(parts)
    num_classes = parts.offsets.shape[-2]
    scores = jax.nn.softmax(parts.logits)[:, :num_classes]
    is_kept = is_region[:, None] & (scores >= least_score)
    offsets = parts.offsets * jnp.array([[_UNITS]])
    boxes = boxes_lib.decode(offsets, regions[:, None])
    boxes = boxes_lib.clip(boxes, size)
    # A product, because the converter to ONNX repeats two constants, between
    # which each image chooses, for a wrong number of images.
    numbers = jnp.arange(1, num_classes + 1)[None]
    classes = is_kept.astype(jnp.int32) * numbers - 1
    found = suppression.Detections(
      boxes.reshape(-1, 4),
      jnp.where(is_kept, scores, 0.0).reshape(-1),
      classes.reshape(-1),
    )
    return suppression.suppress(found, overlap=overlap)

  axes = (None if size.ndim == 1 else 0, 0)
  return jax.vmap(of_image, axes)(size, _parts(outputs))
