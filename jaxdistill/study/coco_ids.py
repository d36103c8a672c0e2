"""The ids that a file in the format of COCO gives to images and categories."""

from collections.abc import Sequence
import json
import pathlib
from typing import NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError


class CocoIds(NamedTuple):
  """The ids of a file.

  Attributes:
    file: the path of the file.
    images: the name of an image file -> its id.
    categories: the name of a category -> its id.
  """

  file: str
  images: dict[str, int]
  categories: dict[str, int]

  def of_image(self, path: str) -> int:
    """Returns the id of an image file, in whatever folder it is.

    Raises:
      UsageError: the file does not name the image.
    """
    parts = pathlib.Path(path).parts
    ends = ('/'.join(parts[i:]) for i in range(len(parts)))
    found = next((end for end in ends if end in self.images), None)
    if found is None:
      raise UsageError(
        f'{path}: expected one of the {len(self.images):,} images that '
        f'{self.file} names'
      )
    return self.images[found]

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
      checks.choice(f'{self.file}: category', name, self.categories)
    return [self.categories[name] for name in names]


def read(file: str) -> CocoIds:
  """Reads a file of annotations, or one that only lists images.

  Raises:
    UsageError: there is no such file, or it has another format.
  """
  path = pathlib.Path(file).expanduser()
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    images = {x['file_name']: int(x['id']) for x in content['images']}
    categories = {x['name']: int(x['id']) for x in content['categories']}
  except OSError as error:
    raise UsageError(f'{file}: {checks.reason(error)}') from None
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UsageError(
      f'{file}: expected the format of COCO, with the keys images and '
      f'categories, got {checks.reason(error)}'
    ) from None
  return CocoIds(file, images, categories)
