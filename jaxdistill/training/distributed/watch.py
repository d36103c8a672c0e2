"""Notices when another process is lost, and says so in one line.

Every process counts the points that it passes and reports them to the first
process, which decides who is lost: a process that has not reported for too
long, or one that is behind the others while nobody makes progress. If the first
process is lost, the others notice it themselves. Without this watch, JAX would
end them with a stack trace, or not at all.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

# Folders of the store: process -> its report; process -> whom it accuses.
PLACES, VERDICT = 'jaxdistill/place', 'jaxdistill/verdict'


class Watch:
  """Ends this process with code 2 when another one is lost."""

  def __init__(self, store: Any, index: int, count: int, timeout: float):
    """Begins to watch.

    Args:
      store: JAX's client, through which all processes exchange strings.
      index: the number of this process, from 0.
      count: the number of all processes.
      timeout: the seconds after which a process counts as lost.
    """
    self._store = store
    self._index = index
    self._timeout = timeout
    self._period = min(timeout / 8, 5.0)
    self._points = 0
    self._rounds = 0  # since there is a verdict
    self._hurry = False
    self._parting = threading.Event()
    self._code = 0
    now = time.monotonic()
    # Process -> its last report, and when this report was new.
    self._reports = {i: ('', now) for i in range(count)}
    # Process -> the points that it has passed, and when it passed the last one.
    self._progress = {i: (-1, now) for i in range(count)}
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def point(self) -> None:
    """Counts a point that all processes have to pass."""
    self._points += 1

  def blame(self) -> None:
    """Ends this process, naming the lost one; returns if it is unknown."""
    self._hurry = True
    self._thread.join(8 * self._period)

  def part(self, code: int, together: bool) -> float:
    """Stops watching, because this process is about to end.

    Args:
      code: the exit code of this process.
      together: whether the others are about to end with the same code; if not,
        they are told to end.

    Returns:
      The seconds after which all others know.
    """
    self._code = code
    self._parting.set()
    self._thread.join(2 * self._period)
    if not together:
      with contextlib.suppress(Exception):  # the store may be gone
        self._accuse(f'process {self._index} ended with code {code}')
    return 6 * self._period

  def first_is_gone(self) -> None:
    """Ends this process because the first one is gone.

    If this process was about to end anyway, it ends with its own code.
    """
    if self._parting.is_set():
      os._exit(self._code)
    give_up('process 0 is gone')

  def _watch(self) -> None:
    beats = 0
    while not self._parting.wait(self._period):
      beats += 1
      try:
        with answering('process 0', self._timeout):
          self._exchange(f'{beats} {self._points}')
      except Exception:  # JAX may raise anything when the store is gone
        if not self._parting.is_set():
          give_up('process 0 is gone')

  def _exchange(self, report: str) -> None:
    """Reports where this process is, and learns whether another one is lost."""
    key = f'{PLACES}/{self._index}'
    self._store.key_value_set(key, report, allow_overwrite=True)
    verdicts = self._store.key_value_dir_get(VERDICT)
    if verdicts:
      self._rounds += 1
      # Not at once, because this process may be about to end for the same
      # reason with a better message. The first process ends last, because the
      # store ends with it.
      if self._rounds == (4 if self._index == 0 else 2):
        give_up(verdicts[0][1])
    elif self._index == 0:
      entries = self._store.key_value_dir_get(PLACES)
      reports = {int(k.rpartition('/')[2]): value for k, value in entries}
      if lost := self._lost(reports, time.monotonic()):
        names = ', '.join(map(str, lost))
        self._accuse(
          f'process {names} is gone'
          if self._hurry
          else f'process {names} has not answered for {self._timeout:g} seconds'
        )

  def _accuse(self, line: str) -> None:
    key = f'{VERDICT}/{self._index}'
    self._store.key_value_set(key, line, allow_overwrite=True)

  def _lost(self, reports: dict[int, str], now: float) -> list[int]:
    """Returns the processes that are silent, or that all others wait for.

    Args:
      reports: process -> 'BEATS POINTS', where the beats change with each
        report.
      now: the time in seconds.
    """
    for index, report in reports.items():
      points = int(report.split()[1])
      if self._reports[index][0] != report:
        self._reports[index] = report, now
      if self._progress[index][0] != points:
        self._progress[index] = points, now
    limit = 3 * self._period if self._hurry else self._timeout
    silent = [i for i, (_, at) in self._reports.items() if now - at > limit]
    latest = max(at for _, at in self._progress.values())
    if silent or now - latest <= self._timeout:
      return silent
    furthest = max(points for points, _ in self._progress.values())
    return [i for i, (points, _) in self._progress.items() if points < furthest]


def give_up(reason: str) -> NoReturn:
  """Ends this process at once with code 2; a normal exit would wait in JAX.

  Args:
    reason: what to print.
  """
  print(f'jaxdistill: {reason}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(2)


@contextlib.contextmanager
def answering(who: str, timeout: float) -> Iterator[None]:
  """Ends this process if the body of the `with` statement takes too long.

  Args:
    who: the process that the body waits for, for the message.
    timeout: the longest time in seconds.
  """
  reason = f'{who} has not answered for {timeout:g} seconds'
  timer = threading.Timer(timeout, give_up, (reason,))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def relay(address: str, gone: Callable[[], None]) -> str:
  """Opens a local relay to an address, and returns the relay's address.

  JAX ends a process with a stack trace when the first process closes its
  connection. The relay hides that from JAX.

  Args:
    address: HOST:PORT of the first process.
    gone: called in a thread when the first process closes a connection.
  """
  host, _, port = address.rpartition(':')
  server = socket.create_server(('127.0.0.1', 0))

  def accept() -> None:
    while True:
      near, _ = server.accept()
      try:
        far = socket.create_connection((host.strip('[]'), int(port)))
      except OSError:  # it does not listen yet; JAX tries again
        near.close()
        continue
      left = threading.Event()  # set when this process closes the connection

      def ended(left: threading.Event = left) -> None:
        if not left.is_set():
          gone()

      for arguments in ((near, far, left.set), (far, near, ended)):
        threading.Thread(target=_pump, args=arguments, daemon=True).start()

  threading.Thread(target=accept, daemon=True).start()
  return f'127.0.0.1:{server.getsockname()[1]}'


def _pump(
  source: socket.socket, sink: socket.socket, ended: Callable[[], None]
) -> None:
  """Copies bytes from one socket to another until there are no more."""
  with contextlib.suppress(OSError):
    while content := source.recv(1 << 16):
      with contextlib.suppress(OSError):
        sink.sendall(content)
  ended()
  for end in (source, sink):
    with contextlib.suppress(OSError):
      end.shutdown(socket.SHUT_RDWR)
