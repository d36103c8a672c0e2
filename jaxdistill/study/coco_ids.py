"""The ids that a file in the format of COCO gives to images and categories."""

import collections
from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib
from typing import Any, NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError


class CocoIds(NamedTuple):
  """The ids of a file.

  Attributes:
    file: the path of the file.
    images: the name of an image file, without parts such as `./` -> its id.
    categories: the name of a category -> its id.
  """

  file: str
  images: dict[str, int]
  categories: dict[str, int]

  def of_images(self, paths: Sequence[str]) -> list[int]:
    """Returns the ids of image files, in whatever folders they are.

    Raises:
      UsageError: an image is not named, or two files belong to one image.
    """
    paths_by_id: dict[int, str] = {}
    for path in paths:
      number = self._of_image(path)
      if number in paths_by_id:
        raise UsageError(
          f'{path}: expected one file for each image of {self.file}, got '
          f'{paths_by_id[number]} for the same image'
        )
      paths_by_id[number] = path
    return [*paths_by_id]

  def of_classes(self, names: Sequence[str]) -> list[int]:
    """Returns the ids of the categories with the names of classes.

    Raises:
      UsageError: there are no names, or there is no such category.
    """
    if not names:
      raise UsageError(
        'annotations: expected a student with the names of its classes, got '
        'one without names'
      )
    for name in names:
      if name not in self.categories:
        error = checks.unknown('category', name, self.categories)
        raise UsageError(f'{self.file}: {error}')
    return [self.categories[name] for name in names]

  def _of_image(self, path: str) -> int:
    """Returns the id of the image whose name is the longest end of a path.

    If there is no such name, the path as it is written may be the end of one
    name: `a.jpg` is the end of `train/a.jpg`.
    """
    parts = pathlib.Path(os.path.abspath(path)).parts
    for i in range(len(parts)):
      name = pathlib.Path(*parts[i:]).as_posix()
      if name in self.images:
        return self.images[name]
    end = f'/{_normal(path)}'
    names = [name for name in self.images if f'/{name}'.endswith(end)]
    if len(names) == 1:
      return self.images[names[0]]
    # One of the same file name in another folder, if there is one.
    near = min(self.images, key=lambda x: not x.endswith(parts[-1]))
    raise UsageError(
      f'{path}: expected one of the {len(self.images):,} images that '
      f'{self.file} names, such as {near!r}'
      + (f'; {len(names)} names end with {path}' if names else '')
    )


def read(file: str) -> CocoIds:
  """Reads a file of annotations, or one that only lists images.

  Raises:
    UsageError: the file cannot be read, has another format, names nothing, or
      gives two ids to one name.
  """
  try:
    text = pathlib.Path(file).expanduser().read_text(encoding='utf-8')
    content = json.loads(text)
  except OSError as error:
    raise UsageError(
      f'annotations: cannot read {file} ({error.strerror})'
    ) from None
  except ValueError as error:
    raise UsageError(
      f'{file}: expected a JSON file ({checks.reason(error)})'
    ) from None
  try:
    images = _ids(file, content['images'], 'file_name', _normal)
    return CocoIds(file, images, _ids(file, _categories(content), 'name'))
  except (AttributeError, KeyError, TypeError) as error:
    raise UsageError(
      f'{file}: expected the format of COCO, with the keys images and '
      f'categories, got {checks.reason(error)}'
    ) from None


def _categories(content: Mapping[str, Any]) -> list[Any]:
  """Returns the categories; of several with one name, those with objects."""
  counts = collections.Counter(c['name'] for c in content['categories'])
  used = {entry['category_id'] for entry in content.get('annotations', ())}
  return [
    category
    for category in content['categories']
    if counts[category['name']] == 1 or category['id'] in used
  ]


def _normal(path: str) -> str:
  """Returns a path with slashes and without parts such as `./`."""
  return pathlib.Path(os.path.normpath(path)).as_posix()


def _ids(
  file: str,
  entries: Sequence[Any],
  key: str,
  normal: Callable[[str], str] = str,
) -> dict[str, int]:
  """Returns the id of each entry by its normal name, which is under a key."""
  ids: dict[str, int] = {}
  if not entries:
    raise UsageError(f'{file}: expected at least one {key}, got none')
  for entry in entries:
    name = normal(str(entry[key]))
    if name in ids:
      raise UsageError(
        f'{file}: expected one entry for each {key}, got {name!r} twice'
      )
    where = f'{file}: id of {name!r}'
    ids[name] = checks.integer(where, entry['id'], at_least=0)
  return ids
