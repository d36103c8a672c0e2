"""Columns of images, masks and depths, decoded on demand.

All of them are resized to one height and width, whatever their proportions:
images by bilinear interpolation with antialiasing, masks and depths by taking
the nearest pixel.
"""

from collections.abc import Sequence
import dataclasses
import io
from typing import Any, ClassVar

import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE
from jaxdistill.data.sources import decoding, images

# The modes of Pillow whose pixels are single numbers: palettes, and grey levels
# of 1, 8, 16 and 32 bits.
_MODES = ('1', 'P', 'L', 'I', 'I;16')
# The largest value in a mask that `values` or `ignore` may name.
_LARGEST = 2**16 - 1
# How a JPEG file begins.
_JPEG = b'\xff\xd8'
# Levels of 8, 16 and 32 bits, and floats.
_DEPTH_MODES = ('L', 'I', 'I;16', 'F')


@dataclasses.dataclass(frozen=True)
class LazyStretched(images.LazyImages):
  """A column of images, uint8 `[N, H, W, C]`; see `images.LazyImages`."""

  def _decode(self, encoded: Any) -> np.ndarray:
    image = decoding.decode(
      encoded,
      channels=self.image_shape[2],
      background=self.background,
      range=self.range,
    )
    return _resized(image, self.image_shape, 'BILINEAR')


@dataclasses.dataclass(frozen=True)
class LazyMasks(images.LazyImages):
  """A column of masks, uint8 `[N, H, W]`; `image_shape` is `(H, W)`.

  Attributes:
    table: the class of each value of the files, `IGNORE` for values that stand
      for no class, and -1 for values that must not occur. Values beyond the
      table must not occur either.
  """

  table: tuple[int, ...] = ()
  remedy: ClassVar[str] = 'correct it, or data.values and data.ignore'

  def _decode(self, encoded: Any) -> np.ndarray:
    return _resized(_mask(encoded, self.table), self.image_shape, 'NEAREST')


@dataclasses.dataclass(frozen=True)
class LazyDepths(images.LazyImages):
  """A column of depths, float16 `[N, H, W]`; `image_shape` is `(H, W)`.

  The files hold arrays of floats `[h, w]`, which are not encoded.
  """

  @property
  def dtype(self) -> np.dtype[Any]:
    """The type of the depths."""
    return np.dtype(np.float16)

  def _decode(self, encoded: Any) -> np.ndarray:
    depth = np.asarray(encoded)
    low, high = float(depth.min()), float(depth.max())
    if not (low >= 0 and high < np.inf):
      raise OSError(
        'expected finite distances, or 0 where they are unknown, got '
        f'{low:g} to {high:g}'
      )
    rows, columns = (
      (2 * np.arange(new) + 1) * old // (2 * new)
      for old, new in zip(depth.shape, self.image_shape)
    )
    nearest: np.ndarray = depth[rows[:, None], columns]
    return nearest


@dataclasses.dataclass(frozen=True)
class LazyDepthImages(LazyDepths):
  """A column of depths, float32 `[N, H, W]`, that image files hold.

  Attributes:
    unit: the metres of one level.
    ignored: the levels that stand for an unknown depth, besides 0.
  """

  unit: float = 0.001
  ignored: tuple[int, ...] = ()

  @property
  def dtype(self) -> np.dtype[Any]:
    """The type of the depths."""
    return np.dtype(np.float32)

  def _decode(self, encoded: Any) -> np.ndarray:
    levels = _pixels(encoded, _DEPTH_MODES, 'depths with one channel')
    known = ~np.isin(levels, self.ignored)
    return super()._decode(np.where(known, levels * self.unit, 0.0))


def class_table(
  values: Sequence[int], ignored: Sequence[int]
) -> tuple[int, ...]:
  """Returns the table that turns the values in masks into classes.

  Args:
    values: the value of each class.
    ignored: the values that stand for no class. 255 does so too, unless it is
      the value of a class. A class whose value is ignored does not occur.

  Raises:
    UsageError: a value is negative or too large, two classes have the same
      value, or there are more classes than the 255 other values of a byte.
  """
  if len(values) > IGNORE:
    raise UsageError(
      f'label_names: expected at most {IGNORE} classes, because masks are '
      f'bytes in which {IGNORE} stands for no class, got {len(values)}'
    )
  for name, numbers in (('values', values), ('ignore', ignored)):
    for value in numbers:
      checks.integer(name, value, at_least=0, at_most=_LARGEST)
  if len({*values}) < len(values):
    raise UsageError(
      f'values: expected a different value for each class, got {list(values)}'
    )
  table = [-1] * (max(IGNORE, *values, *ignored) + 1)
  table[IGNORE] = IGNORE
  for number, value in enumerate(values):
    table[value] = number
  for value in ignored:
    table[value] = IGNORE
  return tuple(table)


def _mask(encoded: bytes, table: Sequence[int]) -> np.ndarray:
  """Decodes a mask to uint8 `[h, w]`.

  Raises:
    OSError: the bytes are not a mask, or it has a value that must not occur;
      the message is one line.
  """
  if encoded.startswith(_JPEG):
    raise OSError(
      'expected a PNG file, got JPEG, whose compression changes the classes'
    )
  what = 'a mask with grey levels or a palette'
  values = _pixels(encoded, _MODES, what).astype(np.int64)
  classes = np.full(values.shape, -1)
  known = (values >= 0) & (values < len(table))
  classes[known] = np.array(table)[values[known]]
  if (classes < 0).any():
    valid = [k for k, number in enumerate(table) if number not in (-1, IGNORE)]
    expected = f'classes from 0 to {len(valid) - 1}'
    if valid != [*range(len(valid))]:
      expected = f'the values of the classes ({", ".join(map(str, valid))})'
    raise OSError(
      f'expected {expected}, or values that data.ignore names, got '
      f'{values[classes < 0][0]}'
    )
  return classes.astype(np.uint8)


def _pixels(encoded: bytes, modes: Sequence[str], what: str) -> np.ndarray:
  """Returns the numbers `[h, w]` that an image file holds.

  Args:
    encoded: the content of the file.
    modes: the modes of Pillow that are allowed.
    what: which images these are, for the message.

  Raises:
    OSError: the bytes are not such an image; the message is one line.
  """
  pillow = optional.require('PIL.Image', 'reading maps')
  try:
    with pillow.open(io.BytesIO(encoded), formats=decoding.formats()) as image:
      mode, values = image.mode, np.asarray(image)
  except Exception as error:  # damage may raise anything
    raise OSError(checks.reason(error)) from error
  if mode not in modes:
    raise OSError(f'expected {what}, got an image of the mode {mode}')
  return values


def _resized(pixels: np.ndarray, size: Sequence[int], how: str) -> np.ndarray:
  """Resizes uint8 `[h, w]` or `[h, w, C]` to a height and width."""
  if pixels.shape[:2] == tuple(size[:2]):
    return pixels
  pillow = optional.require('PIL.Image', 'resizing images')
  image = pillow.fromarray(pixels.squeeze())
  resized = image.resize((size[1], size[0]), getattr(pillow, how))
  return np.asarray(resized).reshape(*size[:2], *pixels.shape[2:])
