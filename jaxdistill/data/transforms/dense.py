"""Augmentation of images together with their masks, depths and boxes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Augment, Batch
from jaxdistill.data.transforms import augment, geometry


def scale_crop(
  *,
  size: Sequence[int],
  scale: Sequence[float] = (0.5, 2.0),
  mirror: bool = True,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
) -> Augment:
  """The standard augmentation of dense tasks: zoom, cut a part, then flip.

  Each image is zoomed by a random factor, and a random part of the given size
  is cut out of it. If the zoomed image is smaller than that, it lies at a
  random place in the result. Masks, depths and boxes move with it; see
  `geometry.move`.

  Args:
    size: the height and width in pixels of the images that networks see.
    scale: the smallest and largest zoom; it is uniformly distributed.
    mirror: whether to mirror images horizontally.
    brightness: see `color_jitter`.
    contrast: see `color_jitter`.
    saturation: see `color_jitter`.

  Raises:
    UsageError: a value is out of its range.
  """
  height, width = (
    checks.integer('size', side, at_most=augment.LARGEST_SIZE)
    for side in checks.length('size', size, 2, 'sides of an image')
  )
  augment.check_range('scale', scale, 100.0)
  colours = augment.jitter(brightness, contrast, saturation)

  def zoom(rng: Array, batch: Batch) -> Batch:
    zoom_rng, corner_rng = jax.random.split(rng)
    image = batch['image']
    whole = jnp.array([image.shape[1:3]], jnp.float32)
    low, high = scale
    factor = jax.random.uniform(
      zoom_rng, (len(image), 1), minval=low, maxval=high
    )
    part = jnp.array([(height, width)], jnp.float32) / factor
    corner = jax.random.uniform(corner_rng, part.shape) * (whole - part)
    mirrored = jnp.zeros(len(image), bool)
    seen = geometry.Geometry(corner, part, mirrored, (height, width))
    return geometry.move(seen, batch)

  return augment.chain(zoom, *([augment.flip()] if mirror else []), *colours)
