"""A switch that traces convolutions as XLA's own operations.

The forms that are fast on one backend are of no use in a program that is
converted for another runtime: its converter knows ordinary convolutions, and
may not know the operations that a fast form consists of.
"""

from collections.abc import Iterator
import contextlib
import contextvars

_active = contextvars.ContextVar('plain', default=False)


@contextlib.contextmanager
def convolutions() -> Iterator[None]:
  """Makes programs that are traced inside it hold ordinary convolutions only.

  A function that `jax.jit` has traced for the same shapes before is not traced
  again, so trace a new function.
  """
  token = _active.set(True)
  try:
    yield
  finally:
    _active.reset(token)


def is_active() -> bool:
  """Returns whether a program is being traced with ordinary convolutions."""
  return _active.get()
