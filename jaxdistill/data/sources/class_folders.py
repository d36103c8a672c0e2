"""Image files in folders: their splits, and their classes."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
import pathlib
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import decoding
from jaxdistill.data.sources import labels as labels_lib

# The usual names of the folders of splits, whose case does not matter.
TRAIN_NAMES = ('train', 'training', 'train_set', 'training_set', 'seg_train')
TEST_NAMES = (
  *('test', 'testing', 'test_set', 'testing_set', 'seg_test'),
  *('val', 'validation', 'valid', 'val_set', 'validation_set', 'valid_set'),
  *('dev', 'dev_set'),
)
# The endings of photographs that Pillow may not decode, or only some versions.
_PHOTOGRAPHS = {
  *('.heic', '.heif', '.avif', '.jxl', '.dng'),
  *('.arw', '.cr2', '.cr3', '.nef', '.orf', '.raf', '.rw2'),
}
# macOS adds this folder to archives. It holds none of the user's images.
_OF_MACOS = '__MACOSX'


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
  train_split = train_split or named(root, TRAIN_NAMES)
  if train_split is None and test_split is not None:
    raise UsageError(
      f'data.train_split: needed with data.test_split because {str(root)!r} '
      'has no folder train or the like with one folder per class in it'
    )
  if train_split is None:
    _check_not_splits(root)
  if test_split is None and train_split in (None, '.'):
    return cut(split(root, suffixes, 'data.path'), test)
  test_split = test_split or named(root, TEST_NAMES)
  if test_split is None:
    raise UsageError(
      f'data.test_split: needed because {str(root)!r} has no folder test, '
      'val, valid or the like with one folder per class in it; name the folder '
      f'of the test images, or set data.train_split="." if {train_split!r} is '
      'a class'
    )
  splits = (
    split(root / str(train_split), suffixes, 'data.train_split'),
    split(root / test_split, suffixes, 'data.test_split'),
  )
  _check_same_classes(*splits)
  return splits


def folders_in(root: str | pathlib.Path) -> list[str]:
  """Returns the names of the folders in a folder, in order.

  Args:
    root: the folder. Folders in it whose names begin with a dot are left out,
      and so is the one that macOS adds to archives.
  """
  if not os.path.isdir(root):
    return []
  with os.scandir(root) as entries:
    return sorted(
      e.name
      for e in entries
      if e.name[0] != '.' and e.name != _OF_MACOS and e.is_dir()
    )


def usual(folder: str) -> str:
  """Returns the name of a folder as the usual names of splits are written."""
  return folder.lower().replace('-', '_').replace(' ', '_')


def named(
  root: pathlib.Path,
  names: Sequence[str],
  holds: Callable[[pathlib.Path], Any] = folders_in,
) -> str | None:
  """Returns the first folder that has one of the names.

  Args:
    root: where the folder is.
    names: the names, in the order of preference.
    holds: whether a folder holds what a split does: other folders.
  """
  found: dict[str, str] = {}
  for folder in folders_in(root):
    name = usual(folder)
    preferred = folder == name or name not in found
    if name in names and preferred and holds(root / folder):
      found[name] = folder
  return next((found[name] for name in names if name in found), None)


def _check_not_splits(root: pathlib.Path) -> None:
  """Raises UsageError if two folders have the same classes, as splits do.

  Also if a folder has the same classes as `root` itself, as a split has that
  lies beside the classes.
  """
  inner = {'.': {*folders_in(root)}}
  for folder in sorted(inner['.']):
    classes = {*folders_in(root / folder)}
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


def split(root: pathlib.Path, suffixes: set[str], key: str) -> Split:
  """Returns the image files below a folder that has one folder per class.

  Args:
    root: the folder.
    suffixes: the file name extensions of images.
    key: the key of the config that names the folder, for messages.

  Raises:
    UsageError: a folder has no images.
    OSError: a folder cannot be read.
  """
  classes = folders_in(root)
  paths: list[str] = []
  label: list[int] = []
  for i, folder in enumerate(classes):
    class_paths = sorted(image_paths(root / folder, suffixes))
    if not class_paths:
      raise UsageError(
        f'{key}: no images in {str(root / folder)!r}; expected some in the '
        'folder of each class; remove this folder if it is not a class'
      )
    paths += class_paths
    label += [i] * len(class_paths)
  if not paths:
    raise UsageError(
      f'{key}: no images in {str(root)!r}; expected one folder per class'
    )
  names = tuple(map(printable, classes))
  return Split(root, names, tuple(paths), np.array(label))


def image_paths(
  folder: str | os.PathLike[str], suffixes: set[str]
) -> Iterator[str]:
  """Yields the image files below a folder, in no particular order.

  Files and folders whose names begin with a dot are left out.

  Args:
    folder: the folder; links in it are followed.
    suffixes: the file name extensions of images.

  Raises:
    OSError: a folder cannot be read.
  """
  for parent, names in _walk(pathlib.Path(folder)):
    for name in names:
      if name[0] != '.' and os.path.splitext(name)[1].lower() in suffixes:
        yield os.path.join(parent, name)


def warn_of_photographs(folder: str | os.PathLike[str]) -> None:
  """Warns of photographs below a folder in formats that are not read.

  Args:
    folder: the folder.
  """
  unread = _PHOTOGRAPHS - decoding.suffixes()
  paths: list[str] = []
  # Folders that belong to no split may be unreadable.
  with contextlib.suppress(OSError):
    paths += image_paths(folder, unread)
  if paths:
    logging.warning(
      'left out %d photographs in formats that Pillow does not decode, such as '
      '%r; convert them to JPEG or PNG',
      *(len(paths), printable(min(paths))),
    )


def printable(name: str) -> str:
  r"""Returns a file name with the bytes that are not UTF-8 escaped, as `\xff`.

  Args:
    name: the name as Python's functions for files give it.
  """
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def _walk(folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
  """Yields each folder below a folder, with the names of the files in it.

  Hidden folders, whose names begin with a dot, are not entered.
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
      if name[0] != '.' and target not in entered:
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


def cut(whole: Split, test: float) -> tuple[Split, Split]:
  """Returns (train, test); the test split has the same share of each class.

  Args:
    whole: all files.
    test: the fraction of each class that is the test split.

  Raises:
    UsageError: the fraction is not in (0, 1).
  """
  held_out = labels_lib.test_rows(whole.label, test)
  return whole.select(~held_out), whole.select(held_out)
