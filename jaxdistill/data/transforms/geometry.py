"""Geometry: images move together with the masks, depths and boxes on them.

The columns of a batch that have places in the image are

  'mask', integers `[B, H, W]`: the class of each pixel, or `IGNORE`;
  'depth', floats `[B, H, W]`: the distance of each pixel, 0 where unknown;
  'boxes', float32 `[B, M, 4]`: (top, left, bottom, right) in pixels, with
    'classes', int32 `[B, M]`, where -1 stands for no box.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE, Array, Batch


class Geometry(NamedTuple):
  """Which part of each image is seen, and how large.

  Attributes:
    corner: the top left corner of the part as (vertical, horizontal), in pixels
      of the image, `[B, 2]`. The part may extend beyond the image.
    part: the height and width of the part, likewise.
    mirrored: whether the result is mirrored horizontally, booleans `[B]`.
    size: the height and width of the result in pixels.
  """

  corner: Array
  part: Array
  mirrored: Array
  size: tuple[int, int]


def move(geometry: Geometry, batch: Batch) -> Batch:
  """Returns the parts of the images, and of everything that lies on them.

  Images are resampled, bilinear and antialiased, with zeros outside. Masks and
  depths take the value of the nearest pixel; outside is `IGNORE`, or a depth of
  0. A depth is divided by the zoom, as if the camera had come closer. Boxes are
  clipped, and what is left without an area becomes no box.

  Args:
    geometry: the parts.
    batch: the batch.

  Raises:
    UsageError: the batch has a column of the images' size that is neither a
      mask nor a depth.
  """
  image = resample(
    batch['image'], geometry.corner, geometry.part, geometry.size
  )
  mirrored = geometry.mirrored[:, None, None, None]
  image = jnp.where(mirrored, image[:, :, ::-1], image)
  return {**move_targets(geometry, batch), 'image': image}


def move_targets(geometry: Geometry, batch: Batch) -> Batch:
  """Returns a batch whose columns have moved, but not its images.

  It serves augmentations that move images in a way of their own, such as
  cropping without resampling.

  Args:
    geometry: the parts.
    batch: the batch, with the images of before.

  Raises:
    UsageError: see `move`.
  """
  names = spatial(batch)
  for name in names:
    if name not in MOVES:
      raise UsageError(
        f'augment: expected columns of the size of images to be '
        f'{" or ".join(map(repr, MOVES))}, got {name!r}, for which it is not '
        'known how to move it'
      )
    batch = {**batch, **MOVES[name](geometry, batch)}
  return batch


def spatial(batch: Batch) -> list[str]:
  """Returns the columns with places in the image: those that have to move.

  Args:
    batch: the batch.
  """
  size = batch['image'].shape[1:3]
  return [
    name
    for name, column in batch.items()
    if name != 'image' and (name in MOVES or column.shape[1:3] == size)
  ]


def only_images(augment: str, batch: Batch) -> None:
  """Checks that a batch has no targets that would have to move with the images.

  Args:
    augment: the augmentation that moves or mixes only images.
    batch: the batch.

  Raises:
    UsageError: the batch has such targets.
  """
  names = spatial(batch)
  if names:
    raise UsageError(
      f'augment: {augment!r} moves images, but not '
      f'{", ".join(map(repr, names))}; expected an augmentation such as '
      "'scale_crop', which moves both"
    )


def resample(
  image: Array, corner: Array, part: Array, size: tuple[int, int]
) -> Array:
  """Resizes a part of each image; bilinear, antialiased, zero outside.

  Args:
    image: `[B, H, W, C]`.
    corner: the corners of the parts, see `Geometry`.
    part: their sizes.
    size: the height and width of the result.

  Returns:
    `[B, *size, C]`, of the type of the images.
  """

  def one(image: Array, corner: Array, part: Array) -> Array:
    scale = jnp.array(size, jnp.float32) / part
    return jax.image.scale_and_translate(
      image.astype(jnp.float32),
      (*size, image.shape[-1]),
      (0, 1),
      scale,
      -corner * scale,
      'linear',
      antialias=True,
    )

  return as_dtype(jax.vmap(one)(image, corner, part), image.dtype)


def as_dtype(pixels: Array, dtype: np.dtype) -> Array:
  """Converts pixels to a type, with rounding if it is an integer type.

  Args:
    pixels: levels from 0 to 255.
    dtype: the type.
  """
  if jnp.issubdtype(dtype, jnp.integer):
    pixels = jnp.clip(jnp.round(pixels), 0, 255)
  return pixels.astype(dtype)


def _mask(geometry: Geometry, batch: Batch) -> Batch:
  mask = batch['mask']
  return {'mask': _nearest(geometry, mask, IGNORE)}


def _depth(geometry: Geometry, batch: Batch) -> Batch:
  # The root of the zoom of areas, as height and width may zoom differently.
  zoom = jnp.sqrt(jnp.prod(_zoom(geometry), axis=-1))[:, None, None]
  depth = _nearest(geometry, batch['depth'], 0)
  return {'depth': (depth / zoom).astype(depth.dtype)}


def _boxes(geometry: Geometry, batch: Batch) -> Batch:
  height, width = geometry.size
  corner, zoom = (
    jnp.concatenate([x, x], axis=-1)[:, None]
    for x in (geometry.corner, _zoom(geometry))
  )
  top, left, bottom, right = jnp.moveaxis(
    (batch['boxes'] - corner) * zoom, -1, 0
  )
  mirrored = geometry.mirrored[:, None]
  left, right = (
    jnp.where(mirrored, width - right, left),
    jnp.where(mirrored, width - left, right),
  )
  top, bottom = (jnp.clip(y, 0, height) for y in (top, bottom))
  left, right = (jnp.clip(x, 0, width) for x in (left, right))
  is_left = (batch['classes'] >= 0) & (bottom > top) & (right > left)
  boxes = jnp.stack([top, left, bottom, right], axis=-1)
  return {
    'boxes': jnp.where(is_left[..., None], boxes, 0.0),
    'classes': jnp.where(is_left, batch['classes'], -1),
  }


# Column -> (geometry, batch) -> the columns that have moved.
MOVES: dict[str, Callable[[Geometry, Batch], Batch]] = {
  'mask': _mask,
  'depth': _depth,
  'boxes': _boxes,
}


def _zoom(geometry: Geometry) -> Array:
  """Returns by what heights and widths are multiplied, `[B, 2]`."""
  return jnp.array([geometry.size], jnp.float32) / geometry.part


def _nearest(geometry: Geometry, column: Array, outside: int) -> Array:
  """Takes the values of the nearest pixels of `[B, H, W]`."""

  def places(axis: int) -> Array:
    """Returns the coordinate in the image of each place of the result."""
    length = geometry.size[axis]
    middle = jnp.arange(length)[None] + 0.5
    if axis == 1:
      mirrored = geometry.mirrored[:, None]
      middle = jnp.where(mirrored, length - middle, middle)
    step = geometry.part[:, axis : axis + 1] / length
    place = middle * step + geometry.corner[:, axis : axis + 1]
    return jnp.floor(place).astype(jnp.int32)

  def take(column: Array, rows: Array, columns: Array) -> Array:
    height, width = column.shape
    rows, columns = rows[:, None], columns[None]
    is_inside = (rows >= 0) & (rows < height)
    is_inside &= (columns >= 0) & (columns < width)
    taken = column[
      jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    ]
    return jnp.where(is_inside, taken, jnp.asarray(outside, column.dtype))

  return jax.vmap(take)(column, places(0), places(1))
