"""Several processes that train one model: how they meet, agree and part.

Every process runs the same program; only the first one writes. A shared file
system is assumed: what the first one wrote, all read.
"""

from collections.abc import Iterator
import contextlib
import os
import sys
import threading
from typing import NamedTuple, NoReturn

import jax
from jax.experimental import multihost_utils
import numpy as np

from jaxdistill.types import UsageError


class Hosts(NamedTuple):
  """The processes of this run.

  Attributes:
    timeout: seconds to wait for a process that does not answer; then this one
      says so in one line and ends with code 2.
  """

  timeout: float = 300.0

  @property
  def alone(self) -> bool:
    return jax.process_count() == 1

  @property
  def first(self) -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0

  def any(self, *flags: bool) -> list[bool]:
    """Whether any process says so, of each flag; all must ask."""
    return [bool(of_all.any()) for of_all in self._all(*flags).T]

  def of_first(self, flag: bool) -> bool:
    """What the first process says; all must ask."""
    return bool(self._all(flag)[0, 0])

  def meet(self) -> None:
    """Waits until all processes are here."""
    self._all(False)  # an empty array is not waited for

  def _all(self, *flags: bool) -> np.ndarray:
    """The flags of each process, `[processes, flags]`."""
    if self.alone:
      return np.array([flags], bool)
    with _answering(self.timeout):
      return multihost_utils.process_allgather(np.array(flags, bool))


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
    timeout: seconds.

  Raises:
    UsageError: there is no such cluster.
  """
  try:
    with _answering(timeout):
      jax.distributed.initialize(
        coordinator,
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


def lost(error: Exception) -> bool:
  """Whether an error means that another process is gone."""
  signs = ('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED')
  return jax.process_count() > 1 and any(s in str(error) for s in signs)


def leave(code: int, patience: float = 30.0) -> None:
  """Parts from the others, or ends with `code` where they do not come."""
  sys.stdout.flush()
  timer = threading.Timer(patience, os._exit, (code,))
  timer.daemon = True
  timer.start()
  jax.distributed.shutdown()
  timer.cancel()


def give_up(reason: str) -> NoReturn:
  """Ends this process at once, with code 2; JAX would wait for the others."""
  print(f'jaxdistill: {reason}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(2)


@contextlib.contextmanager
def _answering(timeout: float) -> Iterator[None]:
  """Ends this process where what is inside waits for another too long."""
  reason = f'another process has not answered for {timeout:g} seconds'
  timer = threading.Timer(timeout, give_up, (reason,))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
