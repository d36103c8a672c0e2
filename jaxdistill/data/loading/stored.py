"""A column of examples in several files, which need not fit into memory."""

import dataclasses
import io
import math
import pathlib
from typing import Any

import numpy as np

from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError

# The approximate size of a file in bytes.
_FILE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class StoredColumn:
  """A column `[N, ...]` whose rows are read from memory-mapped files.

  Attributes:
    folder: the folder of the files.
    shape: the shape of the column.
    dtype: the type of its entries.
  """

  folder: pathlib.Path
  shape: tuple[int, ...]
  dtype: np.dtype[Any]

  def __len__(self) -> int:
    """Returns the number of rows."""
    return self.shape[0]

  def __getitem__(self, rows: Any) -> np.ndarray:
    """Returns some rows.

    Args:
      rows: a slice, or the numbers of the rows `[n]`.

    Raises:
      UsageError: a file is missing or damaged.
    """
    rows = np.arange(len(self))[rows]
    taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
    numbers = rows // self._rows_per_file
    for number in np.unique(numbers):
      start = int(number) * self._rows_per_file
      chosen = numbers == number
      taken[chosen] = self._read(int(number))[rows[chosen] - start]
    return taken

  @property
  def nbytes(self) -> int:
    """The size of all rows in bytes."""
    return math.prod(self.shape) * self.dtype.itemsize

  def missing(self) -> dict[int, range]:
    """Returns number -> rows, for the files that do not exist yet."""
    count = -(-len(self) // self._rows_per_file)
    return {
      number: self._rows(number)
      for number in range(count)
      if not self._path(number).exists()
    }

  def write(self, number: int, rows: np.ndarray) -> None:
    """Writes a file completely or not at all.

    Args:
      number: the number of the file.
      rows: its rows.
    """
    content = io.BytesIO()
    np.save(content, rows.astype(self.dtype), allow_pickle=False)
    writing.write(self._path(number), content.getvalue())

  @property
  def _rows_per_file(self) -> int:
    row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
    return max(1, _FILE_BYTES // max(1, row_bytes))

  def _rows(self, number: int) -> range:
    start = number * self._rows_per_file
    return range(start, min(len(self), start + self._rows_per_file))

  def _path(self, number: int) -> pathlib.Path:
    return self.folder / f'{number:05d}.npy'

  def _read(self, number: int) -> np.ndarray:
    """Returns the rows of a file, which stay on the disk until they are used.

    Raises:
      UsageError: the file is missing or damaged.
    """
    path = self._path(number)
    shape = (len(self._rows(number)), *self.shape[1:])
    try:
      rows: np.ndarray = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      raise UsageError(f'{path}: cannot be read; delete it') from error
    if rows.shape != shape or rows.dtype != self.dtype:
      raise UsageError(
        f'{path}: expected {self.dtype} {list(shape)}, got {rows.dtype} '
        f'{list(rows.shape)}; delete it'
      )
    return rows
