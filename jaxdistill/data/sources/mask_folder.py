"""Data sets of folders of images and masks, as PNG files of equal names."""

from collections.abc import Sequence
import os
import pathlib

import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE, Dataset
from jaxdistill.data.sources import arrays, decoding, labels

# The modes of Pillow whose pixels are single numbers: palettes, and grey levels
# of 1, 8, 16 and 32 bits.
_MODES = ('1', 'P', 'L', 'I', 'I;16')


def mask_folder(
  path: str,
  *,
  label_names: Sequence[str],
  ignore: Sequence[int] = (255,),
  image_size: Sequence[int] | None = None,
  train_split: str = 'train',
  test_split: str = 'test',
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Returns the data set of a folder of images and their masks.

  The files are `path/train/images/NAME.jpg` with `path/train/masks/NAME.png`,
  and likewise for the test split; the endings may differ. The values of a mask,
  which is a PNG of grey levels or a palette, are the numbers of the classes.
  All images have one size, or get it, and are read into memory.

  Args:
    path: the folder.
    label_names: one name for each class, in the order of their numbers.
    ignore: the values in masks that stand for no class.
    image_size: the height and width in pixels to which images are resized,
      bilinear and antialiased, and masks, which take the nearest pixel. None:
      they keep their size, which must be the same for all.
    train_split: the folder of the training set.
    test_split: the folder of the test set.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.

  Raises:
    UsageError: a folder is missing or empty, an image has no mask or one of
      another size, or a file cannot be read.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  names = labels.checked_names('label_names', label_names)
  ignored = [checks.integer('ignore', x, at_least=0) for x in ignore]
  root = pathlib.Path(os.path.expanduser(path))
  size = image_size and tuple(
    checks.integer('image_size', side)
    for side in checks.length('image_size', image_size, 2, 'sides of an image')
  )
  splits = [
    _columns(root / s, ignored, size) for s in (train_split, test_split)
  ]
  return arrays.from_columns(
    *splits,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=names,
  )


def _columns(
  root: pathlib.Path, ignored: Sequence[int], size: Sequence[int] | None
) -> dict[str, np.ndarray]:
  """Returns the images and masks of a split, in the order of their names."""
  images, masks = (_files(root / name) for name in ('images', 'masks'))
  differing = sorted(images.keys() ^ masks.keys())
  if differing:
    kind = 'mask' if differing[0] in images else 'image'
    raise UsageError(
      f'data.path: expected an image and a mask of each name in {str(root)!r}, '
      f'got no {kind} for {differing[0]!r}'
    )
  columns: dict[str, list[np.ndarray]] = {'image': [], 'mask': []}
  for name, file in images.items():
    image = decoding.read_image(file)
    mask = _mask(masks[name], ignored)
    if mask.shape != image.shape[:2]:
      raise UsageError(
        f'{masks[name]}: expected a mask of the size of its image, '
        f'{image.shape[:2]}, got {mask.shape}'
      )
    if size is not None:
      image = _resized(image, size, 'BILINEAR')
      mask = _resized(mask, size, 'NEAREST')
    if columns['image'] and image.shape != columns['image'][0].shape:
      raise UsageError(
        f'{file}: expected images of one size, {columns["image"][0].shape[:2]},'
        f' got {image.shape[:2]}'
      )
    columns['image'].append(image)
    columns['mask'].append(mask)
  return {key: np.stack(rows) for key, rows in columns.items()}


def _resized(pixels: np.ndarray, size: Sequence[int], how: str) -> np.ndarray:
  """Resizes uint8 `[H, W]` or `[H, W, 3]` to a height and width."""
  pillow = optional.require('PIL.Image', 'resizing images')
  height, width = size
  image = pillow.fromarray(pixels)
  return np.asarray(image.resize((width, height), getattr(pillow, how)))


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns {name without its ending: image file} of a folder, in order."""
  if not folder.is_dir():
    raise UsageError(f'data.path: no folder {str(folder)!r}')
  suffixes = decoding.suffixes()
  files = {
    file.stem: file
    for file in sorted(folder.iterdir())
    if file.suffix.lower() in suffixes and not file.name.startswith('.')
  }
  if not files:
    raise UsageError(f'data.path: no images in {str(folder)!r}')
  return files


def _mask(file: pathlib.Path, ignored: Sequence[int]) -> np.ndarray:
  """Reads a mask as uint8 `[H, W]`, with `IGNORE` where there is no class."""
  pillow = optional.require('PIL.Image', 'reading masks')
  try:
    with pillow.open(file) as image:
      mode, values = image.mode, np.asarray(image).astype(np.int64)
  except Exception as error:  # damage may raise anything
    raise UsageError(
      f'{file}: cannot be read as an image ({checks.reason(error)})'
    ) from None
  if mode not in _MODES:
    raise UsageError(
      f'{file}: expected a mask of grey levels or a palette, got an image of '
      f'the mode {mode}'
    )
  values = np.where(np.isin(values, ignored), IGNORE, values)
  if values.max() > IGNORE:
    raise UsageError(
      f'{file}: expected classes below {IGNORE}, got {values.max()}; '
      'data.ignore names values that stand for no class'
    )
  return values.astype(np.uint8)
