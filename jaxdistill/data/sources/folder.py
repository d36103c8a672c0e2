"""Data sets of image files with one folder per class."""

from collections.abc import Sequence
import os
import pathlib

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import (
  arrays,
  class_folders,
  decoding,
  image_files,
  images,
)


def folder(
  path: str,
  *,
  test: float = 0.2,
  image_size: int | None = None,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  train_split: str | None = None,
  test_split: str | None = None,
  stratified: bool = True,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  background: str | Sequence[int] = 'white',
  range: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns the data set of image files in a folder.

  The files are `path/CLASS/...`, or `path/train/CLASS/...` and
  `path/test/CLASS/...`. Classes are numbered in the order of the names of their
  folders, and images in the order of their paths. The folder of a class may
  contain other folders, and links to folders are followed. All images are
  converted to RGB and turned upright, see `read_image`.

  Args:
    path: the folder.
    test: the fraction of each class that forms the test split, if there are no
      folders of splits. It always consists of the same images.
    image_size: the size in pixels to which the shorter side of every image is
      resized, bilinear and antialiased; the square in the middle is kept. None:
      images keep their size, which must be the same for all.
    num_classes: the expected number of classes; None: any number.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    train_split: the folder of the training images; '.': the classes are in
      `path` itself. None: 'train', 'training', 'train_set', 'training_set' or
      'seg_train', whatever the case, and `path` itself if there is none.
    test_split: the folder of the test images; None: the first that exists of
      'test', 'testing', 'test_set', 'testing_set', 'seg_test', 'val',
      'validation', 'valid', 'val_set', 'validation_set', 'valid_set', 'dev' and
      'dev_set', whatever the case.
    stratified: see `from_arrays`.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    background: 'white', 'black', or the red, green and blue, 0 to 255, that
      show through transparent pixels.
    range: the levels that become 0 and 255 in images of more than 8 bits or
      with floating-point levels. None: the range of their type, see
      `read_image`.
    stream: whether images are decoded when they are needed instead of at once;
      None: if all of them need more than 1 GiB.

  Raises:
    UsageError: there is no such data set, or it cannot be read.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  colour = decoding.checked_background('data.background', background)
  levels = decoding.checked_range('data.range', range)
  root = pathlib.Path(os.path.expanduser(path))
  if not root.is_dir():
    raise UsageError(f'data.path: no folder {path!r}')
  if image_size is not None:
    checks.integer('data.image_size', image_size)
  try:
    splits = class_folders.read_splits(root, train_split, test_split, test)
    class_folders.warn_of_photographs(root)
  except OSError as error:
    raise UsageError(f'data.path: {checks.reason(error)}') from None
  names = splits[0].names
  if len(names) < 2:
    raise UsageError(
      f'data.path: expected at least two classes in {path!r}, got only '
      f'{names[0]!r}'
    )
  if num_classes not in (None, len(names)):
    raise UsageError(
      f'data.num_classes: expected {len(names)}, as {path!r} has this number '
      f'of classes, got {num_classes}'
    )
  shape = image_shape(splits, image_size)
  if stream is None:
    stream = images.is_large((len(s.paths), *shape) for s in splits)
  columns = [
    images.LazyImages(
      image_files.Paths(split.paths),
      np.arange(len(split.paths)),
      shape,
      resize=image_size is not None,
      background=colour,
      range=levels,
    )
    for split in splits
  ]
  train, test_images = columns if stream else [c[:] for c in columns]
  return arrays.from_arrays(
    train,
    splits[0].label,
    test_images,
    splits[1].label,
    num_classes=len(names),
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    stratified=stratified,
    mean=mean,
    std=std,
    label_names=names,
  )


def image_shape(
  splits: Sequence[class_folders.Split], image_size: int | None
) -> tuple[int, int, int]:
  """Returns the shape `(H, W, C)` to which images are decoded.

  This reads the beginning of every file. The sizes are cached until a file
  changes.

  Args:
    splits: the files.
    image_size: see `folder`.

  Raises:
    UsageError: a file is not an image, or the images differ in size.
  """
  paths = [path for split in splits for path in split.paths]
  upright = image_size is None  # otherwise, only damage matters
  sizes, unreadable = image_files.sizes(paths, upright=upright)
  if unreadable:
    first, reason = next(iter(unreadable.items()))
    raise UsageError(
      f'data.path: {len(unreadable)} of {len(paths)} files cannot be read as '
      f'images ({reason}); the first is {paths[first]!r}'
    )
  if image_size is not None:
    return image_size, image_size, 3
  different = np.flatnonzero((sizes != sizes[0]).any(-1))
  if len(different):
    raise UsageError(
      'data.image_size: needed because the images differ in size, for '
      f'example {paths[0]!r} and {paths[different[0]]!r}'
    )
  height, width = sizes[0].tolist()
  return height, width, 3
