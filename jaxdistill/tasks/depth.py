"""Depth: the distance of each pixel, from a map at any resolution."""

from collections.abc import Callable
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Batch, Dataset, Metric, Metrics, Task
from jaxdistill.data.sources.images import LazyImages
from jaxdistill.losses import numerics

SCORE = Metric('rmse', higher=False, percent=False)
# The logarithm continues as its tangent below this depth, so that outputs that
# are not positive have a loss and a gradient.
_SHALLOW = 0.1


def depth(*, loss: str = 'l1', samples: int = 0) -> Task:
  """Returns the task of depth, whose target is the column 'depth'.

  The output `[B, h, w, 1]` is resized to the size of the depths `[B, H, W]`,
  bilinear. Pixels whose depth is 0 are unknown and do not count. The loss is 0
  for an image without known pixels.

  The metrics are means over the images: the loss, the root mean squared error
  'rmse', which chooses the best epoch and is better if it is lower, the mean
  relative error 'abs_rel', and 'delta1', the fraction of pixels whose ratio to
  the true depth is below 1.25 in either direction. Whole images are evaluated.
  An exported file gives the depths at the size of the image, `[B, H, W, 1]`.

  Args:
    loss: the loss of an image, with the error e of a pixel. 'l1': the mean of
      |e|. 'berhu': the mean of |e| where it is at most c, a fifth of the
      largest |e| of the image, and of (e**2 + c**2) / (2 c) elsewhere. 'log':
      mean(d**2) - mean(d)**2 / 2, with the difference d of the logarithms, so
      that an error in the scale of the whole image counts half.
    samples: the number of known depths that networks see, at random places of
      the image. They are one more channel of the image, which is 0 elsewhere.
      If an image has fewer known depths, networks see all of them. In
      evaluation, the places depend only on the image's number in its split.

  Raises:
    UsageError: there is no such loss, or `samples` is not a whole number of at
      least 0.

  References:
    - Laina et al., Deeper Depth Prediction with Fully Convolutional Residual
      Networks, 2016, https://arxiv.org/abs/1606.00373, for 'berhu'
    - Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale
      Deep Network, 2014, https://arxiv.org/abs/1406.2283, for 'log'
    - Ma and Karaman, Sparse-to-Dense: Depth Prediction from Sparse Depth
      Samples and a Single Image, 2018, https://arxiv.org/abs/1709.07492, for
      `samples`
  """
  checks.choice('loss', loss, _LOSSES)
  checks.integer('samples', samples, at_least=0)
  statistics = functools.partial(_statistics, _LOSSES[loss])
  return Task(
    'depth',
    lambda outputs, batch: statistics(outputs, batch)['loss'],
    statistics,
    _summarize,
    _progress,
    lambda outputs, batch: outputs[..., 0].astype(jnp.float16),
    _agreement,
    SCORE,
    targets=('depth',),
    class_scores=False,
    whole_images=True,
    final=numerics.bilinear,
    check=check_depths,
    prepare=functools.partial(_with_samples, samples) if samples else None,
    num_outputs=1,
  )


def check_depths(dataset: Dataset) -> None:
  """Checks that all depths of a data set suit its images.

  The values of streamed depths are checked when they are read.

  Args:
    dataset: the data.

  Raises:
    UsageError: the depths of a split have another size than the images, are
      not all finite and at least 0, or are all 0.
  """
  for name, split in dataset.splits.items():
    depth, shape = split['depth'], split['image'].shape[:3]
    if depth.dtype.kind in 'iu':
      raise UsageError(
        f'depth: expected floats in the split {name!r}, got {depth.dtype}; '
        'divide whole millimetres by 1000'
      )
    if depth.shape != shape or depth.dtype.kind != 'f':
      raise UsageError(
        f'depth: expected floats {list(shape)}, one for each pixel of the '
        f'images, in the split {name!r}, got {depth.dtype} {list(depth.shape)}'
      )
    if isinstance(depth, LazyImages):
      continue
    low, high = float(depth.min()), float(depth.max())
    if not (low >= 0 and 0 < high < np.inf):
      raise UsageError(
        'depth: expected finite distances, or 0 where they are unknown, and at '
        f'least one known, in the split {name!r}, got {low:g} to {high:g}'
      )


