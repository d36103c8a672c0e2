"""The image operations of AutoAugment, with the results of Pillow.

Each image of a batch can have another operation, but one program serves all of
them: shear, translation and rotation are one gather with a matrix per image,
blends are one blend with another image each, and operations that map grey
levels are one table per image and channel.
"""

import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import Array

# `operate` refers to an operation by its index in this list.
OPERATIONS = (
  *('identity', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate'),
  *('color', 'contrast', 'brightness', 'sharpness'),
  *('posterize', 'solarize', 'invert', 'autocontrast', 'equalize'),
)
NUMBER = {name: i for i, name in enumerate(OPERATIONS)}
# Operations with two directions, one of which is chosen at random.
SIGNED = OPERATIONS[1:10]


def amounts(shares: np.ndarray) -> np.ndarray:
  """Returns the amounts of all operations, without sign.

  At the largest strength, shear is 0.3, translation 150/331 of the side,
  rotation 30 degrees, blends 0.9; posterizing keeps 4 bits (8 at the smallest),
  and solarizing has the threshold 0 (256 at the smallest).

  Args:
    shares: strengths as fractions of the largest, `[N]` in [0, 1].

  Returns:
    `[len(OPERATIONS), N]`.
  """
  by_name = {
    **dict.fromkeys(('shear_x', 'shear_y'), 0.3 * shares),
    **dict.fromkeys(('translate_x', 'translate_y'), 150 / 331 * shares),
    'rotate': 30 * shares,
    **dict.fromkeys(OPERATIONS[6:10], 0.9 * shares),
    'posterize': np.round(8 - 4 * shares),
    'solarize': 256 * (1 - shares),
  }
  zeros = np.zeros_like(shares)
  return np.stack([by_name.get(name, zeros) for name in OPERATIONS])


def operate(image: Array, operation: Array, amount: Array, fill: int) -> Array:
  """Applies one operation to each image.

  Args:
    image: uint8 `[B, H, W, C]`.
    operation: indices into `OPERATIONS`, `[B]`.
    amount: see `amounts`, `[B]`, with a sign for `SIGNED` operations; blends
      weight the image by 1 + amount.
    fill: the grey level of pixels that come from outside the image.

  Returns:
    uint8 `[B, H, W, C]`.
  """
  image = _moved(image, _matrices(image.shape, operation, amount), fill)
  image = _blended(image, operation, amount)
  return _looked_up(image, operation, amount)


def _is(operation: Array, *names: str) -> Array:
  matches = [operation == NUMBER[name] for name in names]
  return jnp.stack(matches).any(0)


def _matrices(shape: tuple[int, ...], operation: Array, amount: Array) -> Array:
  """Returns where each pixel comes from: x' = ax + by + c, y' = dx + ey + f.

  Returns:
    (a, b, c, d, e, f) for each image, `[B, 6]`; the identity for operations
    that do not move pixels.
  """
  height, width = shape[1:3]

  def value_for(name: str, value: Array | float) -> Array:
    return jnp.where(_is(operation, name), value, 0.0)

  angle = -value_for('rotate', amount) * (np.pi / 180)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  x, y = width / 2, height / 2
  return jnp.stack(
    [
      cos,
      sin + value_for('shear_x', amount),
      value_for('translate_x', amount * width) + x - cos * x - sin * y,
      -sin + value_for('shear_y', amount),
      cos,
      value_for('translate_y', amount * height) + y + sin * x - cos * y,
    ],
    -1,
  )


def _moved(image: Array, matrix: Array, fill: int) -> Array:
  """Takes each pixel from the nearest pixel of its origin.

  The origins are computed in fixed point with 16 fractional bits, as in Pillow,
  because rounding decides which pixel is the nearest.
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
  # One additional pixel represents everything outside the image.
  flat = jnp.pad(
    image.reshape(count, -1, channels),
    ((0, 0), (0, 1), (0, 0)),
    constant_values=fill,
  )
  return jnp.take_along_axis(flat, place, 1).reshape(image.shape)


def _blended(image: Array, operation: Array, amount: Array) -> Array:
  """Returns other + (1 + amount) * (image - other), clipped to [0, 255].

  The other image depends on the operation; operations that do not blend leave
  the image unchanged.
  """
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
  """Returns the luminance by ITU-R 601 in integers, or the mean if not RGB."""
  image = image.astype(jnp.int32)
  if image.shape[-1] != 3:
    return image.sum(-1, keepdims=True) // image.shape[-1]
  weights = jnp.array([19595, 38470, 7471], jnp.int32).reshape(1, 1, 1, 3)
  return ((image * weights).sum(-1, keepdims=True) + 32768) >> 16


def _smooth(image: Array) -> Array:
  """Averages 3 x 3 pixels with weight 5 for the middle; keeps the edges."""
  image = image.astype(jnp.int32)
  height, width = image.shape[1:3]
  total = 4 * image[:, 1:-1, 1:-1]
  for i in range(3):
    for j in range(3):
      total += image[:, i : height - 2 + i, j : width - 2 + j]
  return image.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def _looked_up(image: Array, operation: Array, amount: Array) -> Array:
  """Maps each grey level to another, by one table per image and channel."""
  count, channels = image.shape[0], image.shape[-1]
  # `[B, C, H * W]`
  flat = jnp.moveaxis(image, -1, 1).reshape(count, channels, -1)
  flat = flat.astype(jnp.int32)
  table = _table(_histogram(flat), operation, amount)
  mapped = jnp.take_along_axis(table, flat, 2).astype(jnp.uint8)
  mapped = mapped.reshape(count, channels, *image.shape[1:3])
  return jnp.moveaxis(mapped, 1, -1)


def _histogram(flat: Array) -> Array:
  """Counts how often each level occurs: `[B, C, N]` -> `[B, C, 256]`."""
  count, channels, _ = flat.shape
  plane = jnp.arange(count * channels).reshape(count, channels, 1)
  bins = (plane * 256 + flat).reshape(-1)
  levels = jnp.bincount(bins, length=plane.size * 256)
  return levels.reshape(count, channels, 256)


def _table(histogram: Array, operation: Array, amount: Array) -> Array:
  """Returns the new level of each old level, `[B, C, 256]`."""
  operation, amount = operation[:, None, None], amount[:, None, None]
  level = jnp.broadcast_to(jnp.arange(256), histogram.shape)
  occurs = histogram > 0
  low = occurs.argmax(-1, keepdims=True)
  high = 255 - occurs[..., ::-1].argmax(-1, keepdims=True)
  stretched = (level - low) * 255 // jnp.maximum(high - low, 1)
  stretched = jnp.where(high > low, jnp.clip(stretched, 0, 255), level)
  last = jnp.take_along_axis(histogram, high, -1)
  step = (histogram.sum(-1, keepdims=True) - last) // 255
  before = jnp.cumsum(histogram, -1) - histogram
  equalized = (before + step // 2) // jnp.maximum(step, 1)
  equalized = jnp.where(step > 0, jnp.clip(equalized, 0, 255), level)
  bits = jnp.where(_is(operation, 'posterize'), amount, 8).astype(jnp.int32)
  chosen = (level >> (8 - bits)) << (8 - bits)
  threshold = jnp.where(_is(operation, 'invert'), 0, amount)
  inverted = _is(operation, 'invert', 'solarize') & (level >= threshold)
  chosen = jnp.where(inverted, 255 - level, chosen)
  chosen = jnp.where(_is(operation, 'autocontrast'), stretched, chosen)
  return jnp.where(_is(operation, 'equalize'), equalized, chosen)
