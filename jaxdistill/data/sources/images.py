"""Columns of encoded images, which are decoded on demand."""

from collections.abc import Iterable, Sequence
from concurrent import futures
import dataclasses
import math
from typing import Any, ClassVar, Protocol

import numpy as np

from jaxdistill.core import checks, cpu
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import decoding

# Bytes; decoded images that need more are not kept in memory: 1 GiB.
LARGE = 1 << 30


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
    image_shape: `(H, W, C)`, or `(H, W)` for a column of masks or depths.
    resize: whether images are resized to a square, see `decoding.decode`; if
      not, all of them must have this size.
    background: the red, green and blue behind transparent pixels.
    range: the levels that become 0 and 255 in images of more than 8 bits; None:
      the range of their type.
    threads: the number of threads that decode at the same time.
    letterbox: whether images are resized to fit into this size, see
      `decoding.decode`.
  """

  files: Files
  places: np.ndarray
  image_shape: tuple[int, ...]
  resize: bool = False
  background: tuple[int, ...] = decoding.WHITE
  range: tuple[float, float] | None = None
  threads: int = dataclasses.field(default_factory=cpu.cores)
  letterbox: bool = False
  # What to do with a file that cannot be decoded.
  remedy: ClassVar[str] = 'replace it by an intact copy, or remove it'

  @property
  def shape(self) -> tuple[int, ...]:
    """`(N, H, W, C)`, or `(N, H, W)` for masks or depths."""
    return (len(self.places), *self.image_shape)

  @property
  def dtype(self) -> np.dtype[Any]:
    """The type of the decoded images."""
    return np.dtype(np.uint8)

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    """Decodes rows to uint8 `[n, H, W, C]`.

    Raises:
      UsageError: some rows cannot be decoded or have another size; the message
        names the first of them and says why.
    """
    places = self.places[rows]
    out, bad = self.decoded(places)
    if bad:
      place, reason = bad[0]
      raise UsageError(
        f'{len(bad)} of {len(places)} images cannot be decoded ({reason}); the '
        f'first is {self.files.name(place)}; {self.remedy}'
      )
    return out

  def decoded(
    self, places: np.ndarray
  ) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Decodes images; returns them and the bad ones' numbers and reasons.

    Args:
      places: the numbers of the images in `files`, `[n]`.

    Returns:
      uint8 `[n, H, W, C]`, in which the bad ones are arbitrary, and (number,
      reason) of each bad one.
    """
    out = np.empty((len(places), *self.image_shape), self.dtype)
    if self.threads == 1:
      return out, self._fill(places, out)
    # The parts of `out` are views, so the threads fill `out` itself.
    parts = [np.array_split(x, self.threads) for x in (places, out)]
    with futures.ThreadPoolExecutor(self.threads) as pool:
      bad = [x for part in pool.map(self._fill, *parts) for x in part]
    return out, bad

  def _fill(self, places: np.ndarray, out: np.ndarray) -> list[tuple[int, str]]:
    """Decodes images into `out`; returns the bad ones' numbers and reasons."""
    bad = []
    encoded = self.files.read(places.tolist())
    for row, place in enumerate(places.tolist()):
      try:
        image = self._decode(encoded[row])
        if image.shape != self.image_shape:
          raise OSError(
            f'expected the shape {list(self.image_shape)}, got '
            f'{list(image.shape)}'
          )
        out[row] = image
      except OSError as error:
        bad.append((place, checks.reason(error)))
    return bad

  def _decode(self, encoded: Any) -> np.ndarray:
    """Decodes one image.

    Raises:
      OSError: the bytes are not a complete image; the message is one line.
    """
    height, width, channels = self.image_shape
    size = (height, width) if self.letterbox else None
    return decoding.decode(
      encoded,
      channels=channels,
      image_size=height if self.resize else size,
      background=self.background,
      range=self.range,
    )

  def select(self, rows: np.ndarray) -> 'LazyImages':
    """Returns the column of some rows, without decoding anything.

    Args:
      rows: integers `[n]`.
    """
    return dataclasses.replace(self, places=self.places[rows])


def is_large(shapes: Iterable[tuple[int, ...]]) -> bool:
  """Returns whether decoded images would need more than 1 GiB of memory.

  Args:
    shapes: `(N, H, W, C)` of each split.
  """
  return sum(map(math.prod, shapes)) > LARGE
