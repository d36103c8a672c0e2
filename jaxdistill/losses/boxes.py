"""Boxes relative to anchors, as detectors predict them.

Boxes and anchors are (top, left, bottom, right) in pixels.
"""

import math

import jax.numpy as jnp

from jaxdistill.core.types import Array

# An anchor grows at most by this factor, so that the exponential stays finite.
_LARGEST_GROWTH = 1000 / 16


def encode(boxes: Array, anchors: Array) -> Array:
  """Returns the offsets that turn anchors into boxes, `[..., 4]`.

  The first two are the vertical and the horizontal shift of the centre, in
  heights and widths of the anchor. The last two are the logarithms of the
  factors on its height and width.

  Args:
    boxes: `[..., 4]`; a side of 0 is taken as a tiny one.
    anchors: `[..., 4]`, with a positive area.

  References:
    Girshick et al., Rich feature hierarchies for accurate object detection and
    semantic segmentation, 2013, https://arxiv.org/abs/1311.2524
  """
  (centre, size), (anchor_centre, anchor_size) = map(
    _centre_and_size, (boxes, anchors)
  )
  shift = (centre - anchor_centre) / anchor_size
  growth = jnp.log(jnp.maximum(size, 1e-3) / anchor_size)
  return jnp.concatenate([shift, growth], axis=-1)


def decode(offsets: Array, anchors: Array) -> Array:
  """Returns the boxes that anchors become by offsets, `[..., 4]`; see `encode`.

  Args:
    offsets: `[..., 4]`.
    anchors: `[..., 4]`.
  """
  centre, size = _centre_and_size(anchors)
  centre = centre + offsets[..., :2] * size
  growth = jnp.minimum(offsets[..., 2:], math.log(_LARGEST_GROWTH))
  half = jnp.exp(growth) * size / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def clip(boxes: Array, size: Array) -> Array:
  """Returns the parts of boxes that lie in the image.

  Args:
    boxes: `[..., 4]`.
    size: the height and width of the image, `[2]`.
  """
  limit = jnp.concatenate([size, size]).astype(boxes.dtype)
  axes = tuple(range(boxes.ndim - 1))
  return jnp.clip(boxes, 0.0, jnp.expand_dims(limit, axes))


def covered(anchors: Array) -> Array:
  """Returns the size of the image that the anchors of a level cover, `[2]`.

  Args:
    anchors: the anchors of all places of a map, `[A, 4]`. If the stride of the
      map does not divide the image's size, the size is rounded up to a multiple
      of the stride.
  """
  centres = (anchors[:, :2] + anchors[:, 2:]) / 2
  return centres.min(0) + centres.max(0)


def _centre_and_size(boxes: Array) -> tuple[Array, Array]:
  corner, end = boxes[..., :2], boxes[..., 2:]
  return (corner + end) / 2, end - corner
