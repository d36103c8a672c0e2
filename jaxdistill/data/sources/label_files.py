"""Labels of images in a CSV or text file."""

from collections.abc import Mapping
import csv
import os
import pathlib
from typing import NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import class_folders, decoding


class Table(NamedTuple):
  """The labels of images.

  Attributes:
    names: the names of the classes, in the order of their numbers.
    label: the path of an image -> the number of its class.
  """

  names: tuple[str, ...]
  label: Mapping[str, int]


def read(file: str, root: pathlib.Path) -> Table:
  """Reads a file that names an image and its class on each line.

  The two are separated by a comma, a semicolon, a tab or spaces; further
  columns are ignored, and so is a first line whose first column is not an
  image. An image is named by its path below `root`, with or without the
  extension. Classes are numbered in the order of their names, or of their
  numbers if all names are whole numbers.

  Args:
    file: the path of the file; below `root` if there is none from here.
    root: the folder of the images.

  Raises:
    UsageError: there is no such file, a line has no second column, names no
      image, or gives an image another class; or there are fewer than two
      classes.
  """
  path = pathlib.Path(os.path.expanduser(file))
  path = path if path.is_file() else root / path
  if not path.is_file():
    raise UsageError(
      "data.labels: expected 'auto', 'folders', 'none' or a file of labels, "
      f'got {file!r}'
    )
  try:
    text = path.read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(
      f'data.labels: cannot read {file!r} as text ({checks.reason(error)})'
    ) from None
  images = _images(root)
  classes: dict[str, str] = {}
  for number, (name, label) in _rows(text, file).items():
    image = images.get(name.removeprefix('./'))
    if image is None:
      if number == 1:
        continue  # the titles of the columns
      raise UsageError(
        f'data.labels: line {number} of {file!r} names {name!r}, which is not '
        f'an image below {str(root)!r}'
      )
    if classes.setdefault(image, label) != label:
      raise UsageError(
        f'data.labels: line {number} of {file!r} gives {name!r} the class '
        f'{label!r}, and an earlier line {classes[image]!r}'
      )
  names = _ordered({*classes.values()})
  if len(names) < 2:
    raise UsageError(
      f'data.labels: expected at least two classes in {file!r}, got '
      f'{len(names)}'
    )
  numbers = {name: i for i, name in enumerate(names)}
  return Table(names, {k: numbers[label] for k, label in classes.items()})


def _rows(text: str, file: str) -> dict[int, tuple[str, str]]:
  """Returns the first two columns of each line that is not empty, by number."""
  lines = text.splitlines()
  first = next((line for line in lines if line.strip()), '')
  separator = next((c for c in '\t,;' if c in first), ' ')
  rows = {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    columns = (
      line.split()
      if separator == ' '
      else next(csv.reader([line], delimiter=separator))
    )
    columns = [column.strip() for column in columns]
    if len(columns) < 2 or not columns[1]:
      raise UsageError(
        f'data.labels: expected an image and its class on line {number} of '
        f'{file!r}, got {line[:80]!r}'
      )
    rows[number] = columns[0], columns[1]
  return rows


def _images(root: pathlib.Path) -> dict[str, str]:
  """Returns the images below a folder by their names, with and without suffix.

  A name without a suffix that several images share stands for none of them.
  """
  images: dict[str, str] = {}
  stems: dict[str, list[str]] = {}
  for path in class_folders.image_paths(root, decoding.suffixes()):
    name = pathlib.PurePath(os.path.relpath(path, root)).as_posix()
    images[name] = path
    stems.setdefault(os.path.splitext(name)[0], []).append(path)
  unique = {stem: paths[0] for stem, paths in stems.items() if not paths[1:]}
  return {**unique, **images}


def _ordered(names: set[str]) -> tuple[str, ...]:
  """Returns the names of classes, in the order of numbers if they are such."""
  if all(name.isdecimal() for name in names):
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  return tuple(sorted(names))
