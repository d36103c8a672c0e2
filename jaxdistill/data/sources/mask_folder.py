"""Data sets of folders of images and masks, as PNG files of equal names."""

from collections.abc import Callable, Mapping, Sequence
import functools
import os
import pathlib
from typing import Any

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import (
  arrays,
  decoding,
  image_files,
  images,
  labels,
  lazy_maps,
  parts,
)


def mask_folder(
  path: str,
  *,
  label_names: Sequence[str],
  values: Sequence[int] | None = None,
  ignore: Sequence[int] = (),
  image_size: Sequence[int] | None = None,
  train_split: str = 'train',
  test_split: str | None = 'test',
  test: float = 0.2,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns the data set of a folder of images and their masks.

  The files are `path/train/images/NAME.jpg` with `path/train/masks/NAME.png`,
  and likewise for the test split; the endings may differ. A mask is a PNG of
  grey levels or a palette, and its values are the numbers of the classes, or
  `values`.
  All images have one size, or are resized to one. An image is turned as its
  EXIF orientation says, and a mask is not.

  Args:
    path: the folder.
    label_names: one name for each class, in the order of their numbers.
    values: the value of each class in the masks, such as (0, 255) for masks in
      black and white; None: 0, 1, 2 and so on.
    ignore: the values in masks that stand for no class. 255 does so too, unless
      it is one of `values`.
    image_size: the height and width in pixels to which images are resized,
      bilinear and antialiased, and masks, which take the nearest pixel. None:
      they keep their size, which must be the same for all.
    train_split: the folder of the training set; '.' is `path` itself.
    test_split: the folder of the test set. None: a part of the training set
      forms the test split.
    test: the fraction of the training set that then forms the test split.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.
    stream: whether images and masks are decoded when they are needed instead of
      at once; None: if the images need more than 1 GiB. The values of streamed
      masks are checked when they are decoded.

  Raises:
    UsageError: a folder is missing, empty or that of both splits, an image has
      no mask, several masks, or a mask of another size, a file cannot be read,
      two classes have the same value, a value of a class is ignored, or EXIF
      turns an image whose mask may belong to either form.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  names = labels.checked_names('label_names', label_names)
  if values is not None:
    checks.length('values', values, len(names), 'classes')
    for value in ignore:
      if value in values:
        raise UsageError(
          f'ignore: expected values that are not in data.values, got {value}'
        )
  table = lazy_maps.class_table(
    range(len(names)) if values is None else values, ignore
  )
  splits = columns(
    path,
    (train_split, test_split),
    image_size,
    'mask',
    functools.partial(lazy_maps.LazyMasks, table=table),
    stream,
    test,
  )
  return arrays.from_columns(
    *splits,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=names,
  )


def columns(
  path: str,
  splits: tuple[str, str | None],
  image_size: Sequence[int] | None,
  kind: str,
  column: Callable[..., images.LazyImages],
  stream: bool | None,
  test: float,
) -> list[Mapping[str, Any]]:
  """Returns the images and maps of both splits, in the order of their names.

  Args:
    path: the folder of the splits.
    splits: see `train_split` and `test_split` of `mask_folder`.
    image_size: see `mask_folder`.
    kind: what the maps are, 'mask' or 'depth'.
    column: (files, rows, size) -> the column of the maps.
    stream: see `mask_folder`.
    test: see `mask_folder`.

  Raises:
    UsageError: see `mask_folder`.
  """
  size = image_size and tuple(
    checks.integer('image_size', side)
    for side in checks.length('image_size', image_size, 2, 'sides of an image')
  )
  root = pathlib.Path(os.path.expanduser(path))
  if splits[0] == splits[1]:
    raise UsageError(
      'data.test_split: expected another folder than data.train_split, or None '
      f'for a part of it, got {splits[1]!r} for both'
    )
  lazy: list[Mapping[str, Any]] = [
    _columns(root / split, size, kind, column)
    for split in splits
    if split is not None
  ]
  if splits[1] is None:
    lazy = parts.cut(lazy[0], test)
  if stream is None:
    stream = images.is_large(columns['image'].shape for columns in lazy)
  return [c if stream else {k: v[:] for k, v in c.items()} for c in lazy]


def _columns(
  root: pathlib.Path,
  size: Sequence[int] | None,
  kind: str,
  column: Callable[..., images.LazyImages],
) -> dict[str, images.LazyImages]:
  """Returns the images and maps of one split."""
  files = [_files(root / name) for name in ('images', f'{kind}s')]
  differing = sorted(files[0].keys() ^ files[1].keys())
  if differing:
    missing = kind if differing[0] in files[0] else 'image'
    raise UsageError(
      f'data.path: expected an image and a {kind} of each name in '
      f'{str(root)!r}, got no {missing} for {differing[0]!r}'
    )
  names = list(files[0])
  image, maps = (
    image_files.Paths(tuple(str(x[name]) for name in names)) for x in files
  )
  height, width = _size(image.paths, maps.paths, size, kind)
  rows = np.arange(len(names))
  return {
    'image': lazy_maps.LazyStretched(image, rows, (height, width, 3)),
    kind: column(maps, rows, (height, width)),
  }


def _size(
  image: Sequence[str],
  mask: Sequence[str],
  size: Sequence[int] | None,
  kind: str,
) -> tuple[int, ...]:
  """Returns the height and width of a split.

  Raises:
    UsageError: a file is not an image, a mask has another size than its image,
      or the images differ in size and `size` is None.
  """
  stored = []
  for paths, upright in ((image, True), (mask, False)):
    found = image_files.sizes(paths, upright=upright)
    for i, reason in found.unreadable.items():
      raise UsageError(f'{paths[i]}: cannot be read as an image ({reason})')
    stored.append([tuple(x) for x in found.sizes.tolist()])
  for file, of_image, of_mask in zip(mask, *stored):
    if of_mask != of_image:
      raise UsageError(
        f'{file}: expected a {kind} of the size of its image, {of_image}, got '
        f'{of_mask}'
      )
  _check_upright(image, kind)
  if size is not None:
    return tuple(size)
  for file, of_image in zip(image, stored[0]):
    if of_image != stored[0][0]:
      raise UsageError(
        f'{file}: expected images of one size, {stored[0][0]}, got {of_image}; '
        'data.image_size resizes them'
      )
  return stored[0][0]


def _check_upright(paths: Sequence[str], kind: str) -> None:
  """Raises UsageError if a map may belong to an image before it was turned.

  An image is turned as its EXIF orientation says, and a map is not. If this
  changes the size of the image, the size of the map says that it belongs to the
  upright image.
  """
  for path, turned in zip(paths, image_files.turned(paths)):
    if turned and decoding.size(path) == decoding.size(path, upright=False):
      raise UsageError(
        f'{path}: expected an image that is stored upright, because its EXIF '
        f'orientation turns it, and its {kind} may belong to either form; save '
        'the image upright, without EXIF'
      )


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns {name without its ending: image file} of a folder, in order."""
  if not folder.is_dir():
    raise UsageError(
      f'data.path: no folder {str(folder)!r}; data.train_split names the '
      'folder of the training set, and data.test_split that of the test set, '
      'or None to take a part of the training set'
    )
  suffixes = decoding.suffixes()
  files: dict[str, pathlib.Path] = {}
  for file in sorted(folder.iterdir()):
    if file.suffix.lower() not in suffixes or file.name.startswith('.'):
      continue
    if file.stem in files:
      raise UsageError(
        f'data.path: expected one image of each name in {str(folder)!r}, got '
        f'{files[file.stem].name!r} and {file.name!r}'
      )
    files[file.stem] = file
  if not files:
    raise UsageError(f'data.path: no images in {str(folder)!r}')
  return files
