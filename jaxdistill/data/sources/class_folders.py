"""Image files in folders: their splits, and their classes."""

from collections.abc import Iterator, Sequence
import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import decoding

# The usual names of the folders of splits, whose case does not matter.
TRAIN_NAMES = ('train', 'training', 'train_set', 'training_set', 'seg_train')
TEST_NAMES = (
  *('test', 'testing', 'test_set', 'testing_set', 'seg_test'),
  *('val', 'validation', 'valid', 'val_set', 'validation_set', 'valid_set'),
  *('dev', 'dev_set'),
)


class Split(NamedTuple):
  """The files of a split and the classes that they belong to.

  Attributes:
    root: the folder that has one folder per class.
    names: the names of the classes; bytes that are not UTF-8 are escaped.
    paths: the image files, in the order of the classes.
    label: the class of each file, `[N]`.
  """

  root: pathlib.Path
  names: tuple[str, ...]
  paths: tuple[str, ...]
  label: np.ndarray

  def select(self, chosen: np.ndarray) -> 'Split':
    """Returns the split with only some of the files.

    Args:
      chosen: which of them, booleans `[N]`.
    """
    paths = tuple(self.paths[i] for i in np.flatnonzero(chosen))
    return self._replace(paths=paths, label=self.label[chosen])


def read_splits(
  root: pathlib.Path,
  train_split: str | None,
  test_split: str | None,
  test: float,
) -> tuple[Split, Split]:
  """Returns the training and the test split of a folder.

  Args:
    root: the folder.
    train_split: the folder of the training images below `root`, and '.' for
      `root` itself; None: the one that has a usual name, or `root` itself.
    test_split: the folder of the test images below `root`; None: the one that
      has a usual name, or a part of each class if the training images are in
      `root` itself.
    test: the fraction of each class that is then the test split.

  Raises:
    UsageError: there are no such folders, a class is only in one of them, or
      the folders look like splits with unusual names.
    OSError: a folder cannot be read.
  """
  suffixes = decoding.suffixes()
  train_split = train_split or _named(root, TRAIN_NAMES)
  if train_split is None and test_split is not None:
    raise UsageError(
      f'data.train_split: needed with data.test_split because {str(root)!r} '
      'has no folder train or the like with one folder per class in it'
    )
  if train_split is None:
    _check_not_splits(root)
  if test_split is None and train_split in (None, '.'):
    return _cut(_split(root, suffixes, 'data.path'), test)
  test_split = test_split or _named(root, TEST_NAMES)
  if test_split is None:
    raise UsageError(
      f'data.test_split: needed because {str(root)!r} has no folder test, '
      'val, valid or the like with one folder per class in it; name the folder '
      f'of the test images, or set data.train_split="." if {train_split!r} is '
      'a class'
    )
  splits = (
    _split(root / str(train_split), suffixes, 'data.train_split'),
    _split(root / test_split, suffixes, 'data.test_split'),
  )
  _check_same_classes(*splits)
  return splits


def _folders(root: str | pathlib.Path) -> list[str]:
  """Returns the names of the folders in a folder, in order."""
  if not os.path.isdir(root):
    return []
  with os.scandir(root) as entries:
    return sorted(e.name for e in entries if e.name[0] != '.' and e.is_dir())


def _named(root: pathlib.Path, names: Sequence[str]) -> str | None:
  """Returns the first folder that has one of the names and has folders."""
  found: dict[str, str] = {}
  for folder in _folders(root):
    usual = folder.lower().replace('-', '_').replace(' ', '_')
    preferred = folder == usual or usual not in found
    if usual in names and preferred and _folders(root / folder):
      found[usual] = folder
  return next((found[name] for name in names if name in found), None)


def _check_not_splits(root: pathlib.Path) -> None:
  """Raises UsageError if two folders have the same classes, as splits do.

  Also if a folder has the same classes as `root` itself, as a split has that
  lies beside the classes.
  """
  inner = {'.': {*_folders(root)}}
  for folder in sorted(inner['.']):
    classes = {*_folders(root / folder)}
    for other, other_classes in inner.items() if classes else ():
      shared = sorted(classes & other_classes)
      if len(shared) > 1:
        raise UsageError(
          f'data.train_split: needed because {other!r} and {folder!r} in '
          f'{str(root)!r} both have the folders {shared[0]!r} and '
          f'{shared[1]!r} in them, as splits do; name the folders of the '
          'splits with data.train_split and data.test_split, or set '
          f'data.train_split="." if {folder!r} is a class'
        )
    inner[folder] = classes


def _split(root: pathlib.Path, suffixes: set[str], key: str) -> Split:
  """Returns the image files below a folder that has one folder per class."""
  classes = _folders(root)
  paths: list[str] = []
  label: list[int] = []
  for i, folder in enumerate(classes):
    class_paths = sorted(
      os.path.join(parent, name)
      for parent, names in _walk(root / folder)
      for name in names
      if name[0] != '.' and os.path.splitext(name)[1].lower() in suffixes
    )
    if not class_paths:
      raise UsageError(f'{key}: no images in {str(root / folder)!r}')
    paths += class_paths
    label += [i] * len(class_paths)
  if not paths:
    raise UsageError(
      f'{key}: no images in {str(root)!r}; expected one folder per class'
    )
  names = tuple(map(printable, classes))
  return Split(root, names, tuple(paths), np.array(label))


def printable(name: str) -> str:
  r"""Returns a file name with the bytes that are not UTF-8 escaped, as `\xff`.

  Args:
    name: the name as Python's functions for files give it.
  """
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def _walk(folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
  """Yields each folder below a folder, with the names of the files in it.

  Links to folders are followed, also to those outside the tree. A folder that
  several links lead to is entered once, and a link to a folder around it, which
  would be a loop, is not followed.
  """
  real = pathlib.Path(os.path.realpath(folder))
  around = pathlib.Path(os.path.realpath(folder.parent))
  entered = {*map(str, (real, *real.parents, around, *around.parents))}

  def fail(error: OSError) -> None:
    raise error

  for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
    chosen = []
    for name in sorted(folders):
      target = os.path.realpath(os.path.join(parent, name))
      if target not in entered:
        entered.add(target)
        chosen.append(name)
    folders[:] = chosen
    yield parent, files


def _check_same_classes(train: Split, test: Split) -> None:
  """Raises UsageError if a class is only in one of two splits."""
  differing = sorted({*train.names} ^ {*test.names})
  if differing:
    root = train.root if differing[0] in train.names else test.root
    raise UsageError(
      f'data.path: expected the same classes in {str(train.root)!r} and '
      f'{str(test.root)!r}, but {differing[0]!r} is only in {str(root)!r}'
      + (f', and {len(differing) - 1} others differ' if differing[1:] else '')
    )


def _cut(whole: Split, test: float) -> tuple[Split, Split]:
  """Returns (train, test); the test split has the same share of each class."""
  checks.number('data.test', test, above=0, below=1)
  order = np.random.default_rng(0).permutation(len(whole.paths))
  held_out = np.zeros(len(order), bool)
  for i in range(len(whole.names)):
    class_rows = order[whole.label[order] == i]
    held_out[class_rows[: round(test * len(class_rows))]] = True
  return whole.select(~held_out), whole.select(held_out)
