"""Data sets of image files with one folder per class."""

from collections.abc import Sequence
from concurrent import futures
import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.loading import cache
from jaxdistill.data.sources import arrays, images

TEST_SPLITS = ('test', 'val', 'validation', 'valid')


def folder(
  path: str,
  *,
  test: float = 0.2,
  image_size: int | None = None,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  train_split: str = 'train',
  test_split: str | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns the data set of image files in a folder.

  The files are `path/CLASS/...`, or `path/train/CLASS/...` and
  `path/test/CLASS/...`. Classes are numbered in the order of the names of their
  folders, and images in the order of their paths. The folder of a class may
  contain other folders. All images are converted to RGB.

  Args:
    path: the folder.
    test: the fraction of each class that forms the test split, if there is no
      folder `train_split`. It always consists of the same images.
    image_size: the size in pixels to which the shorter side of every image is
      resized, bilinear and antialiased; the square in the middle is kept. None:
      images keep their size, which must be the same for all.
    num_classes: the expected number of classes; None: any number.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    train_split: the folder of the training images.
    test_split: the folder of the test images; None: the first that exists of
      'test', 'val', 'validation' and 'valid'.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    stream: whether images are decoded when they are needed instead of at once;
      None: if all of them need more than 1 GiB.

  Raises:
    UsageError: there is no such data set, or it cannot be read.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  root = pathlib.Path(os.path.expanduser(path))
  if not root.is_dir():
    raise UsageError(f'data.path: no folder {path!r}')
  if image_size is not None:
    checks.integer('data.image_size', image_size)
  if _folders(root / train_split):
    test_split = test_split or _test_split(root)
    splits = [_split(root / name) for name in (train_split, test_split)]
    _check_same_classes(*splits)
  else:
    splits = _cut(_split(root), test)
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
  image_shape = _image_shape(splits, image_size)
  if stream is None:
    stream = images.is_large((len(s.paths), *image_shape) for s in splits)
  columns = [
    images.LazyImages(
      _Paths(split.paths),
      np.arange(len(split.paths)),
      image_shape,
      resize=image_size is not None,
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
    mean=mean,
    std=std,
    label_names=names,
  )


class _Split(NamedTuple):
  """The files of a split and the classes that they belong to."""

  root: pathlib.Path
  names: tuple[str, ...]
  paths: tuple[str, ...]
  label: np.ndarray


class _Paths(NamedTuple):
  """Image files on disk, see `images.Files`."""

  paths: tuple[str, ...]

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    return [_content(self.paths[place]) for place in places]

  def name(self, place: int) -> str:
    return self.paths[place]


def _content(path: str) -> bytes:
  try:
    return pathlib.Path(path).read_bytes()
  except OSError:
    return b''


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
  if not root.is_dir():
    return []
  folders = (p for p in root.iterdir() if p.is_dir() and p.name[0] != '.')
  return sorted(folders, key=lambda p: p.name)


def _test_split(root: pathlib.Path) -> str:
  for name in TEST_SPLITS:
    if _folders(root / name):
      return name
  raise UsageError(
    f'data.test_split: {str(root)!r} has no folder {", ".join(TEST_SPLITS)} '
    'with one folder per class in it; give the name of the folder with the '
    'test images'
  )


def _split(root: pathlib.Path) -> _Split:
  """Returns the image files below `root`, which has one folder per class."""
  pillow = optional.require('PIL.Image', "the data set 'folder'")
  pillow.init()
  suffixes = set(pillow.registered_extensions())
  classes = _folders(root)
  paths: list[str] = []
  label: list[int] = []
  for i, class_folder in enumerate(classes):
    class_paths = sorted(
      os.path.join(parent, file)
      for parent, _, files in os.walk(class_folder)
      for file in files
      if file[0] != '.' and os.path.splitext(file)[1].lower() in suffixes
    )
    if not class_paths:
      raise UsageError(f'data.path: no images in {str(class_folder)!r}')
    paths += class_paths
    label += [i] * len(class_paths)
  if not paths:
    raise UsageError(
      f'data.path: no images in {str(root)!r}; expected one folder per class'
    )
  names = tuple(c.name for c in classes)
  return _Split(root, names, tuple(paths), np.array(label))


def _check_same_classes(train: _Split, test: _Split) -> None:
  """Raises UsageError if a class is only in one of two splits."""
  differing = sorted({*train.names} ^ {*test.names})
  if differing:
    root = train.root if differing[0] in train.names else test.root
    raise UsageError(
      f'data.path: expected the same classes in {str(train.root)!r} and '
      f'{str(test.root)!r}, but {differing[0]!r} is only in {str(root)!r}'
      + (f', and {len(differing) - 1} others differ' if differing[1:] else '')
    )


def _cut(whole: _Split, test: float) -> list[_Split]:
  """Returns [train, test]; the test split has the same share of each class."""
  checks.number('data.test', test, above=0, below=1)
  order = np.random.default_rng(0).permutation(len(whole.paths))
  held_out = np.zeros(len(order), bool)
  for i in range(len(whole.names)):
    class_rows = order[whole.label[order] == i]
    held_out[class_rows[: round(test * len(class_rows))]] = True
  return [
    whole._replace(
      paths=tuple(whole.paths[i] for i in np.flatnonzero(chosen)),
      label=whole.label[chosen],
    )
    for chosen in (~held_out, held_out)
  ]


def _image_shape(
  splits: Sequence[_Split], image_size: int | None
) -> tuple[int, int, int]:
  """Returns the shape `(H, W, C)` to which images are decoded.

  This reads the beginning of every file. The sizes are cached until a file
  changes.
  """
  paths = [path for split in splits for path in split.paths]

  def read_sizes() -> dict[str, np.ndarray]:
    with futures.ThreadPoolExecutor() as pool:
      return {'sizes': np.array(list(pool.map(_size, paths)), np.int32)}

  try:
    table = cache.remembered('sizes of images', paths, read_sizes)['sizes']
  except OSError as error:
    raise UsageError(f'data.path: {error}') from None
  sizes = list(map(tuple, table.tolist()))
  bad = [path for path, size in zip(paths, sizes) if size == (0, 0)]
  if bad:
    raise UsageError(
      f'data.path: {len(bad)} of {len(paths)} files cannot be read as images; '
      f'the first is {bad[0]}'
    )
  if image_size is not None:
    return image_size, image_size, 3
  for path, size in zip(paths, sizes):
    if size != sizes[0]:
      raise UsageError(
        'data.image_size: needed because the images differ in size, for '
        f'example {paths[0]} and {path}'
      )
  return *sizes[0], 3


def _size(path: str) -> tuple[int, int]:
  """Returns (height, width), or (0, 0) if the file is not an image."""
  pillow = optional.require('PIL.Image', "the data set 'folder'")
  try:
    with pillow.open(path) as image:
      return image.height, image.width
  except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError):
    return 0, 0
