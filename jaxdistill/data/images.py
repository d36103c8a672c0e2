"""Encoded images: decoding one, and columns that decode when asked to."""

from collections.abc import Iterable, Sequence
from concurrent import futures
import dataclasses
import io
import math
import os
from typing import Protocol

import numpy as np
import PIL.Image
import PIL.ImageOps

from jaxdistill.types import UsageError

# Bytes. Decoded images above it are not kept in memory: 1 GiB.
LARGE = 1 << 30


def decode(
  encoded: bytes, *, channels: int = 3, image_size: int | None = None
) -> np.ndarray:
  """An image file's bytes as uint8 `[H, W, C]`.

  Args:
    encoded: of any format that Pillow reads.
    channels: 3 makes every image RGB, 1 makes it grey.
    image_size: the shorter side is resized to it, bilinear and antialiased,
      and the square in the middle is kept; a JPEG file of more than twice the
      size is decoded at a fraction of its own. None: as it is.

  Raises:
    OSError: the bytes are no image, or not all of one.
  """
  mode = 'RGB' if channels == 3 else 'L'
  try:
    image: PIL.Image.Image = PIL.Image.open(io.BytesIO(encoded))
    if image_size is not None:
      square = (image_size, image_size)
      # At twice the size resizing still has enough to average over.
      image.draft(mode, (2 * image_size, 2 * image_size))
      bilinear = PIL.Image.Resampling.BILINEAR
      image = PIL.ImageOps.fit(image.convert(mode), square, bilinear)
    return np.asarray(image.convert(mode)).reshape(*image.size[::-1], -1)
  except OSError:
    raise
  except (SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
    raise OSError(str(error)) from error


class Files(Protocol):
  """Where encoded images come from; it pickles, for worker processes."""

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    """Some of them; one that cannot be read is empty."""

  def name(self, place: int) -> str:
    """What a message calls it."""


@dataclasses.dataclass(frozen=True)
class LazyImages:
  """A column of images that are decoded when rows are taken.

  It stands for an array uint8 `[N, H, W, C]`: a slice or an array of rows
  gives those rows as an array.

  Attributes:
    files: the encoded images.
    places: of the rows among them, integers `[N]`.
    image_shape: `(H, W, C)`.
    resize: whether images are fitted into a square, as `decode` says; otherwise
      they all have that size.
    threads: that decode at once.
  """

  files: Files
  places: np.ndarray
  image_shape: tuple[int, int, int]
  resize: bool = False
  threads: int = dataclasses.field(default_factory=lambda: processors())

  @property
  def shape(self) -> tuple[int, ...]:
    return (len(self.places), *self.image_shape)

  @property
  def dtype(self) -> np.dtype:
    return np.dtype(np.uint8)

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    """Decodes rows.

    Raises:
      UsageError: some are no images, or of another size; the first is named.
    """
    places = self.places[rows]
    out = np.empty((len(places), *self.image_shape), np.uint8)
    if self.threads == 1:
      bad = self._fill(places, out)
    else:
      # The parts of `out` are views.
      parts = [np.array_split(x, self.threads) for x in (places, out)]
      with futures.ThreadPoolExecutor(self.threads) as pool:
        bad = [x for found in pool.map(self._fill, *parts) for x in found]
    if bad:
      raise UsageError(
        f'{len(bad)} of {len(places)} images cannot be decoded to '
        f'{self.image_shape}; the first: {self.files.name(bad[0])}; put a '
        'whole copy in its place (without it, it is another data set)'
      )
    return out

  def _fill(self, places: np.ndarray, out: np.ndarray) -> list[int]:
    """Decodes images into `out`; returns the places of those that are wrong."""
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
    """The column of some rows; decodes nothing."""
    return dataclasses.replace(self, places=self.places[rows])


def processors() -> int:
  """How many this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def is_large(shapes: Iterable[tuple[int, ...]]) -> bool:
  """Whether images `[N, H, W, C]` are too many to be decoded at once."""
  return sum(map(math.prod, shapes)) > LARGE
