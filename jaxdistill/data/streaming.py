"""Batches of data that is too large for memory, loaded beside the training.

The same batches in the same order as those of `batches.Batches`: which
examples make up a step is a function of the seeds and the step alone.
"""

from collections.abc import Mapping
import dataclasses
import math
import multiprocessing
from multiprocessing import connection
import os
import signal
import threading
from typing import Any, NamedTuple

from absl import flags
import jax
from jax.sharding import NamedSharding
import numpy as np

from jaxdistill.data import batches, images
from jaxdistill.data.images import LazyImages
from jaxdistill.types import Batch, UsageError

# Steps that no run reaches.
STEPS = 1 << 40
AHEAD = 2  # batches that wait on the device
# Batches of each worker in shared memory, most of them in Grain's own queues.
HELD = 4
SHARED = '/dev/shm'
MOST_WORKERS = 16
PATIENCE = 30.0  # seconds that a worker goes on after a signal


class StreamedBatches:
  """Batches of columns that are decoded when rows are taken.

  The steps of a run are loaded ahead while they follow each other; any other
  step is loaded when it is asked for.
  """

  def __init__(
    self,
    columns: Mapping[str, Any],
    batch_size: int,
    seeds: tuple[int, ...],
    sharding: NamedSharding | None = None,
    *,
    workers: int | None = None,
  ):
    """Loads nothing yet.

    Worker processes import the main module again: a script that uses them
    begins its work below `if __name__ == '__main__':`.

    Args:
      columns: name -> array or lazy column `[N, ...]`.
      batch_size: of all devices of all processes together.
      seeds: fix the order.
      sharding: how the rows of a batch lie on the devices; None: on one. A
        process loads only what its own devices hold.
      workers: processes that load; 0: threads of this one; None: one for each
        processor but one, and 16 at most.

    Raises:
      UsageError: sizes that the data does not give, or batches that memory
        shared with the workers cannot hold.
    """
    size = len(next(iter(columns.values())))
    self.steps_per_epoch = batches.steps_per_epoch(size, batch_size)
    if workers is None:
      workers = min(images.processors() - 1, MOST_WORKERS)
    if workers < 0:
      raise UsageError(f'workers: {workers} is below 0')
    self._workers = workers
    self._batch_size = batch_size
    self._sharding = sharding
    self._rows = own_rows(batch_size, sharding)
    _check_shared(columns, self._rows, workers)
    self._load = _Load(dict(columns), batch_size, seeds, self._rows)
    self._step: int | None = None
    self._batch: Batch = {}
    self._loaded: Any = None

  def __call__(self, step: int) -> Batch:
    """The batch of a step, `{name: [batch_size, ...]}`."""
    if step == self._step:
      return self._batch
    if self._step is None or step != self._step + 1:
      self.close()
      self._batch = self._put(self._load(step))
    else:
      if self._loaded is None:
        self._loaded = self._load_ahead(step)
      self._batch = next(self._loaded)
    self._step = step
    return self._batch

  def close(self) -> None:
    """Ends the workers."""
    if self._loaded is not None:
      self._loaded.close()
    self._loaded, self._step, self._batch = None, None, {}

  def _load_ahead(self, step: int) -> Any:
    """An iterator of batches on the device, from a step on."""
    import grain  # is for Linux, and few need it
    from grain import experimental

    if not flags.FLAGS.is_parsed():  # Grain reads them to start a worker
      flags.FLAGS.mark_as_parsed()
    load = self._load.with_threads(1) if self._workers else self._load
    steps = grain.MapDataset.range(step, STEPS).map(load)
    loaded = steps.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    )
    if self._workers:
      loaded = loaded.mp_prefetch(
        grain.MultiprocessingOptions(self._workers, 1), _begin_worker
      )
    return iter(
      experimental.ThreadPrefetchIterDataset(
        loaded.map(self._put), prefetch_buffer_size=AHEAD
      )
    )

  def _put(self, local: Mapping[str, np.ndarray]) -> Batch:
    """This process's rows of a batch, on its devices."""
    # A copy, as JAX may keep a worker's shared memory for its own.
    local = {name: np.array(rows) for name, rows in local.items()}
    if self._sharding is None:
      return jax.device_put(local)
    return {
      name: spread(rows, self._sharding, self._rows.start, self._batch_size)
      for name, rows in local.items()
    }


