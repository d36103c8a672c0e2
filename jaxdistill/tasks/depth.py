"""Depth: the distance of each pixel, from a map at any resolution."""

import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Batch, Dataset, Metric, Metrics, Task
from jaxdistill.tasks.segmentation import resize

SCORE = Metric('rmse', higher=False, percent=False)


def depth() -> Task:
  """Returns the task of depth, whose target is the column 'depth'.

  The output `[B, h, w, 1]` is resized to the size of the depths `[B, H, W]`,
  bilinear. Pixels whose depth is 0 are unknown and
  do not count. The loss is the mean absolute error of an image; it is 0 for an
  image without known pixels.

  The metrics are means over the images: the loss, the root mean squared error
  'rmse', which chooses the best epoch and is better if it is lower, the mean
  relative error 'abs_rel', and 'delta1', the fraction of pixels whose ratio to
  the true depth is below 1.25 in either direction. Whole images are evaluated.
  """
  return Task(
    'depth',
    lambda outputs, batch: _statistics(outputs, batch)['loss'],
    _statistics,
    _summarize,
    _progress,
    lambda outputs: outputs[..., 0].astype(jnp.float16),
    _agreement,
    SCORE,
    targets=('depth',),
    class_scores=False,
    whole_images=True,
    check=check_depths,
  )


def check_depths(dataset: Dataset) -> None:
  """Checks that all depths of a data set suit its images.

  Args:
    dataset: the data.

  Raises:
    UsageError: the depths of a split have another size than the images, are
      not all finite and at least 0, or are all 0.
  """
  for name, split in dataset.splits.items():
    depth, shape = split['depth'], split['image'].shape[:3]
    if depth.shape != shape or depth.dtype.kind != 'f':
      raise UsageError(
        f'depth: expected floats {list(shape)}, one for each pixel of the '
        f'images, in the split {name!r}, got {depth.dtype} {list(depth.shape)}'
      )
    low, high = float(depth.min()), float(depth.max())
    if not (low >= 0 and 0 < high < np.inf):
      raise UsageError(
        'depth: expected finite distances, or 0 where they are unknown, in the '
        f'split {name!r}, got {low:g} to {high:g}'
      )


def _statistics(outputs: Array, batch: Batch) -> dict[str, Array]:
  true = batch['depth'].astype(jnp.float32)
  maps = resize(outputs.astype(jnp.float32), true.shape[1:3])[..., 0]
  known = true > 0
  count = jnp.maximum(known.sum((1, 2)), 1)
  # The division by the depth must be finite where it is unknown.
  safe = jnp.where(known, true, 1.0)
  error = jnp.abs(maps - true)

  def mean(x: Array) -> Array:
    return jnp.where(known, x, 0.0).sum((1, 2)) / count

  ratio = jnp.maximum(maps / safe, safe / jnp.maximum(maps, 1e-6))
  return {
    'loss': mean(error),
    'rmse': jnp.sqrt(mean(error**2)),
    'abs_rel': mean(error / safe),
    'delta1': mean((ratio < 1.25).astype(jnp.float32)),
  }


def _summarize(statistics: dict[str, np.ndarray]) -> dict[str, float]:
  return {k: float(np.mean(v, dtype=np.float64)) for k, v in statistics.items()}


def _progress(outputs: Array, batch: Batch) -> Metrics:
  statistics = _statistics(outputs, batch)
  return {SCORE.name: statistics[SCORE.name].mean()}


def _agreement(student: np.ndarray, teacher: np.ndarray) -> float:
  """Returns the fraction of places whose ratio is below 1.25."""
  student, teacher = (
    np.maximum(np.asarray(x, np.float32), 1e-6) for x in (student, teacher)
  )
  ratio = np.maximum(student / teacher, teacher / student)
  return float(np.mean(ratio < 1.25))
