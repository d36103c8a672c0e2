"""Batches of data that does not fit into memory, loaded during training.

They are the same batches in the same order as those of `batches.Batches`,
because the examples of a step depend only on the seeds and the step.
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

from jaxdistill.core import checks, cpu, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Batch
from jaxdistill.data.loading import batches
from jaxdistill.data.sources.images import LazyImages

# More steps than any run takes.
STEPS = 1 << 40
AHEAD = 2  # the number of batches that wait on the device
# The number of batches that each worker holds in shared memory, most of them in
# Grain's own queues.
HELD = 4
SHARED = '/dev/shm'
MOST_WORKERS = 16
PATIENCE = 30.0  # seconds that a worker keeps working after a signal


class StreamedBatches:
  """Batches of columns that are decoded when rows are taken.

  As long as steps are requested in order, they are loaded ahead of time. Any
  other step is loaded when it is requested.
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
    """Prepares loading, without loading anything yet.

    Worker processes import the main module again. A script that uses them must
    therefore do its work below `if __name__ == '__main__':`.

    Args:
      columns: name -> array or lazy column `[N, ...]`.
      batch_size: the size of a batch, over all devices of all processes.
      seeds: determine the order of the examples.
      sharding: how the rows of a batch are spread over the devices; a process
        loads only the rows of its own devices. None: one device holds them all.
      workers: the number of processes that load; 0: threads of this process
        load; None: one less than the number of cores, and at most 16.

    Raises:
      UsageError: the data has fewer examples than a batch, or the memory that
        is shared with the workers cannot hold the batches.
    """
    size = len(next(iter(columns.values())))
    self.steps_per_epoch = batches.steps_per_epoch(size, batch_size)
    if workers is None:
      workers = min(cpu.cores() - 1, MOST_WORKERS)
    self._workers = checks.integer('workers', workers, at_least=0)
    self._batch_size = batch_size
    self._sharding = sharding
    self._rows = own_rows(batch_size, sharding)
    _check_shared(columns, self._rows, workers)
    self._load = _Load(dict(columns), batch_size, seeds, self._rows)
    self._step: int | None = None
    self._batch: Batch = {}
    self._loaded: Any = None

  def __call__(self, step: int) -> Batch:
    """Returns the batch of a step, `{name: [batch_size, ...]}`."""
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
    """Ends the workers; batches can still be requested afterwards."""
    if self._loaded is not None:
      self._loaded.close()
    self._loaded, self._step, self._batch = None, None, {}

  def _load_ahead(self, step: int) -> Any:
    """Returns an iterator of batches on the device, beginning at a step."""
    grain = optional.require('grain', 'streaming images from files')
    if not flags.FLAGS.is_parsed():  # Grain reads the flags to start workers
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
      grain.experimental.ThreadPrefetchIterDataset(
        loaded.map(self._put), prefetch_buffer_size=AHEAD
      )
    )

  def _put(self, local: Mapping[str, np.ndarray]) -> Batch:
    """Puts this process's rows of a batch on its devices."""
    # They are copied because JAX may keep the memory, which a worker reuses.
    local = {name: np.array(rows) for name, rows in local.items()}
    if self._sharding is None:
      return jax.device_put(local)
    return {
      name: spread(rows, self._sharding, self._rows.start, self._batch_size)
      for name, rows in local.items()
    }


def _begin_worker(index: int, count: int) -> None:
  """Makes a worker end when the main process ends, and not before.

  A signal may reach all processes. The main process still needs batches until
  it has stopped in an orderly way.
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
  """A function step -> rows of its batch on the host.

  It can be pickled, so that workers can call it.
  """

  columns: dict[str, Any]
  batch_size: int
  seeds: tuple[int, ...]
  rows: slice

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    size = len(next(iter(self.columns.values())))
    epoch, position = divmod(step, size // self.batch_size)
    order = batches.epoch_order(self.seeds, epoch, size)
    start = position * self.batch_size
    rows = order[start : start + self.batch_size][self.rows]
    return {name: column[rows] for name, column in self.columns.items()}

  def with_threads(self, threads: int) -> '_Load':
    """Returns the same function, which decodes with this number of threads."""
    return self._replace(
      columns={
        name: dataclasses.replace(column, threads=threads)
        if isinstance(column, LazyImages)
        else column
        for name, column in self.columns.items()
      }
    )


def is_lazy(columns: Mapping[str, Any]) -> bool:
  """Returns whether a split has a column of images that are not decoded yet."""
  return any(isinstance(column, LazyImages) for column in columns.values())


def _check_shared(
  columns: Mapping[str, Any], rows: slice, workers: int
) -> None:
  """Checks that shared memory can hold the batches that are loaded ahead.

  When it is full, a worker would be killed by a signal.

  Raises:
    UsageError: there is not enough shared memory.
  """
  if not workers or not os.path.isdir(SHARED):
    return
  example = sum(
    math.prod(c.shape[1:]) * c.dtype.itemsize for c in columns.values()
  )
  per_worker = HELD * (rows.stop - rows.start) * example
  status = os.statvfs(SHARED)
  free = status.f_bavail * status.f_frsize
  if workers * per_worker > free:
    raise UsageError(
      f'workers: expected at most {free // per_worker}, as {SHARED} has '
      f'{free >> 20} MiB free, got {workers}, which need '
      f'{workers * per_worker >> 20} MiB; choose fewer workers, smaller '
      'batches or more shared memory (docker run --shm-size)'
    )


def own_rows(batch_size: int, sharding: NamedSharding | None) -> slice:
  """Returns the rows of a batch that the devices of this process hold.

  Args:
    batch_size: the size of a batch, over all devices of all processes.
    sharding: how the rows are spread; None: one device holds them all.
  """
  if sharding is None:
    return slice(0, batch_size)
  indices = sharding.addressable_devices_indices_map((batch_size,)).values()
  ranges = [index[0].indices(batch_size) for index in indices if index]
  starts, stops, _ = zip(*ranges)
  return slice(min(starts), max(stops))


def spread(
  local: np.ndarray, sharding: NamedSharding, first: int, batch_size: int
) -> jax.Array:
  """Returns an array over all devices, made of the rows in this process.

  Args:
    local: the rows that this process holds, `[n, ...]`.
    sharding: how all rows are spread.
    first: the position of the first local row among all rows.
    batch_size: the number of all rows.
  """

  def part(index: Any) -> np.ndarray:
    start, stop, _ = index[0].indices(batch_size)
    return local[start - first : stop - first]

  shape = (batch_size, *local.shape[1:])
  return jax.make_array_from_callback(shape, sharding, part)