def _begin_worker(index: int, count: int) -> None:
  """Lets a worker end with the main process, and not before.

  A signal may come to all of them: the main process needs its batches until it
  has stopped in order.
  """
  del index, count

  def end_later(*_: Any) -> None:
    threading.Timer(PATIENCE, os._exit, (0,)).start()

  def watch(parent: Any) -> None:
    connection.wait([parent.sentinel])
    os._exit(0)

  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, end_later)
  parent = multiprocessing.parent_process()
  threading.Thread(target=watch, args=(parent,), daemon=True).start()


class _Load(NamedTuple):
  """step -> some rows of its batch, on the host; it pickles, for workers."""

  columns: dict[str, Any]
  batch_size: int
  seeds: tuple[int, ...]
  rows: slice

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    size = len(next(iter(self.columns.values())))
    epoch, place = divmod(step, size // self.batch_size)
    order = batches.epoch_order(self.seeds, epoch, size)
    start = place * self.batch_size
    rows = order[start : start + self.batch_size][self.rows]
    return {name: column[rows] for name, column in self.columns.items()}

  def with_threads(self, threads: int) -> '_Load':
    """The same, with so many threads that decode."""
    return self._replace(
      columns={
        name: dataclasses.replace(column, threads=threads)
        if isinstance(column, LazyImages)
        else column
        for name, column in self.columns.items()
      }
    )


def is_lazy(columns: Mapping[str, Any]) -> bool:
  """Whether a split has a column that is decoded when rows are taken."""
  return any(isinstance(column, LazyImages) for column in columns.values())


def _check_shared(
  columns: Mapping[str, Any], rows: slice, workers: int
) -> None:
  """Raises UsageError where shared memory cannot hold what is loaded ahead.

  Otherwise a worker dies of a signal once it is full.
  """
  if not workers or not os.path.isdir(SHARED):
    return
  example = sum(
    math.prod(c.shape[1:]) * c.dtype.itemsize for c in columns.values()
  )
  of_worker = HELD * (rows.stop - rows.start) * example
  about = os.statvfs(SHARED)
  free = about.f_bavail * about.f_frsize
  if workers * of_worker > free:
    raise UsageError(
      f'workers: {workers} hold {workers * of_worker >> 20} MiB of batches in '
      f'{SHARED}, which has {free >> 20} MiB free; wanted: {free // of_worker} '
      'or fewer, smaller batches, or more shared memory (docker run --shm-size)'
    )


def own_rows(batch_size: int, sharding: NamedSharding | None) -> slice:
  """The rows of a batch that the devices of this process hold.

  Args:
    batch_size: of all devices of all processes together.
    sharding: of the rows; None: one device holds all.
  """
  if sharding is None:
    return slice(0, batch_size)
  places = sharding.addressable_devices_indices_map((batch_size,)).values()
  held = [at[0].indices(batch_size) for at in places if at is not None]
  return slice(min(start for start, _, _ in held), max(s for _, s, _ in held))


def spread(
  local: np.ndarray, sharding: NamedSharding, first: int, batch_size: int
) -> jax.Array:
  """An array over all devices from the rows that this process holds.

  Args:
    local: those rows, `[n, ...]`.
    sharding: of all rows.
    first: the place of the first of them among all.
    batch_size: how many there are in all.
  """

  def part(at: Any) -> np.ndarray:
    start, stop, _ = at[0].indices(batch_size)
    return local[start - first : stop - first]

  shape = (batch_size, *local.shape[1:])
  return jax.make_array_from_callback(shape, sharding, part)