def _with_samples(samples: int, rng: Array, batch: Batch) -> Batch:
  """Adds a channel with some of the known depths to the images of a batch.

  Raises:
    UsageError: the batch has no depths, or an image has fewer pixels than
      samples.
  """
  if 'depth' not in batch:
    raise UsageError(
      f'depth: expected depths beside the images, because networks see '
      f'{samples} of them as a channel, got {", ".join(batch)}; with samples=0 '
      'they see only the images'
    )
  image, depth = batch['image'], batch['depth'].astype(jnp.float32)
  if samples > math.prod(depth.shape[1:]):
    raise UsageError(
      f'samples: expected at most {math.prod(depth.shape[1:])}, the number of '
      f'pixels of an image, got {samples}'
    )
  index = batch['index']
  # Copies of an image in a batch get places of their own. Their number is in
  # bits that numbers of images do not reach.
  copy = jnp.tril(index[:, None] == index[None], -1).sum(1)
  data = index.astype(jnp.uint32) + (copy.astype(jnp.uint32) << 24)
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(data)

  def sampled(key: Array, depth: Array) -> Array:
    # Unknown depths are 0, whether they are chosen or not.
    order = jnp.where(depth > 0, jax.random.uniform(key, depth.shape), -1.0)
    _, chosen = jax.lax.top_k(order.reshape(-1), samples)
    flat = depth.reshape(-1)
    return jnp.zeros_like(flat).at[chosen].set(flat[chosen])

  channel = jax.vmap(sampled)(keys, depth).reshape(*depth.shape, 1)
  image = jnp.concatenate([image, channel.astype(image.dtype)], -1)
  return {**batch, 'image': image}


def _absolute(maps: Array, true: Array, known: Array) -> Array:
  return _mean(jnp.abs(maps - true), known)


def _reverse_huber(maps: Array, true: Array, known: Array) -> Array:
  error = jnp.where(known, jnp.abs(maps - true), 0.0)
  bound = jax.lax.stop_gradient(error.max((1, 2), keepdims=True)) / 5
  safe = jnp.maximum(bound, 1e-12)
  square = (error**2 + bound**2) / (2 * safe)
  return _mean(jnp.where(error <= bound, error, square), known)


def _log_difference(maps: Array, true: Array, known: Array) -> Array:
  positive = jnp.maximum(maps, _SHALLOW)
  tangent = jnp.minimum(maps, _SHALLOW) / _SHALLOW - 1
  safe = jnp.where(known, true, 1.0)
  difference = jnp.log(positive) + tangent - jnp.log(safe)
  return _mean(difference**2, known) - _mean(difference, known) ** 2 / 2


# Name -> (maps, true depths, whether they are known) -> one loss per image.
_LOSSES: dict[str, Callable[[Array, Array, Array], Array]] = {
  'l1': _absolute,
  'berhu': _reverse_huber,
  'log': _log_difference,
}


def _mean(x: Array, known: Array) -> Array:
  """Returns the mean over the known pixels of each image; 0 without any."""
  count = jnp.maximum(known.sum((1, 2)), 1)
  return jnp.where(known, x, 0.0).sum((1, 2)) / count


def _statistics(
  loss: Callable[[Array, Array, Array], Array], outputs: Array, batch: Batch
) -> dict[str, Array]:
  if isinstance(outputs, dict) or outputs.ndim != 4:
    shapes = jax.tree.map(lambda x: list(x.shape), outputs)
    raise UsageError(
      'depth: expected a network whose only output is a map [B, h, w, 1], such '
      f"as 'upproj', got {shapes}"
    )
  if outputs.shape[-1] != 1:
    raise UsageError(
      f'depth: expected a network with one channel of outputs, got '
      f'{outputs.shape[-1]}; set num_classes=1'
    )
  true = batch['depth'].astype(jnp.float32)
  maps = numerics.bilinear(outputs.astype(jnp.float32), true.shape[1:3])
  maps = maps[..., 0]
  known = true > 0
  # The division by the depth must be finite where it is unknown.
  safe = jnp.where(known, true, 1.0)
  error = jnp.abs(maps - true)
  mean = functools.partial(_mean, known=known)
  ratio = jnp.maximum(maps / safe, safe / jnp.maximum(maps, 1e-6))
  return {
    'loss': loss(maps, true, known),
    'rmse': jnp.sqrt(mean(error**2)),
    'abs_rel': mean(error / safe),
    'delta1': mean((ratio < 1.25).astype(jnp.float32)),
    'known': known.any((1, 2)).astype(jnp.float32),
  }


def _summarize(statistics: dict[str, np.ndarray]) -> dict[str, float]:
  # An image without any known depth has no error.
  weight = np.asarray(statistics['known'], np.float64)
  return {
    k: float((weight * v).sum() / max(weight.sum(), 1.0))
    for k, v in statistics.items()
    if k != 'known'
  }


def _progress(outputs: Array, batch: Batch) -> Metrics:
  rows = _statistics(_absolute, outputs, batch)
  return {SCORE.name: rows[SCORE.name].mean()}


def _agreement(student: np.ndarray, teacher: np.ndarray) -> float:
  """Returns the fraction of places whose ratio is below 1.25."""
  student, teacher = (
    np.maximum(np.asarray(x, np.float32), 1e-6) for x in (student, teacher)
  )
  ratio = np.maximum(student / teacher, teacher / student)
  return float(np.mean(ratio < 1.25))
