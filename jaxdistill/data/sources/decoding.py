"""Image files: which of them Pillow reads, their sizes and their pixels."""

from collections.abc import Sequence
import io
import os
import stat
from typing import Any, BinaryIO

import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError

# Formats whose pixels Pillow does not decode: it only writes them, or it only
# recognises them, or it runs another program on them (EPS).
NOT_DECODED = frozenset(
  ('BUFR', 'EPS', 'GRIB', 'HDF5', 'MPEG', 'PALM', 'PDF', 'WMF')
)
COLOURS = {'white': (255, 255, 255), 'black': (0, 0, 0)}
WHITE = COLOURS['white']
_ORIENTATION = 0x0112  # the tag of EXIF
# Orientation -> the name of Pillow's operation that makes an image upright.
_UPRIGHT = {
  2: 'FLIP_LEFT_RIGHT',
  3: 'ROTATE_180',
  4: 'FLIP_TOP_BOTTOM',
  5: 'TRANSPOSE',
  6: 'ROTATE_270',
  7: 'TRANSVERSE',
  8: 'ROTATE_90',
}
# Tags of TIFF:
_WIDTH_HEIGHT = (256, 257)
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_SAMPLE_FORMAT = 339
_SIGNED = 2


def read_image(
  file: str | os.PathLike[str] | bytes,
  *,
  channels: int = 3,
  image_size: int | None = None,
  background: str | Sequence[int] = 'white',
  range: Sequence[float] | None = None,
) -> np.ndarray:
  """Reads an image file as uint8 `[H, W, C]`, as the data sets do.

  The image is turned as its EXIF orientation says, and transparent pixels show
  the background. Levels of 16 bits are scaled by the range of their type, and
  so are those of 32 bits if they are from 0 to 65,535. Floating-point levels
  are scaled from [0, 1]. The first image of a file is read.

  Args:
    file: the path of the file, or its bytes, in any format that Pillow decodes.
    channels: 3 converts every image to RGB, 1 to grey.
    image_size: the height and width in pixels of the result: the shorter side
      is resized to it, and the square in the middle is kept, as the data set
      `images` does. None: the image keeps its size.
    background: 'white', 'black', or the red, green and blue, 0 to 255, that
      show through transparent pixels.
    range: the levels that become 0 and 255 in images of more than 8 bits or
      with floating-point levels; levels beyond them are clipped. None: the
      range of the type.

  Raises:
    UsageError: the file is missing, is not a regular file or not a complete
      image, or has levels outside the range of its type.
  """
  if channels not in (1, 3):
    raise UsageError(f'channels: expected 1 or 3, got {channels!r}')
  if image_size is not None:
    checks.integer('image_size', image_size)
  colour = checked_background('background', background)
  levels = checked_range('range', range)
  if not isinstance(file, bytes | str | os.PathLike):
    raise UsageError(
      f'file: expected a path or the bytes of a file, got {type(file).__name__}'
    )
  name = 'the bytes' if isinstance(file, bytes) else repr(os.fspath(file))
  try:
    encoded = file if isinstance(file, bytes) else content(file)
    return decode(
      encoded,
      channels=channels,
      image_size=image_size,
      background=colour,
      range=levels,
    )
  except (OSError, ValueError) as error:  # a path may be no valid one
    raise UsageError(
      f'cannot read {name} as an image: {checks.reason(error)}'
    ) from None


def decode(
  encoded: bytes,
  *,
  channels: int = 3,
  image_size: int | tuple[int, int] | None = None,
  background: tuple[int, ...] = WHITE,
  range: tuple[float, float] | None = None,
) -> np.ndarray:
  """Decodes an image file to uint8 `[H, W, C]`, see `read_image`.

  Args:
    encoded: the bytes of the file.
    channels: 3 converts every image to RGB, 1 to grey.
    image_size: the size in pixels to which the shorter side is resized,
      bilinear and antialiased; the square in the middle is kept. A JPEG file of
      more than twice this size is decoded at a fraction of its own size. A
      height and a width: the image is resized to fit into them, see
      `fitted_size`, and is placed at the top left; the rest is black. None: the
      image keeps its size.
    background: the red, green and blue behind transparent pixels.
    range: the levels that become 0 and 255 in images of more than 8 bits.

  Raises:
    OSError: the bytes are not a complete image, or its levels have no range;
      the message is one line.
    UsageError: Pillow is not installed.
  """
  pillow = optional.require('PIL.Image', 'decoding images')
  fit = optional.require('PIL.ImageOps', 'decoding images').fit
  mode = 'RGB' if channels == 3 else 'L'
  if not encoded:
    raise OSError('the file is empty or cannot be opened')
  try:
    with pillow.open(io.BytesIO(encoded), formats=formats()) as image:
      if isinstance(image_size, int):
        # At twice the size, resizing still averages over enough pixels.
        image.draft(mode, (2 * image_size, 2 * image_size))
      image.load()
      pixels = _converted(_eight_bits(image, range), mode, background)
      pixels = _upright(pixels, _orientation(image))
    if isinstance(image_size, int):
      square = (image_size, image_size)
      pixels = fit(pixels, square, pillow.Resampling.BILINEAR)
    elif image_size is not None:
      size, _ = fitted_size(pixels.size[::-1], image_size)
      canvas = pillow.new(mode, image_size[::-1])
      canvas.paste(pixels.resize(size[::-1], pillow.Resampling.BILINEAR))
      pixels = canvas
    return np.asarray(pixels).reshape(*pixels.size[::-1], -1)
  except Exception as error:  # damage may raise anything in Pillow's decoders
    raise _unreadable(error) from error


