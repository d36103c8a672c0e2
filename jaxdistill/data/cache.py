"""What was found in the files of a large data set, kept between runs."""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import hashlib
import os
import pathlib
import tempfile

import numpy as np


def folder() -> pathlib.Path:
  """Where the library keeps what can be made again."""
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(home, 'jaxdistill')


def remembered(
  what: str,
  files: Iterable[str | os.PathLike],
  find: Callable[[], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """What `find` returns, or returned in an earlier run on the same files.

  A file counts as the same by path, size and time of change. An entry that was
  cut short is made anew; processes may write one at the same time, as each
  writes its own and moves it into place. Nothing is kept where there is no
  place to write.

  Args:
    what: is found, with all that it depends on beside the files.
    files: that it is found in.
    find: -> name -> array.
  """
  key = hashlib.sha256(what.encode())
  for file in files:
    about = os.stat(file)
    path = os.path.abspath(file)
    key.update(f'\0{path}\0{about.st_size}\0{about.st_mtime_ns}'.encode())
  entry = folder() / 'data' / f'{key.hexdigest()}.npz'
  # A damaged file makes the readers raise anything.
  with (
    contextlib.suppress(Exception),
    np.load(entry, allow_pickle=False) as pack,
  ):
    return dict(pack)
  found = dict(find())
  with contextlib.suppress(OSError):
    _write(entry, found)
  return found


def _write(entry: pathlib.Path, found: Mapping[str, np.ndarray]) -> None:
  """Writes an entry whole or not at all."""
  entry.parent.mkdir(parents=True, exist_ok=True)
  number, partial = tempfile.mkstemp(dir=entry.parent, suffix='.partial')
  try:
    with os.fdopen(number, 'wb') as file:
      np.savez_compressed(file, allow_pickle=False, **found)
    os.replace(partial, entry)
  except BaseException:
    os.unlink(partial)
    raise
