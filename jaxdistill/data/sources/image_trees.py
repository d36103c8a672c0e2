"""Data sets of any tree of image files, with or without labels."""

from collections.abc import Iterator, Mapping, Sequence
import os
import pathlib

from absl import logging
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import (
  arrays,
  class_folders,
  decoding,
  image_files,
  label_files,
)
from jaxdistill.data.sources import images as images_lib
from jaxdistill.data.sources.class_folders import Split

# What `labels` may be besides the path of a file.
LABELS = ('auto', 'folders', 'none')
# The number of skipped files that a message names.
NAMED = 20


def images(
  path: str,
  *,
  labels: str = 'auto',
  test: float = 0.2,
  image_size: int | None = None,
  num_classes: int | None = None,
  unreadable: float = 0.01,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  stratified: bool = True,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  background: str | Sequence[int] = 'white',
  range: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns the data set of all image files below a folder.

  Images are decoded as those of `folder`. Without labels, the data have no
  column 'label' and no classes; the tasks `embedding` and `imitation` suit
  them.

  Args:
    path: the folder.
    labels: 'folders': the folders in `path`, or in its folder of training
      images, are the classes. 'none': there are no labels. 'auto': folders are
      classes if there are at least two with images and no image lies beside
      them. Otherwise the path of a CSV or text file with an image and its class
      on each line, see `label_files.read`; images that it does not name are
      left out.
    test: the fraction of the images, and of each class, that forms the test
      split if there is no folder of test images.
    image_size: the size in pixels to which the shorter side of every image is
      resized, bilinear and antialiased; the square in the middle is kept. None:
      images keep their size, which must be the same for all.
    num_classes: the number of classes; None: the number of classes that have
      names, and 0 if there are no labels.
    unreadable: the largest fraction of the files that may be unreadable. Such
      files are named and skipped.
    validation: see `folder`, like the others.
    train_subset: the size of the split 'train_subset'.
    split_seed: chooses the examples of the validation split and the subset.
    stratified: see `from_arrays`.
    mean: per channel in [0, 255].
    std: the standard deviation, likewise.
    background: what shows through transparent pixels.
    range: the levels that become 0 and 255 in images of more than 8 bits.
    stream: whether images are decoded when they are needed; None: if all of
      them need more than 1 GiB. Only the beginnings of streamed images are read
      before training, so a file that is damaged further on stops the training.

  Raises:
    UsageError: there is no such folder, it holds no images, too many files are
      unreadable, or the labels are not valid.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  checks.number('data.unreadable', unreadable, at_least=0, below=1)
  colour = decoding.checked_background('data.background', background)
  levels = decoding.checked_range('data.range', range)
  if image_size is not None:
    checks.integer('data.image_size', image_size)
  whole_splits = read_splits(path, labels, test)
  class_folders.warn_of_photographs(os.path.expanduser(path))
  splits, shape, skipped = _measured(whole_splits, image_size)
  if stream is None:
    stream = images_lib.is_large((len(s.paths), *shape) for s in splits)
  columns: list[np.ndarray | images_lib.LazyImages] = []
  for i, split in enumerate(splits):
    column = images_lib.LazyImages(
      image_files.Paths(split.paths),
      np.arange(len(split.paths)),
      shape,
      resize=image_size is not None,
      background=colour,
      range=levels,
    )
    if stream:
      columns.append(column)
      continue
    pixels, damaged = column.decoded(column.places)
    skipped |= {split.paths[place]: why for place, why in damaged}
    good = ~np.isin(column.places, [place for place, _ in damaged])
    splits[i] = split.select(good)
    columns.append(pixels if good.all() else pixels[good])
  _check_skipped(skipped, sum(len(s.paths) for s in whole_splits), unreadable)
  train, test_split = splits
  return arrays.from_arrays(
    columns[0],
    train.label if train.names else None,
    columns[1],
    test_split.label if train.names else None,
    num_classes=num_classes,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    stratified=stratified,
    mean=mean,
    std=std,
    label_names=train.names,
  )


def read_splits(
  path: str, labels: str = 'auto', test: float = 0.2
) -> tuple[Split, Split]:
  """Returns the files of the training and the test split of a tree of images.

  Args:
    path: see `images`, like the others.
    labels: where the labels are.
    test: the fraction of the images that forms the test split.

  Returns:
    (train, test). Without labels, they have no names of classes, and the label
    of each file is 0.

  Raises:
    UsageError: there is no such folder, it holds no images, or the labels are
      not valid; with 'auto' also if the folder holds masks or depths.
  """
  root = pathlib.Path(os.path.expanduser(path))
  if not root.is_dir():
    raise UsageError(f'data.path: no folder {path!r}')
  checks.number('data.test', test, above=0, below=1)
  suffixes = decoding.suffixes()
  try:
    if labels == 'auto':
      _check_no_maps(root, suffixes)
      labels = 'folders' if _has_classes(root, suffixes) else 'none'
    if labels == 'folders':
      return _of_classes(root, test)
    return _of_files(root, suffixes, labels, test)
  except OSError as error:
    raise UsageError(f'data.path: {checks.reason(error)}') from None


def _holds_images(folder: pathlib.Path, suffixes: set[str]) -> bool:
  return any(True for _ in class_folders.image_paths(folder, suffixes))


def _has_classes(root: pathlib.Path, suffixes: set[str]) -> bool:
  """Returns whether the folders in a folder look like classes.

  There are at least two that hold images, other than those of splits, and no
  image lies beside them.
  """
  train = class_folders.named(root, class_folders.TRAIN_NAMES)
  base = root / (train or '.')
  with os.scandir(base) as entries:
    beside = any(
      os.path.splitext(e.name)[1].lower() in suffixes and e.name[0] != '.'
      for e in entries
      if not e.is_dir()
    )
  folders = [
    name
    for name in class_folders.folders_in(base)
    if _holds_images(base / name, suffixes)
  ]
  usual = {class_folders.usual(name) for name in folders}
  splits = {*class_folders.TRAIN_NAMES, *class_folders.TEST_NAMES}
  return not beside and len(folders) > 1 and not usual <= splits


def _check_no_maps(root: pathlib.Path, suffixes: set[str]) -> None:
  """Raises UsageError if masks or depths would be taken for a class."""
  train = class_folders.named(root, class_folders.TRAIN_NAMES)
  base = root / (train or '.')
  folders = {x.lower(): x for x in class_folders.folders_in(base)}
  for maps, source in (('masks', 'mask_folder'), ('depths', 'depth_folder')):
    if {'images', maps} <= folders.keys() and _holds_images(
      base / folders[maps], suffixes
    ):
      raise UsageError(
        'data.path: expected images without masks or depths, got the folders '
        f"'images' and {maps!r} in {str(base)!r}; the data set {source!r} "
        "reads them in a config; labels='folders' takes them for two classes"
      )


def _of_classes(root: pathlib.Path, test: float) -> tuple[Split, Split]:
  """Returns the splits of a folder whose folders are classes."""
  train = class_folders.named(root, class_folders.TRAIN_NAMES)
  if train and not class_folders.named(root, class_folders.TEST_NAMES):
    return class_folders.read_splits(root / train, '.', None, test)
  splits = class_folders.read_splits(root, None, None, test)
  if len(splits[0].names) < 2:
    raise UsageError(
      f'data.path: expected at least two classes in {str(root)!r}, got only '
      f'{splits[0].names[0]!r}; set labels="none" if it is not a class'
    )
  return splits


def _of_files(
  root: pathlib.Path, suffixes: set[str], labels: str, test: float
) -> tuple[Split, Split]:
  """Returns the splits of files that have no labels, or those of a file."""

  def holds(folder: pathlib.Path) -> bool:
    return _holds_images(folder, suffixes)

  table = None if labels == 'none' else label_files.read(labels, root)
  folders = [
    class_folders.named(root, names, holds)
    for names in (class_folders.TRAIN_NAMES, class_folders.TEST_NAMES)
  ]
  if None in folders:
    return class_folders.cut(_labelled(root, root, suffixes, table), test)
  train, test_split = (
    _labelled(root, root / str(folder), suffixes, table) for folder in folders
  )
  return train, test_split


def _labelled(
  root: pathlib.Path,
  folder: pathlib.Path,
  suffixes: set[str],
  table: label_files.Table | None,
) -> Split:
  """Returns the images below a folder with the labels of a table."""
  paths = sorted(class_folders.image_paths(folder, suffixes))
  if not paths:
    raise UsageError(
      f'data.path: no images in {str(folder)!r}; expected files such as '
      '"a.jpg" or "b.png", in folders or not'
    )
  if table is None:
    return Split(root, (), tuple(paths), np.zeros(len(paths), np.int64))
  named = [p for p in paths if p in table.label]
  if not named:
    raise UsageError(
      f'data.labels: names none of the {len(paths)} images in {str(folder)!r}'
    )
  label = np.array([table.label[p] for p in named], np.int64)
  return Split(root, table.names, tuple(named), label)


def _measured(
  splits: Sequence[Split], image_size: int | None
) -> tuple[list[Split], tuple[int, int, int], dict[str, str]]:
  """Returns the readable files, the shape to decode them to, and the others."""
  upright = image_size is None
  readable: list[Split] = []
  skipped: dict[str, str] = {}
  every = []
  for split in splits:
    measured = image_files.sizes(split.paths, upright=upright)
    skipped |= {split.paths[i]: why for i, why in measured.unreadable.items()}
    good = measured.sizes.min(-1, initial=1) > 0
    readable.append(split.select(good))
    every += list(zip(readable[-1].paths, measured.sizes[good].tolist()))
  if image_size is not None or not every:
    size = image_size or 1
    return readable, (size, size, 3), skipped
  first_path, first = every[0]
  for path, size in every:
    if size != first:
      raise UsageError(
        'data.image_size: needed because the images differ in size, for '
        f'example {first_path!r} and {path!r}'
      )
  return readable, (*first, 3), skipped


def _check_skipped(
  skipped: Mapping[str, str], total: int, share: float
) -> None:
  """Names the files that were skipped, or refuses the data set.

  Raises:
    UsageError: more than the given share of the files are unreadable.
  """
  if not skipped:
    return
  path, reason = next(iter(skipped.items()))
  if len(skipped) > share * total:
    raise UsageError(
      f'data.unreadable: expected at most {100 * share:g} % of the files to be '
      f'unreadable, got {len(skipped)} of {total}; the first is {path!r} '
      f'({reason})'
    )
  logging.warning(
    'data: skipped %d of %d files, which cannot be read as images: %s',
    *(len(skipped), total, ', '.join(_names(skipped))),
  )


def _names(skipped: Mapping[str, str]) -> Iterator[str]:
  """Yields the first of the skipped files with the reason."""
  for i, (path, reason) in enumerate(skipped.items()):
    if i == NAMED:
      yield f'and {len(skipped) - NAMED} more'
      return
    yield f'{class_folders.printable(path)!r} ({reason})'
