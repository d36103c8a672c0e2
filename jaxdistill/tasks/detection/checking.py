"""Checks that the boxes of a data set can be learned, and notes about them."""

import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import labels


def check_boxes(dataset: Dataset) -> None:
  """Checks that all boxes of a data set suit its images and classes.

  Args:
    dataset: the data.

  Raises:
    UsageError: the data have no classes, columns have wrong types or shapes, a
      box is outside its image, has swapped sides, or has a class that does not
      exist, or the extent of an image is larger than the image.
  """
  if not dataset.num_classes:
    raise UsageError(
      'data: expected num_classes or label_names, which say how many classes '
      'boxes have, got neither'
    )
  for name, split in dataset.splits.items():
    boxes, classes = split['boxes'], split['classes']
    count, height, width = split['image'].shape[:3]
    shape = (*np.shape(classes), 4)
    if np.ndim(classes) != 2 or classes.dtype.kind not in 'iu':
      raise UsageError(
        f'classes: expected integers [{count}, M] in the split {name!r}, got '
        f'{classes.dtype} {list(classes.shape)}'
      )
    if boxes.shape != shape or boxes.dtype.kind != 'f':
      raise UsageError(
        f'boxes: expected floats {list(shape)}, one for each of the classes, '
        f'in the split {name!r}, got {boxes.dtype} {list(boxes.shape)}'
      )
    wrong = (classes < -1) | (classes >= dataset.num_classes)
    if wrong.any():
      raise UsageError(
        f'classes: expected numbers from 0 to {dataset.num_classes - 1}, or -1 '
        f'for no box, in the split {name!r}, got {classes[wrong][0]}'
      )
    limit = np.array((height, width, height, width), np.float32)
    swapped = (boxes[..., :2] > boxes[..., 2:]).any(-1)
    inside = ((boxes >= -1e-3) & (boxes <= limit + 1e-3)).all(-1)
    for row, column in np.argwhere((swapped | ~inside) & (classes >= 0))[:1]:
      raise UsageError(
        f'boxes: expected (top, left, bottom, right) with top <= bottom and '
        f'left <= right inside images of {height}x{width}, got '
        f'{boxes[row, column].tolist()} in image {row} of the split {name!r}'
      )
    for key in ('crowd', 'areas'):
      if key in split and split[key].shape != classes.shape:
        raise UsageError(
          f'{key}: expected {list(classes.shape)}, one for each box, in the '
          f'split {name!r}, got {list(split[key].shape)}'
        )
    if 'extent' in split:
      _check_extent(name, np.asarray(split['extent']), (height, width))


def notes(dataset: Dataset) -> tuple[str, ...]:
  """Says which classes no training image contains.

  Args:
    dataset: the data.
  """
  classes = dataset.splits['train']['classes']
  missing = labels.missing(
    classes[classes >= 0], dataset.num_classes, dataset.label_names
  )
  if not missing:
    return ()
  return (f'data: the training images have no box of {missing}',)


def _check_extent(name: str, extent: np.ndarray, size: tuple[int, int]) -> None:
  if extent.ndim != 2 or extent.shape[1] != 2:
    raise UsageError(
      f'extent: expected [N, 2], the height and width without padding, in the '
      f'split {name!r}, got {list(extent.shape)}'
    )
  wrong = ~((extent > 0) & (extent <= np.array(size) + 1e-3)).all(1)
  if wrong.any():
    raise UsageError(
      f'extent: expected a height and width inside images of '
      f'{size[0]}x{size[1]}, got {extent[wrong][0].tolist()} in the split '
      f'{name!r}'
    )
