"""Segmentation: a class for each pixel, from logits at any resolution."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  IGNORE,
  Array,
  Batch,
  Dataset,
  Metric,
  Metrics,
  Output,
  Task,
)
from jaxdistill.data.sources import labels
from jaxdistill.data.sources.images import LazyImages
from jaxdistill.losses import numerics

SCORES = ('miou', 'pixel_accuracy')
# The number of streamed masks from which notes are made.
_SAMPLE = 256
# The number of masks that are decoded at the same time.
_DECODED = 32
# The name of the output of an auxiliary head.
AUXILIARY = 'aux'


def segmentation(
  *,
  score: str = 'miou',
  auxiliary_weight: float = 0.4,
  align_corners: bool = False,
) -> Task:
  """Returns the task of segmentation, whose target is the column 'mask'.

  The logits `[B, h, w, num_classes]` are resized to the size of the masks,
  bilinear. The loss is the cross-entropy, averaged
  over the pixels of an image whose mask is not `IGNORE`, 255; it is 0 for an
  image without such pixels. A network with the outputs 'head' and 'aux' adds
  the loss of its auxiliary head.

  The metrics are the loss; 'iou/3' and so on, the intersection over union of
  each class that occurs in the masks of the split; their mean 'miou'; and
  'pixel_accuracy'. Whole images are evaluated, of whatever size training sees
  parts. Predictions have the resolution of the logits. An exported file gives
  the logits of the main head at the size of the image,
  `[B, H, W, num_classes]`.

  Args:
    score: the metric that chooses the best epoch, 'miou' or 'pixel_accuracy'.
    auxiliary_weight: the factor on the loss of the auxiliary head.
    align_corners: whether the logits are resized so that the centres of the
      corner pixels coincide instead of the edges of the maps.

  Raises:
    UsageError: there is no such score, or the factor is negative.
  """
  checks.choice('score', score, SCORES)
  checks.weights(auxiliary_weight=auxiliary_weight)

  def resize(logits: Array, size: Sequence[int]) -> Array:
    logits = logits.astype(jnp.float32)
    return numerics.bilinear(logits, size, align_corners=align_corners)

  def enlarged(logits: Array, batch: Batch) -> Array:
    return resize(logits, batch['mask'].shape[1:3])

  def loss(outputs: Output, batch: Batch) -> Array:
    main = _cross_entropy(enlarged(_main(outputs), batch), batch['mask'])
    if not isinstance(outputs, dict) or AUXILIARY not in outputs:
      return main
    auxiliary = enlarged(outputs[AUXILIARY], batch)
    return main + auxiliary_weight * _cross_entropy(auxiliary, batch['mask'])

  def statistics(outputs: Output, batch: Batch) -> dict[str, Array]:
    return _statistics(enlarged(_main(outputs), batch), batch['mask'])

  return Task(
    'segmentation',
    loss,
    statistics,
    _summarize,
    lambda outputs, batch: _progress(statistics(outputs, batch)['confusion']),
    _predict,
    _agreement,
    Metric(score),
    targets=('mask',),
    whole_images=True,
    final=lambda outputs, size: resize(_main(outputs), size),
    check=check_masks,
    notes=_notes,
  )


def check_masks(dataset: Dataset) -> None:
  """Checks that all masks of a data set suit its images and classes.

  The values of streamed masks are checked when they are decoded.

  Args:
    dataset: the data.

  Raises:
    UsageError: a mask has another size than its image, or a value that is
      neither a class nor `IGNORE`, the training masks have fewer than two
      classes, or the data do not say how many classes there are.
  """
  if not dataset.num_classes:
    raise UsageError(
      'data: expected num_classes or label_names, which say how many classes '
      'the masks have, got neither'
    )
  for name, split in dataset.splits.items():
    mask, shape = split['mask'], split['image'].shape[:3]
    if mask.shape != shape or mask.dtype.kind not in 'iu':
      raise UsageError(
        f'mask: expected integers {list(shape)}, one for each pixel of the '
        f'images, in the split {name!r}, got {mask.dtype} {list(mask.shape)}'
      )
    if isinstance(mask, LazyImages):
      continue
    is_wrong = (mask < 0) | (mask >= dataset.num_classes)
    wrong = mask[is_wrong & (mask != IGNORE)]
    if wrong.size:
      raise UsageError(
        f'mask: expected classes from 0 to {dataset.num_classes - 1}, or '
        f'{IGNORE} for pixels without a class, in the split {name!r}, got '
        f'{wrong.min()}'
      )
    if name == 'train':
      _check_classes(mask, dataset.num_classes)


def _check_classes(masks: np.ndarray, num_classes: int) -> None:
  """Raises UsageError if training masks have fewer than two classes."""
  present = _present(masks, num_classes)
  if len(present) < 2:
    got = f'only the class {present[0]}' if len(present) else 'none'
    raise UsageError(
      "mask: expected pixels of at least two classes in the split 'train', got "
      f'{got}; pixels with {IGNORE} have no class, unless {IGNORE} is in '
      "data.values of 'mask_folder'"
    )


def _notes(dataset: Dataset) -> tuple[str, ...]:
  """Says which classes do not occur in the training masks.

  If masks are streamed, only some of them are read.
  """
  mask, which = dataset.splits['train']['mask'], 'the training masks'
  if isinstance(mask, LazyImages) and len(mask) > _SAMPLE:
    mask = mask.select(np.linspace(0, len(mask) - 1, _SAMPLE).astype(int))
    which = f'{_SAMPLE} of {which}'
  present = _present(mask, dataset.num_classes)
  missing = labels.missing(present, dataset.num_classes, dataset.label_names)
  if not missing:
    return ()
  return (
    f'data: {which} have no pixel of {missing}; pixels with {IGNORE} have no '
    'class',
  )


def _present(masks: np.ndarray | LazyImages, num_classes: int) -> np.ndarray:
  """Returns the classes that occur in masks, in ascending order."""
  is_present = np.zeros(max(num_classes, IGNORE + 1), bool)
  # All of them at once, as 64-bit indices, would need much memory.
  for start in range(0, len(masks), _DECODED):
    for mask in masks[start : start + _DECODED]:
      is_present[mask] = True
  is_present[IGNORE] = False
  return np.flatnonzero(is_present)


def _main(outputs: Output) -> Array:
  """Returns the logits of the main head."""
  if isinstance(outputs, dict):
    names = [name for name in outputs if name != AUXILIARY]
    if len(names) != 1:
      raise UsageError(
        f'segmentation: expected one output besides {AUXILIARY!r}, got '
        f'{", ".join(outputs)}'
      )
    outputs = outputs[names[0]]
  if outputs.ndim != 4:
    raise UsageError(
      'segmentation: expected a network whose output is a map [B, h, w, '
      f"num_classes], such as 'fcn', got {list(outputs.shape)}"
    )
  return outputs


def _cross_entropy(logits: Array, mask: Array) -> Array:
  """Returns the mean over the pixels of each image that have a class, `[B]`."""
  counts = (mask != IGNORE).astype(jnp.float32)
  label = jnp.where(mask != IGNORE, mask, 0).astype(jnp.int32)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  total = (losses * counts).sum((1, 2))
  return total / jnp.maximum(counts.sum((1, 2)), 1.0)


def _statistics(logits: Array, mask: Array) -> dict[str, Array]:
  """Returns statistics of images, from logits of the size of the masks."""
  num_classes = logits.shape[-1]

  def confusion(mask: Array, predicted: Array) -> Array:
    """Counts pixels by (class, predicted class); ignored ones are dropped."""
    place = jnp.where(
      mask == IGNORE, num_classes**2, mask * num_classes + predicted
    )
    counts = jnp.zeros(num_classes**2, jnp.int32)
    counts = counts.at[place.reshape(-1)].add(1, mode='drop')
    return counts.reshape(num_classes, num_classes)

  return {
    'loss': _cross_entropy(logits, mask),
    'confusion': jax.vmap(confusion)(mask.astype(jnp.int32), logits.argmax(-1)),
  }


def _summarize(statistics: dict[str, np.ndarray]) -> dict[str, float]:
  confusion = statistics['confusion'].sum(0, dtype=np.int64)
  present = np.flatnonzero(confusion.sum(1))
  correct = confusion.diagonal()
  union = confusion.sum(0) + confusion.sum(1) - correct
  iou = {f'iou/{i}': float(correct[i] / union[i]) for i in present}
  return {
    'loss': float(np.mean(statistics['loss'], dtype=np.float64)),
    'miou': float(np.mean([*iou.values()])) if iou else 0.0,
    'pixel_accuracy': float(correct.sum() / max(confusion.sum(), 1)),
    **iou,
  }


def _progress(confusion: Array) -> Metrics:
  """Returns metrics of a batch from its confusion counts `[B, K, K]`."""
  confusion = confusion.sum(0)
  correct = confusion.diagonal().astype(jnp.float32)
  true = confusion.sum(1)
  union = (confusion.sum(0) + true).astype(jnp.float32) - correct
  present = true > 0
  iou = jnp.where(present, correct / jnp.maximum(union, 1.0), 0.0)
  return {
    'miou': iou.sum() / jnp.maximum(present.sum(), 1),
    'pixel_accuracy': correct.sum() / jnp.maximum(true.sum(), 1),
  }


def _predict(outputs: Output, batch: Batch) -> Array:
  del batch
  return _main(outputs).argmax(-1).astype(jnp.uint8)


def _agreement(student: np.ndarray, teacher: np.ndarray) -> float:
  """Returns the fraction of places with equal predictions."""
  return float(np.mean(student == teacher))
