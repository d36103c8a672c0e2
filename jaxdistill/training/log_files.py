"""The files of a log: metrics.jsonl, and event files for TensorBoard."""

from collections.abc import Mapping
import contextlib
import errno
import functools
import json
import os
import pathlib
import socket
import struct
import sys
import time
from typing import Any

from jaxdistill.core import optional, writing
from jaxdistill.core.checks import UsageError


class AppendedFile:
  """A file to which parts are appended, each completely or not at all."""

  def __init__(self, path: pathlib.Path):
    """Opens a file, which is made if it does not exist.

    Args:
      path: the file.

    Raises:
      UsageError: the file cannot be written.
    """
    self._path = path
    with writing.reported(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      # Without a buffer, because its content would be written on closing, and
      # that can fail, too.
      self._file = path.open('ab', buffering=0)

  def append(self, part: bytes) -> None:
    """Adds bytes to the end of the file.

    Raises:
      UsageError: the file cannot be written, or somebody has deleted it. It
        keeps the parts before this one.
    """
    with writing.reported(self._path):
      status = os.fstat(self._file.fileno())
      if not status.st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
      try:
        while part:
          part = part[self._file.write(part) :]
      except OSError:
        with contextlib.suppress(OSError):
          self._file.truncate(status.st_size)
        raise

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class Records(AppendedFile):
  """A metrics.jsonl, to which records are appended."""

  def write(self, record: Mapping[str, Any]) -> None:
    """Adds a record.

    Raises:
      UsageError: the file cannot be written.
    """
    self.append(f'{json.dumps(record)}\n'.encode())


class Board:
  """An event file of TensorBoard, opened when the first scalar is written.

  tensorboardX imports PyTorch if that is installed, which takes seconds.
  Without tensorboardX nothing is written, and one line says so. Its own writer
  is not used: it writes in another thread, which a full disk ends, and the run
  would then wait for it forever.
  """

  def __init__(self, folder: pathlib.Path, purge_step: int):
    """Opens nothing yet.

    Args:
      folder: where the file goes.
      purge_step: the step from which on TensorBoard ignores older files.
    """
    self._folder = folder
    self._purge_step = purge_step
    self._events: _Events | None = None
    self._is_open = False

  def add_scalar(self, key: str, value: float, step: int) -> None:
    """Writes one number.

    Raises:
      UsageError: the file cannot be written.
    """
    if not self._is_open:
      self._is_open = True
      self._events = self._open()
    if self._events is not None:
      self._events.add_scalar(key, value, step)

  def close(self) -> None:
    """Closes the file."""
    if self._events is not None:
      self._events.close()

  def _open(self) -> '_Events | None':
    """Returns the event file, or None if tensorboardX is not installed."""
    try:
      optional.require('tensorboardX', 'TensorBoard output')
    except UsageError as error:
      _notify(str(error))
      return None
    name = f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}'
    return _Events(self._folder / name, self._purge_step)


class _Events(AppendedFile):
  """An event file: protocol buffers in the format TFRecord."""

  def __init__(self, path: pathlib.Path, purge_step: int):
    """Opens the file and writes how it begins.

    Args:
      path: the file.
      purge_step: see `Board`.
    """
    super().__init__(path)
    # Here, because only a log with TensorBoard needs these slow imports.
    from tensorboardX import record_writer, summary
    from tensorboardX.proto import event_pb2

    self._checksum = record_writer.masked_crc32c
    self._summary, self._protocol = summary, event_pb2
    self._add(file_version='brain.Event:2')
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(step=purge_step, session_log=start)

  def add_scalar(self, key: str, value: float, step: int) -> None:
    """Writes one number."""
    self._add(step=step, summary=self._summary.scalar(key, value))

  def _add(self, **fields: Any) -> None:
    """Writes one event, between its length and checksums."""
    event = self._protocol.Event(wall_time=time.time(), **fields)
    content = event.SerializeToString()
    length = struct.pack('<Q', len(content))
    self.append(
      length
      + struct.pack('<I', self._checksum(length))
      + content
      + struct.pack('<I', self._checksum(content))
    )


@functools.cache
def _notify(problem: str) -> None:
  """Says once per process that the TensorBoard files are left out."""
  print(
    f'jaxdistill: no TensorBoard files are written; {problem}',
    file=sys.stderr,
  )
