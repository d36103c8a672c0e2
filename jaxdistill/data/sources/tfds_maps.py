"""Data sets of TFDS with masks or depths, read without TensorFlow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.types import IGNORE, Dataset
from jaxdistill.data.sources import arrays, images, lazy_maps, tfds


class _Kind(NamedTuple):
  """Which features of a data set are read.

  Attributes:
    image: the name of the feature that holds the images.
    target: the name of the feature that holds the masks or depths.
    column: the column that they become, 'mask' or 'depth'.
    names: the names of the classes.
    numbers: the value of each of these classes in the masks.
  """

  image: str
  target: str
  column: str
  names: tuple[str, ...] = ()
  numbers: tuple[int, ...] = ()


# The 19 classes of Cityscapes that its benchmark evaluates, with their "ids".
_CITYSCAPES = {
  **{'road': 7, 'sidewalk': 8, 'building': 11, 'wall': 12, 'fence': 13},
  **{'pole': 17, 'traffic light': 19, 'traffic sign': 20, 'vegetation': 21},
  **{'terrain': 22, 'sky': 23, 'person': 24, 'rider': 25, 'car': 26},
  **{'truck': 27, 'bus': 28, 'train': 31, 'motorcycle': 32, 'bicycle': 33},
}
KINDS = {
  'cityscapes': _Kind(
    *('image_left', 'segmentation_label', 'mask'),
    tuple(_CITYSCAPES),
    tuple(_CITYSCAPES.values()),
  ),
  'nyu_depth_v2': _Kind('image', 'depth', 'depth'),
}


def tfds_maps(
  dataset: str,
  *,
  data_dir: str | None = None,
  image_size: Sequence[int] | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  train_split: str = 'train',
  test_split: str = 'validation',
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns 'cityscapes' or 'nyu_depth_v2' as TFDS has prepared it.

  The data set must be prepared in the format array_record (or parquet), which
  needs TensorFlow; reading it does not. The masks of 'cityscapes' keep the 19
  classes of its benchmark; other values stand for no class. The column 'depth'
  of 'nyu_depth_v2' is in metres, and 0 where the depth is unknown.

  Args:
    dataset: 'cityscapes' or 'nyu_depth_v2', with a config and a version if you
      like: 'cityscapes/semantic_segmentation:1.0.0'.
    data_dir: the folder of prepared data sets; None: the default folder of
      TFDS.
    image_size: the height and width in pixels to which images and their masks
      or depths are resized, see `lazy_maps`. None: they keep their size.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    train_split: a split, or a part of one such as 'train[:10%]'.
    test_split: likewise. The test split of 'cityscapes' has no masks.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    stream: whether images and maps are decoded when they are needed instead of
      at once; None: if all images need more than 1 GiB.

  Raises:
    UsageError: the data set is not one of these, or is not prepared (the
      message says how to prepare it), or cannot be read.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  name = dataset.partition('/')[0].partition(':')[0]
  kind = KINDS[checks.choice('data.dataset', name, KINDS)]
  builder = tfds.prepared(dataset, data_dir)
  # A reader keeps each file open, and each split has its own readers.
  tfds.allow_open_files(2 * len(tfds.files_of(builder.info.data_dir)))
  size = tuple(builder.info.features[kind.image].shape[:2])
  if image_size is not None:
    sides = checks.length('image_size', image_size, 2, 'sides of an image')
    size = tuple(checks.integer('image_size', side) for side in sides)
  splits = [
    _columns(builder, split, kind, size) for split in (train_split, test_split)
  ]
  if stream is None:
    stream = images.is_large(columns['image'].shape for columns in splits)
  return arrays.from_columns(
    *(c if stream else {k: v[:] for k, v in c.items()} for c in splits),
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=kind.names,
  )


def _columns(
  builder: Any, split: str, kind: _Kind, size: tuple[int, ...]
) -> dict[str, images.LazyImages]:
  """Returns the images and the maps of a split."""
  encoded = [kind.image] + ([kind.target] if kind.names else [])
  source = tfds.source_of(builder, split, encoded)
  rows = np.arange(len(source))
  image, target = (
    tfds.Records(source, key) for key in (kind.image, kind.target)
  )
  column: images.LazyImages = lazy_maps.LazyDepths(target, rows, size)
  if kind.names:
    table = [IGNORE] * (IGNORE + 1)
    for k, number in enumerate(kind.numbers):
      table[number] = k
    column = lazy_maps.LazyMasks(target, rows, size, table=tuple(table))
  return {
    'image': lazy_maps.LazyStretched(image, rows, (*size, 3)),
    kind.column: column,
  }