def fitted_size(
  size: tuple[int, int], into: tuple[int, int]
) -> tuple[tuple[int, int], float]:
  """Returns the size of an image after resizing, and the factor on its sides.

  Args:
    size: the height and width of the image.
    into: the height and width into which it must fit; except for rounding, the
      ratio of its sides is kept.
  """
  scale = min(into[0] / size[0], into[1] / size[1])
  height, width = (
    min(limit, max(1, round(side * scale))) for side, limit in zip(size, into)
  )
  return (height, width), scale


def size(image_file: str | bytes, *, upright: bool = True) -> tuple[int, int]:
  """Returns (height, width) of an image file, without decoding its pixels.

  Args:
    image_file: the path of the file, or its bytes.
    upright: whether the size is that after the image has been turned as its
      EXIF orientation says. A PNG file that is not square and has no EXIF must
      be decoded for this, because its EXIF may follow the pixels.

  Raises:
    OSError: this is not an image; the message is one line.
  """
  pillow = optional.require('PIL.Image', 'decoding images')
  with (
    io.BytesIO(image_file)
    if isinstance(image_file, bytes)
    else open_regular(image_file)
  ) as file:
    try:
      with pillow.open(file, formats=formats()) as image:
        width, height = image.size
        if image.format == 'TIFF':  # some versions of Pillow turn its size
          width, height = (image.tag_v2[tag] for tag in _WIDTH_HEIGHT)
        if not upright or width == height:
          return height, width
        turned = _orientation(image) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)
    except Exception as error:  # see `decode`
      raise _unreadable(error) from error


def is_upright(encoded: bytes) -> bool:
  """Returns whether the EXIF orientation leaves an image as it is stored.

  Args:
    encoded: the bytes of the file.

  Raises:
    OSError: this is not an image; the message is one line.
  """
  pillow = optional.require('PIL.Image', 'decoding images')
  try:
    with pillow.open(io.BytesIO(encoded), formats=formats()) as image:
      return _orientation(image) not in _UPRIGHT
  except Exception as error:  # see `decode`
    raise _unreadable(error) from error


