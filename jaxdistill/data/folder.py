"""Data sets of image files, one folder a class."""

from collections.abc import Sequence
from concurrent import futures
import os
import pathlib
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxdistill.data import arrays, cache, images
from jaxdistill.types import Dataset, UsageError

TEST_SPLITS = ('test', 'val', 'validation', 'valid')


def folder(
  path: str,
  *,
  test: float = 0.2,
  image_size: int | None = None,
  num_classes: int | None = None,
  validation: float = 0.1,
  few: int | None = None,
  split_seed: int = 0,
  train_split: str = 'train',
  test_split: str | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Image files `path/CLASS/...`, or `path/train/CLASS/...` and `path/test/`.

  Classes are numbered in the order of their folders' names, and images in the
  order of their paths; a class may hold folders. All images become RGB.

  Args:
    path: the folder.
    test: share of each class that is the test split, always the same, where the
      files lie in no folder `train_split`.
    image_size: every image's shorter side is resized to it, bilinear and
      antialiased, and the square in the middle is kept. None: as they are;
      images that differ in size need it.
    num_classes: None: as many as there are folders; another number is refused.
    validation: see `arrays.from_arrays`; so are few, split_seed, mean and std.
    few: size of the split 'few'.
    split_seed: which examples those splits take.
    train_split: the folder of the training images.
    test_split: the folder of the test images; None: the first there is of
      'test', 'val', 'validation' and 'valid'.
    mean: per channel in [0, 255]; None: of the images trained on, but of 1,024
      of them, evenly spaced, where they are not decoded at once.
    std: the same.
    stream: whether images are decoded when they are needed, not at once; None:
      if all of them take more than 1 GiB.

  Raises:
    UsageError: there is no such data set, or it cannot be read.
  """
  arrays.check_choices(validation, few, split_seed, mean, std)
  root = pathlib.Path(os.path.expanduser(path))
  if not root.is_dir():
    raise UsageError(f'data.path: no folder {path!r}')
  if image_size is not None and image_size <= 0:
    raise UsageError(f'data.image_size: {image_size} is not above 0')
  if _folders(root / train_split):
    test_split = test_split or _test_split(root)
    splits = [_split(root / name) for name in (train_split, test_split)]
    _check_same_classes(*splits)
  else:
    splits = _cut(_split(root), test)
  names = splits[0].names
  if len(names) < 2:
    raise UsageError(f'{path!r} has one class only, {names[0]!r}')
  if num_classes not in (None, len(names)):
    raise UsageError(
      f'data.num_classes is {num_classes}; {path!r} has {len(names)} classes'
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
    few=few,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=names,
  )


class _Split(NamedTuple):
  """The files of a split and the classes they belong to."""

  root: pathlib.Path
  names: tuple[str, ...]
  paths: tuple[str, ...]
  label: np.ndarray


class _Paths(NamedTuple):
  """Image files on disk."""

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
  found = (p for p in root.iterdir() if p.is_dir() and p.name[0] != '.')
  return sorted(found, key=lambda p: p.name)


def _test_split(root: pathlib.Path) -> str:
  for name in TEST_SPLITS:
    if _folders(root / name):
      return name
  raise UsageError(
    f'{str(root)!r} has no folder {", ".join(TEST_SPLITS)} with one folder a '
    'class in it; name the one with the test images in data.test_split'
  )


def _split(root: pathlib.Path) -> _Split:
  """The image files below `root`, one folder a class."""
  PIL.Image.init()
  suffixes = set(PIL.Image.registered_extensions())
  classes = _folders(root)
  paths: list[str] = []
  label: list[int] = []
  for i, of_class in enumerate(classes):
    found = sorted(
      os.path.join(where, file)
      for where, _, files in os.walk(of_class)
      for file in files
      if file[0] != '.' and os.path.splitext(file)[1].lower() in suffixes
    )
    if not found:
      raise UsageError(f'no images in {str(of_class)!r}')
    paths += found
    label += [i] * len(found)
  if not paths:
    raise UsageError(f'no images in folders of {str(root)!r}, one a class')
  names = tuple(c.name for c in classes)
  return _Split(root, names, tuple(paths), np.array(label))


def _check_same_classes(train: _Split, test: _Split) -> None:
  differing = sorted({*train.names} ^ {*test.names})
  if differing:
    where = train.root if differing[0] in train.names else test.root
    raise UsageError(
      f'the classes of {str(train.root)!r} and {str(test.root)!r} differ: '
      f'{differing[0]!r} is only in {str(where)!r}'
      + (f', and {len(differing) - 1} others' if differing[1:] else '')
    )


def _cut(whole: _Split, test: float) -> list[_Split]:
  """Training and test split; each class gives the same share."""
  if not 0 < test < 1:
    raise UsageError(f'data.test: {test} is no share between 0 and 1')
  order = np.random.default_rng(0).permutation(len(whole.paths))
  held_out = np.zeros(len(order), bool)
  for i in range(len(whole.names)):
    of_class = order[whole.label[order] == i]
    held_out[of_class[: round(test * len(of_class))]] = True
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
  """What the images are decoded to; looks at the beginning of every file.

  Once: of files that have not changed the sizes are remembered.
  """
  paths = [path for split in splits for path in split.paths]

  def find() -> dict[str, np.ndarray]:
    with futures.ThreadPoolExecutor() as pool:
      return {'sizes': np.array(list(pool.map(_size, paths)), np.int32)}

  try:
    found = cache.remembered('sizes of images', paths, find)['sizes']
  except OSError as error:
    raise UsageError(f'data.path: {error}') from None
  sizes = list(map(tuple, found.tolist()))
  bad = [path for path, size in zip(paths, sizes) if size == (0, 0)]
  if bad:
    raise UsageError(
      f'{len(bad)} of {len(paths)} files are no readable images; the first: '
      f'{bad[0]}'
    )
  if image_size is not None:
    return image_size, image_size, 3
  for path, size in zip(paths, sizes):
    if size != sizes[0]:
      raise UsageError(
        f'the images differ in size, as {paths[0]} and {path}: give '
        'data.image_size'
      )
  return *sizes[0], 3


def _size(path: str) -> tuple[int, int]:
  """(height, width), or (0, 0) where the file is no image."""
  try:
    with PIL.Image.open(path) as image:
      return image.height, image.width
  except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
    return 0, 0
