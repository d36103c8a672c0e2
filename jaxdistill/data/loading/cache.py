"""A cache of facts about the files of large data sets, kept between runs."""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import hashlib
import os
import pathlib
import tempfile

import numpy as np


def folder() -> pathlib.Path:
  """Returns the folder for files that can be computed again."""
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(home, 'jaxdistill')


def remembered(
  what: str,
  files: Iterable[str | os.PathLike[str]],
  compute: Callable[[], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """Returns the result of a function, from the cache if the files are the same.

  A file counts as the same if its path, size and time of modification are. A
  damaged entry is computed again. Several processes may write the same entry at
  the same time, because each writes its own file and moves it into place. If
  the cache folder cannot be written to, nothing is kept.

  Args:
    what: a description of the result, which must contain everything that the
      result depends on besides the files.
    files: the files that the result depends on.
    compute: () -> {name: array}.
  """
  key = hashlib.sha256(what.encode())
  for file in files:
    status = os.stat(file)
    path = os.fsencode(os.path.abspath(file))  # a name may be no UTF-8
    key.update(b'\0%b\0%d\0%d' % (path, status.st_size, status.st_mtime_ns))
  entry = folder() / 'data' / f'{key.hexdigest()}.npz'
  # Reading a damaged file may raise anything.
  with (
    contextlib.suppress(Exception),
    np.load(entry, allow_pickle=False) as pack,
  ):
    return dict(pack)
  arrays = dict(compute())
  with contextlib.suppress(OSError):
    _write(entry, arrays)
  return arrays


def _write(entry: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an entry completely or not at all."""
  entry.parent.mkdir(parents=True, exist_ok=True)
  descriptor, partial = tempfile.mkstemp(dir=entry.parent, suffix='.partial')
  try:
    with os.fdopen(descriptor, 'wb') as file:
      np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(partial, entry)
  except BaseException:
    os.unlink(partial)
    raise
