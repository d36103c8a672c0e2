"""Image files on disk: columns of them, and the sizes of their images."""

from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.data.loading import cache
from jaxdistill.data.sources import class_folders, decoding


class Paths(NamedTuple):
  """Image files on disk, see `images.Files`."""

  paths: tuple[str, ...]

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    return [_content(self.paths[place]) for place in places]

  def name(self, place: int) -> str:
    return class_folders.printable(self.paths[place])


class Sizes(NamedTuple):
  """The sizes of image files.

  Attributes:
    sizes: (height, width) of each image, `[N, 2]`; 0 if it is unreadable.
    unreadable: the number of a file that is not an image -> why.
  """

  sizes: np.ndarray
  unreadable: Mapping[int, str]


class _Incomplete(Exception):
  """Some files are not images, so that their sizes are not worth keeping."""


def sizes(paths: Sequence[str], *, upright: bool) -> Sizes:
  """Returns the sizes of image files, from the beginning of each file.

  If all of them can be read, the sizes are cached until a file changes.

  Args:
    paths: the files.
    upright: see `decoding.size`.
  """
  unreadable: dict[int, str] = {}

  def measured() -> dict[str, np.ndarray]:
    def size(path: str) -> tuple[int, int] | str:
      try:
        return decoding.size(path, upright=upright)
      except OSError as error:
        return checks.reason(error)

    with futures.ThreadPoolExecutor() as pool:
      entries = list(pool.map(size, paths))
    unreadable.update(
      (i, entry) for i, entry in enumerate(entries) if isinstance(entry, str)
    )
    if unreadable:
      raise _Incomplete([(0, 0) if isinstance(x, str) else x for x in entries])
    return {'sizes': np.array(entries, np.int32)}

  what = f'sizes of {"upright" if upright else "stored"} images'
  try:
    try:
      table = cache.remembered(what, paths, measured)
    except OSError:  # a file is missing, which its reason will say
      table = measured()
  except _Incomplete as error:
    (entries,) = error.args
    return Sizes(np.array(entries, np.int32), unreadable)
  return Sizes(table['sizes'], {})


def turned(paths: Sequence[str]) -> np.ndarray:
  """Returns whether the EXIF orientation of image files turns or mirrors them.

  The result, booleans `[N]`, is cached until a file changes.

  Args:
    paths: files that are images.
  """

  def is_upright(path: str) -> bool:
    return decoding.is_upright(decoding.content(path))

  def measured() -> dict[str, np.ndarray]:
    with futures.ThreadPoolExecutor() as pool:
      upright = pool.map(is_upright, paths)
      return {'turned': ~np.fromiter(upright, bool, len(paths))}

  return cache.remembered('orientations', paths, measured)['turned']


def _content(path: str) -> bytes:
  try:
    return decoding.content(path)
  except OSError:
    return b''
