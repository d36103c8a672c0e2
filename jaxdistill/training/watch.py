"""Whether the other processes live and come along; one line where one does not.

Every process counts the points that it passes and tells the first one, which
judges: a process is lost that says nothing for too long, or that is behind the
others while none comes on. That the first one is lost the others see for
themselves. JAX alone would end them with a stack trace, or not at all.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

# Folders of the store: process -> where it is; process -> what it found.
PLACES, VERDICT = 'jaxdistill/place', 'jaxdistill/verdict'


class Watch:
  """Ends this process with code 2 where another one is lost."""

  def __init__(self, store: Any, index: int, count: int, timeout: float):
    """Begins to watch.

    Args:
      store: JAX's client, through which all processes write and read.
      index: of this process.
      count: of all.
      timeout: seconds until a process counts as lost.
    """
    self._store = store
    self._index = index
    self._timeout = timeout
    self._period = min(timeout / 8, 5.0)
    self._points = 0
    self._rounds = 0  # with a verdict
    self._hurry = False
    self._parting = threading.Event()
    self._code = 0
    # Process -> what it said last and when that was new; the same of points.
    now = time.monotonic()
    self._said = {i: ('', now) for i in range(count)}
    self._moved = {i: (-1, now) for i in range(count)}
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def point(self) -> None:
    """Says that this process has come to where all others come too."""
    self._points += 1

  def blame(self) -> None:
    """Ends with the name of what was just lost; returns if that is unknown."""
    self._hurry = True
    self._thread.join(8 * self._period)

  def part(self, code: int, alike: bool) -> float:
    """Watches no longer; unless they end alike the others are made to end.

    Returns:
      Seconds until all others have heard it.
    """
    self._code = code
    self._parting.set()
    self._thread.join(2 * self._period)
    if not alike:
      with contextlib.suppress(Exception):  # the store may be gone
        self._accuse(f'process {self._index} ended with code {code}')
    return 6 * self._period

  def first_is_gone(self) -> None:
    """Ends this process, which may be about to end by itself."""
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
      except Exception:  # whatever JAX raises where the store is gone
        if not self._parting.is_set():
          give_up('process 0 is gone')

  def _exchange(self, said: str) -> None:
    """Says where this process is, and hears what is wrong with others."""
    key = f'{PLACES}/{self._index}'
    self._store.key_value_set(key, said, allow_overwrite=True)
    verdicts = self._store.key_value_dir_get(VERDICT)
    if verdicts:
      self._rounds += 1
      # Not at once: this one may be about to end for the same reason and say
      # more. The first process goes last, as the store goes with it.
      if self._rounds == (4 if self._index == 0 else 2):
        give_up(verdicts[0][1])
    elif self._index == 0:
      heard = self._store.key_value_dir_get(PLACES)
      places = {int(k.rpartition('/')[2]): value for k, value in heard}
      if lost := self._lost(places, time.monotonic()):
        names = ', '.join(map(str, lost))
        self._accuse(
          f'process {names} is gone'
          if self._hurry
          else f'process {names} has not answered for {self._timeout:g} seconds'
        )

  def _accuse(self, line: str) -> None:
    key = f'{VERDICT}/{self._index}'
    self._store.key_value_set(key, line, allow_overwrite=True)

  def _lost(self, places: dict[int, str], now: float) -> list[int]:
    """The processes that are silent, or for which all others wait."""
    for index, said in places.items():
      points = int(said.split()[1])
      if self._said[index][0] != said:
        self._said[index] = said, now
      if self._moved[index][0] != points:
        self._moved[index] = points, now
    limit = 3 * self._period if self._hurry else self._timeout
    silent = [i for i, (_, at) in self._said.items() if now - at > limit]
    latest = max(at for _, at in self._moved.values())
    if silent or now - latest <= self._timeout:
      return silent
    furthest = max(points for points, _ in self._moved.values())
    return [i for i, (points, _) in self._moved.items() if points < furthest]


def give_up(reason: str) -> NoReturn:
  """Ends this process at once, with code 2; JAX would wait for the others."""
  print(f'jaxdistill: {reason}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(2)


@contextlib.contextmanager
def answering(who: str, timeout: float) -> Iterator[None]:
  """Ends this process where what is inside waits for another too long."""
  reason = f'{who} has not answered for {timeout:g} seconds'
  timer = threading.Timer(timeout, give_up, (reason,))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def relay(address: str, gone: Callable[[], None]) -> str:
  """A local address that leads to the one given, and tells when that ends.

  JAX ends a process with a stack trace when the first one closes its
  connection. Through this one it does not see that.

  Args:
    address: HOST:PORT.
    gone: called in a thread when the other side closes a connection.
  """
  host, _, port = address.rpartition(':')
  server = socket.create_server(('127.0.0.1', 0))

  def accept() -> None:
    while True:
      near, _ = server.accept()
      try:
        far = socket.create_connection((host.strip('[]'), int(port)))
      except OSError:  # it is not there yet; JAX asks again
        near.close()
        continue
      left = threading.Event()  # this side closed it

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
  """Hands on what comes until there is no more."""
  with contextlib.suppress(OSError):
    while content := source.recv(1 << 16):
      with contextlib.suppress(OSError):
        sink.sendall(content)
  ended()
  for end in (source, sink):
    with contextlib.suppress(OSError):
      end.shutdown(socket.SHUT_RDWR)
