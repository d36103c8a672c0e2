"""Which examples form the batch of a step, and how they get on the devices.

The batch of a step depends only on the seeds and the step. A run can therefore
be resumed at any step, and it sees the same batches however they are loaded.
"""

from collections.abc import Callable, Mapping
import copy
import functools
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Batch, PyTree


class Batches:
  """Batches of a data set that is stored completely on every device."""

  def __init__(
    self,
    arrays: Mapping[str, Any],
    batch_size: int,
    seeds: tuple[int, ...],
    sharding: NamedSharding | None = None,
  ):
    """Puts the arrays on the devices.

    Args:
      arrays: name -> `[N, ...]`, the same in every process.
      batch_size: the size of a batch, over all devices together.
      seeds: determine the order of the examples.
      sharding: how the rows of a batch are spread over the devices; each device
        gathers its own rows. None: one device holds them all.
    """
    whole = None
    if sharding is not None:
      whole = NamedSharding(sharding.mesh, PartitionSpec())
    self._arrays = place(dict(arrays), whole)
    self._batch_size = batch_size
    self._seeds = seeds
    self._take, self._stack = _taker(sharding), _taker(_stacked(sharding))
    self._size = len(next(iter(arrays.values())))
    self._order: tuple[int, np.ndarray] | None = None
    self.steps_per_epoch = steps_per_epoch(self._size, batch_size)

  def in_order_of(self, seeds: tuple[int, ...]) -> 'Batches':
    """Returns batches of the same arrays in the order of other seeds."""
    other = copy.copy(self)
    other._seeds, other._order = seeds, None
    return other

  def __call__(self, step: int) -> Batch:
    """Returns the batch of a step, `{name: [batch_size, ...]}`."""
    return self._take(self._arrays, self._indices(step))

  def several(self, step: int, count: int) -> Batch:
    """Returns the batches of steps, `{name: [count, batch_size, ...]}`.

    Args:
      step: the first step.
      count: the number of steps.
    """
    indices = [self._indices(i) for i in range(step, step + count)]
    return self._stack(self._arrays, np.stack(indices))

  def _indices(self, step: int) -> np.ndarray:
    epoch, position = divmod(step, self.steps_per_epoch)
    # Cached in each object, because a small shared cache would not hold the
    # orders of many seeds that train together.
    if self._order is None or self._order[0] != epoch:
      self._order = epoch, epoch_order(self._seeds, epoch, self._size)
    order = self._order[1]
    start = position * self._batch_size
    return order[start : start + self._batch_size]

  def close(self) -> None:
    """Frees the arrays."""
    self._arrays = {}


def place(tree: PyTree, sharding: Any) -> PyTree:
  """Spreads arrays that every process holds completely over the devices.

  Args:
    tree: the arrays. The results may share their memory; an array that is
      already spread as requested is returned unchanged.
    sharding: one for all arrays, or a tree of shardings; None: the default
      device.
  """

  def put(x: Any, sharding: Any) -> jax.Array:
    if isinstance(x, jax.Array) and x.sharding == sharding:
      return x
    if sharding is None or sharding.is_fully_addressable:
      return jax.device_put(x, sharding)
    x = np.asarray(x)  # each process copies what its own devices need
    return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])

  if sharding is None or isinstance(sharding, jax.sharding.Sharding):
    return jax.tree.map(lambda x: put(x, sharding), tree)
  return jax.tree.map(put, tree, sharding)


def steps_per_epoch(size: int, batch_size: int) -> int:
  """Returns the number of whole batches in `size` examples.

  The examples that do not fill a batch are left out of this epoch. As the order
  changes with every epoch, they are part of other epochs.

  Args:
    size: the number of examples.
    batch_size: the size of a batch, over all devices together.

  Raises:
    UsageError: the examples do not fill a single batch.
  """
  if not 0 < batch_size <= size:
    raise UsageError(
      f'batch_size: expected a whole number from 1 to {size}, the number of '
      f'examples, got {batch_size}'
    )
  return size // batch_size


@functools.lru_cache(maxsize=8)
def epoch_order(seeds: tuple[int, ...], epoch: int, size: int) -> np.ndarray:
  """Returns the order of the examples in an epoch, a permutation `[size]`."""
  generator = np.random.default_rng([*seeds, epoch])
  return generator.permutation(size).astype(np.int32)


def _stacked(sharding: NamedSharding | None) -> NamedSharding | None:
  """Returns the sharding of batches that are stacked along a new first axis."""
  if sharding is None:
    return None
  return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


@functools.cache
def _taker(sharding: NamedSharding | None) -> Callable[[Batch, Any], Batch]:
  """Returns a function (arrays, indices) -> rows that are spread as given."""

  def take(arrays: Batch, indices: Any) -> Batch:
    return {name: array[indices] for name, array in arrays.items()}

  return jax.jit(take, out_shardings=sharding)