def content(path: str | os.PathLike[str]) -> bytes:
  """Returns the bytes of a regular file.

  Args:
    path: the file.

  Raises:
    OSError: there is no such file, it cannot be read, or it is a folder, a
      pipe, a device or a socket.
  """
  with open_regular(path) as file:
    return file.read()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
  """Opens a regular file; nothing else is opened, as that may block forever.

  Args:
    path: the file.

  Raises:
    OSError: there is no such file, it cannot be read, or it is a folder, a
      pipe, a device or a socket.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise OSError('it is not a regular file')
  return open(path, 'rb')


def formats() -> tuple[str, ...]:
  """Returns the names of the formats that Pillow decodes."""
  pillow = optional.require('PIL.Image', 'decoding images')
  pillow.init()
  return tuple(name for name in pillow.ID if name not in NOT_DECODED)


def suffixes() -> set[str]:
  """Returns the file name extensions of images, such as '.png'."""
  pillow = optional.require('PIL.Image', 'decoding images')
  known = pillow.registered_extensions()
  return {suffix for suffix, name in known.items() if name not in NOT_DECODED}


def checked_background(
  name: str, background: str | Sequence[int]
) -> tuple[int, ...]:
  """Returns the red, green and blue of a background.

  Args:
    name: the name of the argument, for messages.
    background: a name of `COLOURS`, or red, green and blue from 0 to 255.

  Raises:
    UsageError: it is neither.
  """
  if isinstance(background, str):
    return COLOURS[checks.choice(name, background, COLOURS)]
  if not isinstance(background, Sequence):
    raise UsageError(
      f"{name}: expected 'white', 'black' or three numbers, got {background!r}"
    )
  channels = checks.length(name, background, 3, 'channels')
  return tuple(
    checks.integer(name, x, at_least=0, at_most=255) for x in channels
  )


def checked_range(
  name: str, range: Sequence[float] | None
) -> tuple[float, float] | None:
  """Returns the levels that become 0 and 255.

  Args:
    name: the name of the argument, for messages.
    range: two different numbers; None stays None.

  Raises:
    UsageError: it is something else.
  """
  if range is None:
    return None
  if isinstance(range, Sequence) and len(range) == 2:
    black, white = (checks.number(name, x) for x in range)
    if black != white:
      return black, white
  raise UsageError(
    f'{name}: expected two different numbers, the levels of black and white, '
    f'got {range!r}'
  )


def _eight_bits(image: Any, range: tuple[float, float] | None) -> Any:
  """Returns an image of any mode as one of a mode with 8 bits."""
  if image.mode not in ('I', 'F') and not image.mode.startswith('I;16'):
    if _is_signed(image):
      raise OSError('expected levels of 8 bits without a sign')
    return image
  levels = np.asarray(image)
  black, white = range or _type_range(image)
  if range is None:
    low, high = sorted((black, white))
    if not (levels.min() >= low and levels.max() <= high):  # NaN included
      raise OSError(
        f'expected levels from {low:g} to {high:g} in an image of mode '
        f'{image.mode}, got {levels.min():g} to {levels.max():g}; name the '
        'levels of black and white with the key `range`'
      )
  elif not np.isfinite(levels).all():
    raise OSError('expected finite levels, got NaN or infinite ones')
  shares = (levels.astype(np.float64) - black) / (white - black)
  grey = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
  pillow = optional.require('PIL.Image', 'decoding images')
  scaled = pillow.fromarray(grey)
  transparent = image.info.get('transparency')
  if isinstance(transparent, int):  # one level of a PNG file
    alpha = np.where(levels == transparent, 0, 255).astype(np.uint8)
    scaled.putalpha(pillow.fromarray(alpha))
  return scaled


def _type_range(image: Any) -> tuple[float, float]:
  """Returns the levels of black and white of an image's type.

  Raises:
    OSError: the type has a sign, so that its levels may mean anything.
  """
  tags = getattr(image, 'tag_v2', {})  # of a TIFF file
  if _is_signed(image):
    raise OSError(
      'expected levels without a sign; name the levels of black and white with '
      'the key `range`'
    )
  bits = min((16, *tags.get(_BITS_PER_SAMPLE, ())))
  white = 1 if image.mode == 'F' else (1 << bits) - 1
  return (white, 0) if tags.get(_PHOTOMETRIC) == 0 else (0, white)


def _is_signed(image: Any) -> bool:
  """Returns whether the levels of a file have 8 or 16 bits with a sign.

  Integers of 32 bits are used for levels without a sign too.
  """
  tags = getattr(image, 'tag_v2', {})
  is_wide = max(tags.get(_BITS_PER_SAMPLE, (0,))) > 16
  is_signed = _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and not is_wide
  return image.format == 'FITS' or is_signed


def _converted(image: Any, mode: str, background: tuple[int, ...]) -> Any:
  """Returns an image as RGB or grey (L), on a background."""
  pillow = optional.require('PIL.Image', 'decoding images')
  if image.mode == 'La':  # Pillow converts it to no other mode
    image = image.convert('LA')
  if image.has_transparency_data:
    canvas = pillow.new('RGBA', image.size, (*background, 255))
    image = pillow.alpha_composite(canvas, image.convert('RGBA'))
  if image.mode == 'LAB':  # Pillow does not convert it to grey
    image = image.convert('RGB')
  return image.convert(mode)


def _orientation(image: Any) -> int:
  """Returns the EXIF orientation of an image: 1 to 8, where 1 is upright."""
  try:
    return int(image.getexif().get(_ORIENTATION, 1))
  except Exception:  # an image with damaged EXIF is still an image
    return 1


def _upright(image: Any, orientation: int) -> Any:
  """Returns an image turned as its EXIF orientation says."""
  if orientation not in _UPRIGHT:
    return image
  pillow = optional.require('PIL.Image', 'decoding images')
  return image.transpose(pillow.Transpose[_UPRIGHT[orientation]])


def _unreadable(error: Exception) -> OSError:
  """Returns the error for an image that cannot be read, in one line."""
  pillow = optional.require('PIL.Image', 'decoding images')
  if isinstance(error, pillow.UnidentifiedImageError):
    return OSError('its content is in no image format that Pillow decodes')
  return OSError(checks.reason(error))
