"""Writes files completely or not at all, and names a path that fails."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
import shutil

from jaxdistill.core.checks import UsageError


@contextlib.contextmanager
def reported(path: str | os.PathLike[str]) -> Iterator[None]:
  """Turns a failure of the disk inside the `with` block into a UsageError.

  Args:
    path: what is being written, for the message.

  Raises:
    UsageError: the disk is full or read-only, a quota is used up, a folder has
      vanished, or anything else that the operating system reports.
  """
  try:
    yield
  except Exception as error:
    reason = _reason(error)
    if reason is None:
      raise
    raise UsageError(f'{path}: cannot be written ({reason})') from error


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
  """Writes a file, whose folder is made if it does not exist.

  The content goes to a second file in the same folder, which takes the place
  of the first one once it is safe on disk. So a write that fails leaves the
  file as it was, and nothing else.

  Args:
    path: the file.
    content: its content; text is written as UTF-8.

  Raises:
    UsageError: see `reported`.
  """
  data = content.encode() if isinstance(content, str) else content
  with reported(path):
    path = pathlib.Path(path).resolve()  # a link stays a link
    if path.exists() and not path.is_file():
      # Replacing a device such as /dev/null would destroy it.
      raise OSError(errno.EEXIST, 'is not a regular file')
    partial = path.with_name(path.name + '.partial')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(partial, 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      os.replace(partial, path)
    except BaseException:
      with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
      raise


def check_room(folder: str | os.PathLike[str], size: int) -> None:
  """Checks that a disk has room, for writers that do not fail cleanly.

  Args:
    folder: an existing folder on the disk.
    size: how many bytes are going to be written.

  Raises:
    OSError: there is less room, or the folder does not exist.
  """
  if shutil.disk_usage(folder).free < size:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: Exception) -> str | None:
  """Says in words why the disk failed; None for an error of another kind."""
  if isinstance(error, OSError):
    return error.strerror or str(error)
  # TensorStore, which writes checkpoints, raises ValueError.
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(code[1])) if code else None
