"""Which examples make up the batch of a step, and putting them on the device.

The batch of a step is a function of the seed and the step alone, so a run can
go on anywhere and sees the same batches whatever way they are loaded.
"""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import numpy as np

from jaxdistill.types import Batch, UsageError


class Batches:
  """Batches of a data set that lives on the device whole."""

  def __init__(
    self,
    arrays: Mapping[str, Any],
    batch_size: int,
    seeds: tuple[int, ...],
  ):
    """Puts the arrays `[N, ...]` on the device; `seeds` fix the order."""
    self._arrays = jax.device_put(dict(arrays))
    self._batch_size = batch_size
    self._seeds = seeds
    self._size = len(next(iter(arrays.values())))
    self.steps_per_epoch = steps_per_epoch(self._size, batch_size)

  def __call__(self, step: int) -> Batch:
    """The batch of a step, `{name: [batch_size, ...]}`."""
    epoch, place = divmod(step, self.steps_per_epoch)
    order = epoch_order(self._seeds, epoch, self._size)
    start = place * self._batch_size
    return _take(self._arrays, order[start : start + self._batch_size])


def steps_per_epoch(size: int, batch_size: int) -> int:
  """Whole batches in `size` examples; the rest waits for another epoch.

  Raises:
    UsageError: not even one.
  """
  if not 0 < batch_size <= size:
    raise UsageError(
      f'batch_size is {batch_size}; the data has {size} examples: choose 1 to '
      f'{size}'
    )
  return size // batch_size


@functools.lru_cache(maxsize=8)
def epoch_order(seeds: tuple[int, ...], epoch: int, size: int) -> np.ndarray:
  """A permutation of `size` examples."""
  generator = np.random.default_rng([*seeds, epoch])
  return generator.permutation(size).astype(np.int32)


@jax.jit
def _take(arrays: Batch, indices: np.ndarray) -> Batch:
  return {name: array[indices] for name, array in arrays.items()}
