"""The image operations of AutoAugment, one per image, as Pillow does them.

A batch is one program: shear, translation and rotation are one gather with a
matrix per image, blends one blend with a picture per image, and what maps grey
levels one table per image and channel. Each image takes what it asked for.
"""

import jax.numpy as jnp
import numpy as np

from jaxdistill.types import Array

# The order is that of the numbers that `operate` takes.
OPERATIONS = (
  *('identity', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate'),
  *('color', 'contrast', 'brightness', 'sharpness'),
  *('posterize', 'solarize', 'invert', 'autocontrast', 'equalize'),
)
NUMBER = {name: i for i, name in enumerate(OPERATIONS)}
# Have two directions, of which chance takes one.
SIGNED = OPERATIONS[1:10]


def amounts(shares: np.ndarray) -> np.ndarray:
  """How strong each operation is, without sign.

  Shear up to 0.3, translation up to 150/331 of the side, rotation up to 30
  degrees, blends up to 0.9, 8 to 4 bits, thresholds from 256 down to 0.

  Args:
    shares: of the largest strength, `[N]` in [0, 1].

  Returns:
    `[len(OPERATIONS), N]`.
  """
  made = {
    **dict.fromkeys(('shear_x', 'shear_y'), 0.3 * shares),
    **dict.fromkeys(('translate_x', 'translate_y'), 150 / 331 * shares),
    'rotate': 30 * shares,
    **dict.fromkeys(OPERATIONS[6:10], 0.9 * shares),
    'posterize': np.round(8 - 4 * shares),
    'solarize': 256 * (1 - shares),
  }
  zeros = np.zeros_like(shares)
  return np.stack([made.get(name, zeros) for name in OPERATIONS])


def operate(image: Array, operation: Array, amount: Array, fill: int) -> Array:
  """One operation on each image.

  Args:
    image: uint8 `[B, H, W, C]`.
    operation: numbers of `OPERATIONS`, `[B]`.
    amount: see `amounts`, with a sign where there is one, `[B]`; blends weigh
      the image by 1 + amount.
    fill: grey level of what comes from outside the image.

  Returns:
    uint8 `[B, H, W, C]`.
  """
  image = _moved(image, _matrices(image.shape, operation, amount), fill)
  image = _blended(image, operation, amount)
  return _looked_up(image, operation, amount)


def _is(operation: Array, *names: str) -> Array:
  found = [operation == NUMBER[name] for name in names]
  return jnp.stack(found).any(0)


def _matrices(shape: tuple[int, ...], operation: Array, amount: Array) -> Array:
  """Where each pixel comes from: x' = a x + b y + c, y' = d x + e y + f.

  `[B, 6]`; the identity where the operation is no such one.
  """
  height, width = shape[1:3]

  def of(name: str, value: Array | float, otherwise: float = 0.0) -> Array:
    return jnp.where(_is(operation, name), value, otherwise)

  angle = -of('rotate', amount) * (np.pi / 180)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  x, y = width / 2, height / 2
  return jnp.stack(
    [
      cos,
      sin + of('shear_x', amount),
      of('translate_x', amount * width) + x - cos * x - sin * y,
      -sin + of('shear_y', amount),
      cos,
      of('translate_y', amount * height) + y + sin * x - cos * y,
    ],
    -1,
  )


def _moved(image: Array, matrix: Array, fill: int) -> Array:
  """The nearest pixel of where each one comes from.

  In fixed point with 16 bits behind the point, as Pillow does it, which decides
  pixels that lie on an edge.
  """
  count, height, width, channels = image.shape
  rows, columns = jnp.mgrid[:height, :width]
  matrix = matrix.at[:, 2].add(0.5 * (matrix[:, 0] + matrix[:, 1]))
  matrix = matrix.at[:, 5].add(0.5 * (matrix[:, 3] + matrix[:, 4]))
  fixed = jnp.floor(matrix * 65536 + 0.5).astype(jnp.int32)
  a, b, c, d, e, f = fixed.T[:, :, None, None]
  x = (a * columns[None] + b * rows[None] + c) >> 16
  y = (d * columns[None] + e * rows[None] + f) >> 16
  inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  place = jnp.where(inside, y * width + x, height * width).reshape(count, -1, 1)
  # One pixel more stands for all that is outside.
  flat = jnp.pad(
    image.reshape(count, -1, channels),
    ((0, 0), (0, 1), (0, 0)),
    constant_values=fill,
  )
  return jnp.take_along_axis(flat, place, 1).reshape(image.shape)


def _blended(image: Array, operation: Array, amount: Array) -> Array:
  """other + (1 + amount) * (image - other), cut off at black and white."""
  operation, amount = (x[:, None, None, None] for x in (operation, amount))
  grey = _grey(image)
  mean = jnp.floor(
    grey.astype(jnp.float32).mean((1, 2, 3), keepdims=True) + 0.5
  )
  other = jnp.where(_is(operation, 'sharpness'), _smooth(image), 0)
  other = jnp.where(_is(operation, 'contrast'), mean.astype(jnp.int32), other)
  other = jnp.where(_is(operation, 'color'), grey, other)
  factor = jnp.where(_is(operation, *OPERATIONS[6:10]), 1 + amount, 1.0)
  mixed = other + factor * (image.astype(jnp.int32) - other)
  return jnp.clip(mixed, 0, 255).astype(jnp.uint8)


def _grey(image: Array) -> Array:
  """Luminance by ITU-R 601 in integers, or the mean of other channels."""
  image = image.astype(jnp.int32)
  if image.shape[-1] != 3:
    return image.sum(-1, keepdims=True) // image.shape[-1]
  weights = jnp.array([19595, 38470, 7471], jnp.int32).reshape(1, 1, 1, 3)
  return ((image * weights).sum(-1, keepdims=True) + 32768) >> 16


def _smooth(image: Array) -> Array:
  """Means of 3 x 3 pixels, the middle one five times; edges stay."""
  image = image.astype(jnp.int32)
  height, width = image.shape[1:3]
  total = 4 * image[:, 1:-1, 1:-1]
  for i in range(3):
    for j in range(3):
      total += image[:, i : height - 2 + i, j : width - 2 + j]
  return image.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def _looked_up(image: Array, operation: Array, amount: Array) -> Array:
  """Each grey level becomes another, by a table per image and channel."""
  count, channels = image.shape[0], image.shape[-1]
  # `[B, C, H * W]`
  flat = jnp.moveaxis(image, -1, 1).reshape(count, channels, -1)
  flat = flat.astype(jnp.int32)
  table = _table(_histogram(flat), operation, amount)
  found = jnp.take_along_axis(table, flat, 2).astype(jnp.uint8)
  found = found.reshape(count, channels, *image.shape[1:3])
  return jnp.moveaxis(found, 1, -1)


def _histogram(flat: Array) -> Array:
  """How often each level is there: `[B, C, N]` -> `[B, C, 256]`."""
  count, channels, _ = flat.shape
  own = jnp.arange(count * channels).reshape(count, channels, 1)
  levels = jnp.bincount((own * 256 + flat).reshape(-1), length=own.size * 256)
  return levels.reshape(count, channels, 256)


def _table(histogram: Array, operation: Array, amount: Array) -> Array:
  """Level -> level, `[B, C, 256]`."""
  operation, amount = operation[:, None, None], amount[:, None, None]
  level = jnp.broadcast_to(jnp.arange(256), histogram.shape)
  there = histogram > 0
  low = there.argmax(-1, keepdims=True)
  high = 255 - there[..., ::-1].argmax(-1, keepdims=True)
  stretched = (level - low) * 255 // jnp.maximum(high - low, 1)
  stretched = jnp.where(high > low, jnp.clip(stretched, 0, 255), level)
  last = jnp.take_along_axis(histogram, high, -1)
  step = (histogram.sum(-1, keepdims=True) - last) // 255
  before = jnp.cumsum(histogram, -1) - histogram
  evened = (before + step // 2) // jnp.maximum(step, 1)
  evened = jnp.where(step > 0, jnp.clip(evened, 0, 255), level)
  bits = jnp.where(_is(operation, 'posterize'), amount, 8).astype(jnp.int32)
  chosen = (level >> (8 - bits)) << (8 - bits)
  threshold = jnp.where(_is(operation, 'invert'), 0, amount)
  inverted = _is(operation, 'invert', 'solarize') & (level >= threshold)
  chosen = jnp.where(inverted, 255 - level, chosen)
  chosen = jnp.where(_is(operation, 'autocontrast'), stretched, chosen)
  return jnp.where(_is(operation, 'equalize'), evened, chosen)
