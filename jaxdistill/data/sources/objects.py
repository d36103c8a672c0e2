"""Columns of boxes for images that are resized to fit into one size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdistill.data.sources import decoding


class Objects(NamedTuple):
  """The objects of all images of a split.

  Attributes:
    images: the number of the image of each object, `[K]`.
    boxes: (top, left, bottom, right) in pixels of the original image, `[K, 4]`.
    classes: the class of each object, `[K]`.
    crowd: whether a box holds many objects, booleans `[K]`.
    areas: in pixels of the original image, `[K]`.
  """

  images: np.ndarray
  boxes: np.ndarray
  classes: np.ndarray
  crowd: np.ndarray
  areas: np.ndarray

  def most(self) -> int:
    """Returns the largest number of objects of an image."""
    return int(np.bincount(self.images, minlength=1).max())


def columns(
  objects: Objects,
  sizes: np.ndarray,
  into: Sequence[int],
  most: int,
) -> dict[str, np.ndarray]:
  """Returns the columns of `tasks.detection` for images at the top left.

  Args:
    objects: the objects.
    sizes: the height and width of each original image, `[N, 2]`.
    into: the height and width into which all images are resized.
    most: the number of rows for the objects of each image.
  """
  height, width = into
  count = len(sizes)
  fitted = [decoding.fitted_size((h, w), (height, width)) for h, w in sizes]
  scale = np.array([factor for _, factor in fitted], np.float32)
  order = np.argsort(objects.images, kind='stable')
  image = objects.images[order]
  place = np.arange(len(image)) - np.searchsorted(image, image)
  limit = np.array((height, width, height, width), np.float32)
  boxes = np.minimum(objects.boxes[order] * scale[image, None], limit)
  table = {
    'boxes': np.zeros((count, most, 4), np.float32),
    'classes': np.full((count, most), -1, np.int32),
    'crowd': np.zeros((count, most), bool),
    'areas': np.zeros((count, most), np.float32),
  }
  for name, values in (
    ('boxes', boxes),
    ('classes', objects.classes[order]),
    ('crowd', objects.crowd[order]),
    ('areas', objects.areas[order]),
  ):
    table[name][image, place] = values
  # Not rounded, as the boxes are not, so that no box extends beyond it.
  extent = np.minimum(sizes * scale[:, None], np.array(into))
  return {**table, 'scale': scale, 'extent': extent.astype(np.float32)}
