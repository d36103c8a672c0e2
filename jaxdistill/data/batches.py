"""Which examples make up the batch of a step, and putting them on the devices.

The batch of a step is a function of the seed and the step alone, so a run can
go on anywhere and sees the same batches whatever way they are loaded.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from jaxdistill.types import Batch, PyTree, UsageError


class Batches:
  """Batches of a data set that lies on every device whole."""

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
      batch_size: of all devices together.
      seeds: fix the order.
      sharding: how the rows of a batch lie on the devices, so that each device
        gathers its own; None: on one device.
    """
    whole = None
    if sharding is not None:
      whole = NamedSharding(sharding.mesh, PartitionSpec())
    self._arrays = place(dict(arrays), whole)
    self._batch_size = batch_size
    self._seeds = seeds
    self._take, self._stack = _taker(sharding), _taker(_under(sharding))
    self._size = len(next(iter(arrays.values())))
    self.steps_per_epoch = steps_per_epoch(self._size, batch_size)

  def __call__(self, step: int) -> Batch:
    """The batch of a step, `{name: [batch_size, ...]}`."""
    return self._take(self._arrays, self._indices(step))

  def several(self, step: int, count: int) -> Batch:
    """Those of `count` steps, `{name: [count, batch_size, ...]}`."""
    indices = [self._indices(i) for i in range(step, step + count)]
    return self._stack(self._arrays, np.stack(indices))

  def _indices(self, step: int) -> np.ndarray:
    epoch, place = divmod(step, self.steps_per_epoch)
    order = epoch_order(self._seeds, epoch, self._size)
    start = place * self._batch_size
    return order[start : start + self._batch_size]

  def close(self) -> None:
    """Lets go of the arrays."""
    self._arrays = {}


def place(tree: PyTree, sharding: Any) -> PyTree:
  """Arrays that every process holds whole, laid out over the devices.

  Args:
    tree: arrays; the new ones may share their memory. One that lies right
      already stays.
    sharding: one for all, or a tree of them; None: the default device.
  """

  def put(x: Any, sharding: Any) -> jax.Array:
    if isinstance(x, jax.Array) and x.sharding == sharding:
      return x
    if sharding is None or sharding.is_fully_addressable:
      return jax.device_put(x, sharding)
    x = np.asarray(x)  # each process brings what its devices need
    return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])

  if sharding is None or isinstance(sharding, jax.sharding.Sharding):
    return jax.tree.map(lambda x: put(x, sharding), tree)
  return jax.tree.map(put, tree, sharding)


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


def _under(sharding: NamedSharding | None) -> NamedSharding | None:
  """The same behind a first dimension that no devices share."""
  if sharding is None:
    return None
  return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


@functools.cache
def _taker(sharding: NamedSharding | None) -> Callable[[Batch, Any], Batch]:
  """(arrays, indices) -> rows, laid out."""

  def take(arrays: Batch, indices: Any) -> Batch:
    return {name: array[indices] for name, array in arrays.items()}

  return jax.jit(take, out_shardings=sharding)
