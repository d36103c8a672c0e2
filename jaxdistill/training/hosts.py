"""Several processes that train one model: how they meet, agree and part.

Every process runs the same program; only the first one writes. A shared file
system is assumed: what the first one wrote, all read. Where there is but one
process, all this costs nothing.
"""

from collections.abc import Callable
import contextlib
import os
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from jaxdistill.training import watch
from jaxdistill.types import UsageError

# Of this process, as JAX's connection to the others is.
_watches: list[watch.Watch] = []


def alone() -> bool:
  return jax.process_count() == 1


def first() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def point() -> None:
  """Says that this process has come to where all others come too."""
  for own in _watches:
    own.point()


def gather(*numbers: int) -> np.ndarray:
  """The numbers of each process, int64 `[processes, numbers]`; all must ask."""
  own = np.array([numbers], np.int64)
  if alone():
    return own
  point()
  # In halves, as JAX has no 64 bits by default.
  found = multihost_utils.process_allgather(own.view(np.int32), tiled=True)
  point()
  return np.ascontiguousarray(found).view(np.int64)


def any_of(*flags: bool) -> list[bool]:
  """Whether any process says so, of each flag; all must ask."""
  return [bool(of_all.any()) for of_all in gather(*flags).T]


def of_first(find: Callable[..., bool], *arguments: Any) -> bool:
  """What the first process finds; all must ask, and only it looks.

  On a network's file system the others may see an older state of a folder.
  """
  return bool(gather(first() and find(*arguments))[0, 0])


def meet() -> None:
  """Waits until all processes are here."""
  gather(0)


def join(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  timeout: float,
) -> None:
  """Meets the other processes; before anything else is asked of JAX.

  Args:
    coordinator: HOST:PORT of the first process; None, as for the others: found
      by JAX in what the cluster says (Slurm, Open MPI, Kubernetes, TPU pods).
    num_processes: of the run.
    process_id: of this one, from 0.
    timeout: seconds to wait for a process that does not answer, now and later;
      then this one says so in one line and ends with code 2.

  Raises:
    UsageError: there is no such cluster.
  """
  try:
    with watch.answering('another process', timeout):
      jax.distributed.initialize(
        _relayed(coordinator, process_id, timeout),
        num_processes,
        process_id,
        # JAX ends a process with a stack trace: let it be later than we are.
        initialization_timeout=int(2 * timeout) + 60,
        heartbeat_timeout_seconds=int(2 * timeout) + 60,
      )
  except (TypeError, ValueError, RuntimeError, IndexError) as error:
    raise UsageError(
      f'--distributed: {error}; wanted a cluster, or --coordinator=HOST:PORT, '
      '--num_processes and --process_id'
    ) from None
  from jax._src import distributed  # where Orbax finds it too

  state = distributed.global_state
  _watches.append(
    watch.Watch(state.client, state.process_id, state.num_processes, timeout)
  )


def _relayed(
  coordinator: str | None, process_id: int | None, timeout: float
) -> str | None:
  """The coordinator's address, or one that leads there and is watched."""
  if coordinator is None:
    with contextlib.suppress(Exception):  # JAX says itself what is missing
      from jax._src import clusters

      find = clusters.ClusterEnv.auto_detect_unset_distributed_params
      coordinator, _, process_id, _ = find(
        None, None, None, [], None, int(timeout)
      )
  if coordinator is None or not process_id:
    return coordinator

  def gone() -> None:
    for own in _watches:
      own.first_is_gone()
    watch.give_up('process 0 is gone')

  return watch.relay(coordinator, gone)


def lost(error: Exception) -> bool:
  """Whether an error means that another process is gone."""
  signs = ('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED')
  return not alone() and any(s in str(error) for s in signs)


def blame() -> None:
  """Ends with the name of the process that was just lost, if it is found."""
  for own in _watches:
    own.blame()


def leave(code: int, *, alike: bool, patience: float = 30.0) -> None:
  """Parts from the others, or ends with `code` where they do not come.

  Args:
    code: what this process ends with.
    alike: whether the others end so too; if not, they are made to end.
    patience: seconds to wait for the others.
  """
  sys.stdout.flush()
  timers = [_end_after(patience, code)]
  for own in _watches:
    heard = own.part(code, alike)
    timers += [] if alike else [_end_after(heard, code)]
  jax.distributed.shutdown()
  for timer in timers:
    timer.cancel()


def _end_after(seconds: float, code: int) -> threading.Timer:
  timer = threading.Timer(seconds, os._exit, (code,))
  timer.daemon = True
  timer.start()
  return timer
