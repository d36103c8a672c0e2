"""Several processes that train one model: how they meet, agree and part.

Every process runs the same program, and only the first one writes files. They
must share a file system, because all of them read what the first one wrote. If
there is only one process, the functions of this module cost nothing.
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

from jaxdistill.core.checks import UsageError
from jaxdistill.training.distributed import watch

# One per process, as JAX's connection to the other processes is; or none.
_watches: list[watch.Watch] = []


def alone() -> bool:
  """Returns whether this is the only process."""
  return jax.process_count() == 1


def first() -> bool:
  """Returns whether this is the process that writes files."""
  return jax.process_index() == 0


def point() -> None:
  """Tells the watch that this process passes a point that all have to pass."""
  for own_watch in _watches:
    own_watch.point()


def gather(*numbers: int) -> np.ndarray:
  """Returns the numbers of every process, int64 `[processes, numbers]`.

  All processes must call this function.

  Args:
    *numbers: the numbers of this process.
  """
  own = np.array([numbers], np.int64)
  if alone():
    return own
  point()
  # As pairs of int32, because JAX has no 64-bit integers by default.
  halves = multihost_utils.process_allgather(own.view(np.int32), tiled=True)
  point()
  return np.ascontiguousarray(halves).view(np.int64)


def any_of(*flags: bool) -> list[bool]:
  """Returns for each flag whether it is set in any process.

  All processes must call this function.

  Args:
    *flags: the flags of this process.
  """
  return [bool(column.any()) for column in gather(*flags).T]


def of_first(function: Callable[..., bool], *arguments: Any) -> bool:
  """Returns to every process what a function returns in the first one.

  All processes must call this function. On a network file system, the others
  may see an older state of a folder, so only the first process looks.

  Args:
    function: called in the first process only.
    *arguments: its arguments.
  """
  return bool(gather(first() and function(*arguments))[0, 0])


def meet() -> None:
  """Waits until all processes have called this function."""
  gather(0)


def join(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  timeout: float,
) -> None:
  """Connects to the other processes; must precede any other use of JAX.

  Args:
    coordinator: HOST:PORT of the first process; None: JAX reads this and the
      following two values from the cluster's environment (Slurm, Open MPI,
      Kubernetes, TPU pods).
    num_processes: the number of processes of the run.
    process_id: the number of this process, from 0.
    timeout: the seconds after which a process that does not answer is given up,
      now and during the run. This process then prints one line and ends with
      code 2.

  Raises:
    UsageError: there is no such cluster.
  """
  try:
    with watch.answering('another process', timeout):
      jax.distributed.initialize(
        _relayed(coordinator, process_id, timeout),
        num_processes,
        process_id,
        # JAX would end the process with a stack trace, so our own timeout must
        # come first.
        initialization_timeout=int(2 * timeout) + 60,
        heartbeat_timeout_seconds=int(2 * timeout) + 60,
      )
  except (TypeError, ValueError, RuntimeError, IndexError) as error:
    raise UsageError(
      '--distributed: expected a cluster, or --coordinator=HOST:PORT, '
      f'--num_processes and --process_id ({error})'
    ) from None
  # There is no public access to the client; Orbax takes it from here as well.
  from jax._src import distributed

  state = distributed.global_state
  _watches.append(
    watch.Watch(state.client, state.process_id, state.num_processes, timeout)
  )


def _relayed(
  coordinator: str | None, process_id: int | None, timeout: float
) -> str | None:
  """Returns the coordinator's address, or that of a watched relay to it."""
  if coordinator is None:
    # If this fails, `jax.distributed.initialize` says what is missing.
    with contextlib.suppress(Exception):
      from jax._src import clusters

      find = clusters.ClusterEnv.auto_detect_unset_distributed_params
      coordinator, _, process_id, _ = find(
        None, None, None, [], None, int(timeout)
      )
  if coordinator is None or not process_id:
    return coordinator

  def gone() -> None:
    for own_watch in _watches:
      own_watch.first_is_gone()
    watch.give_up('process 0 is gone')

  return watch.relay(coordinator, gone)


def lost(error: Exception) -> bool:
  """Returns whether an error means that another process is gone."""
  signs = ('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED')
  return not alone() and any(sign in str(error) for sign in signs)


def blame() -> None:
  """Ends this process, naming the process that was lost, if it can be found."""
  for own_watch in _watches:
    own_watch.blame()


def leave(code: int, *, together: bool, patience: float = 30.0) -> None:
  """Disconnects from the other processes before this process ends.

  If they do not disconnect as well, this process ends with `code` by itself.

  Args:
    code: the exit code of this process.
    together: whether the others are about to end with the same code; if not,
      they are told to end.
    patience: the seconds to wait for the others.
  """
  sys.stdout.flush()
  timers = [_end_after(patience, code)]
  for own_watch in _watches:
    seconds = own_watch.part(code, together)
    timers += [] if together else [_end_after(seconds, code)]
  jax.distributed.shutdown()
  for timer in timers:
    timer.cancel()


def _end_after(seconds: float, code: int) -> threading.Timer:
  timer = threading.Timer(seconds, os._exit, (code,))
  timer.daemon = True
  timer.start()
  return timer
