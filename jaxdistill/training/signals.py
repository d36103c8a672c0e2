"""Signals: how a user's Ctrl-C or a cluster's SIGTERM ends a run."""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys
from typing import Any

INTERRUPTED = 130  # the exit code of shells for a process that Ctrl-C ended
_MESSAGE = b'jaxdistill: interrupted\n'


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
  """Yields a function that returns whether SIGTERM or Ctrl-C has come.

  The second signal of a kind ends the process at once, because what is on disk
  suffices to resume.
  """
  received: list[int] = []

  def handle(number: int, frame: Any) -> None:
    del frame
    if number in received:
      _end_process()
    received.append(number)
    os.write(
      2,
      b'jaxdistill: stopping after this step; a second signal stops at once\n',
    )

  handlers = {
    number: signal.signal(number, handle)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield lambda: bool(received)
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def unraisable_interrupts() -> Iterator[None]:
  """Ends the process at a Ctrl-C that Python would only report.

  Python cannot raise KeyboardInterrupt where no caller could catch it, for
  example in a callback of XLA; it would print the error and continue.
  """

  def end_at_interrupt(unraisable: Any) -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
      _end_process()
    hook(unraisable)

  hook, sys.unraisablehook = sys.unraisablehook, end_at_interrupt
  try:
    yield
  finally:
    sys.unraisablehook = hook


def _end_process() -> None:
  os.write(2, _MESSAGE)
  os._exit(INTERRUPTED)
