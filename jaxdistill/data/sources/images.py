"""Encoded images: decoding one, and columns that are decoded on demand."""

from collections.abc import Iterable, Sequence
from concurrent import futures
import dataclasses
import io
import math
import os
from typing import Protocol

import numpy as np

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError

# Bytes; decoded images that need more are not kept in memory: 1 GiB.
LARGE = 1 << 30


def decode(
  encoded: bytes, *, channels: int = 3, image_size: int | None = None
) -> np.ndarray:
  """Decodes an image file to uint8 `[H, W, C]`.

  Args:
    encoded: the bytes of the file, in any format that Pillow reads.
    channels: 3 converts every image to RGB, 1 to grey.
    image_size: the size in pixels to which the shorter side is resized,
      bilinear and antialiased; the square in the middle is kept. A JPEG file of
      more than twice this size is decoded at a fraction of its own size. None:
      the image keeps its size.

  Raises:
    OSError: the bytes are not a complete image.
    UsageError: Pillow is not installed.
  """
  pillow = optional.require('PIL.Image', 'decoding images')
  mode = 'RGB' if channels == 3 else 'L'
  try:
    image = pillow.open(io.BytesIO(encoded))
    if image_size is not None:
      square = (image_size, image_size)
      # At twice the size, resizing still averages over enough pixels.
      image.draft(mode, (2 * image_size, 2 * image_size))
      bilinear = pillow.Resampling.BILINEAR
      fit = optional.require('PIL.ImageOps', 'decoding images').fit
      image = fit(image.convert(mode), square, bilinear)
    return np.asarray(image.convert(mode)).reshape(*image.size[::-1], -1)
  except OSError:
    raise
  except (SyntaxError, ValueError, pillow.DecompressionBombError) as error:
    raise OSError(str(error)) from error


class Files(Protocol):
  """Encoded images; can be pickled, for worker processes."""

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    """Returns the bytes of images; those of an unreadable image are empty.

    Args:
      places: the numbers of the images.
    """

  def name(self, place: int) -> str:
    """Returns the name of an image, for messages.

    Args:
      place: the number of the image.
    """


@dataclasses.dataclass(frozen=True)
class LazyImages:
  """A column of images that are decoded when rows are taken.

  It behaves like an array uint8 `[N, H, W, C]` that is indexed with a slice or
  an array of rows.

  Attributes:
    files: the encoded images.
    places: the number of each row's image in `files`, integers `[N]`.
    image_shape: `(H, W, C)`.
    resize: whether images are resized to a square, see `decode`; if not, all of
      them must have this size.
    threads: the number of threads that decode at the same time.
  """

  files: Files
  places: np.ndarray
  image_shape: tuple[int, int, int]
  resize: bool = False
  threads: int = dataclasses.field(default_factory=lambda: processors())

  @property
  def shape(self) -> tuple[int, ...]:
    """`(N, H, W, C)`."""
    return (len(self.places), *self.image_shape)

  @property
  def dtype(self) -> np.dtype[np.uint8]:
    """Of the decoded images."""
    return np.dtype(np.uint8)

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    """Decodes rows to uint8 `[n, H, W, C]`.

    Raises:
      UsageError: some rows cannot be decoded or have another size; the message
        names the first of them.
    """
    places = self.places[rows]
    out = np.empty((len(places), *self.image_shape), np.uint8)
    if self.threads == 1:
      bad = self._fill(places, out)
    else:
      # The parts of `out` are views, so the threads fill `out` itself.
      parts = [np.array_split(x, self.threads) for x in (places, out)]
      with futures.ThreadPoolExecutor(self.threads) as pool:
        bad = [x for places in pool.map(self._fill, *parts) for x in places]
    if bad:
      raise UsageError(
        f'{len(bad)} of {len(places)} images cannot be decoded to '
        f'{self.image_shape}; the first is {self.files.name(bad[0])}; replace '
        'it by an intact copy (removing it would change the data set)'
      )
    return out

  def _fill(self, places: np.ndarray, out: np.ndarray) -> list[int]:
    """Decodes images into `out`, and returns the numbers of the bad ones."""
    height, _, channels = self.image_shape
    size = height if self.resize else None
    bad = []
    encoded = self.files.read(places.tolist())
    for row, place in enumerate(places.tolist()):
      try:
        image = decode(encoded[row], channels=channels, image_size=size)
      except OSError:
        image = None
      if image is None or image.shape != self.image_shape:
        bad.append(place)
      else:
        out[row] = image
    return bad

  def select(self, rows: np.ndarray) -> 'LazyImages':
    """Returns the column of some rows, without decoding anything.

    Args:
      rows: integers `[n]`.
    """
    return dataclasses.replace(self, places=self.places[rows])


def processors() -> int:
  """Returns the number of processors that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def is_large(shapes: Iterable[tuple[int, ...]]) -> bool:
  """Returns whether decoded images would need more than 1 GiB of memory.

  Args:
    shapes: `(N, H, W, C)` of each split.
  """
  return sum(map(math.prod, shapes)) > LARGE
