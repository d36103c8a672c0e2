"""Data sets for detection: images and boxes in the JSON format of COCO."""

import collections
from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays, image_files, images, objects, parts

# A box may extend beyond its image by so many pixels, and is then clipped.
_TOLERANCE = 1.0


def coco(
  path: str,
  *,
  image_size: Sequence[int],
  train_images: str = 'train2017',
  train_annotations: str = 'annotations/instances_train2017.json',
  test_images: str = 'val2017',
  test_annotations: str | None = 'annotations/instances_val2017.json',
  test: float = 0.2,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns the data set of a folder in the format of COCO, with boxes.

  Every image is resized, bilinear and antialiased, to fit into the given size.
  It is placed at the top left, the rest is black, and its boxes are resized
  with it. An image without boxes holds only background. Images are turned as
  their EXIF orientation says, and annotations must belong to the turned images.

  The columns are 'image', 'image_id', and those of `tasks.detection`: 'boxes',
  'classes', 'crowd', 'areas', 'scale' and 'extent'. The classes have the order
  of the categories in the file of the training set.

  Args:
    path: the folder.
    image_size: the height and width in pixels of all images.
    train_images: the folder of the training images, below `path`.
    train_annotations: the JSON file of their boxes, below `path`.
    test_images: the folder of the test images, below `path`.
    test_annotations: the JSON file of their boxes, below `path`. Its categories
      are recognised by their names. None: a part of the training images forms
      the test split.
    test: the fraction of the training images that then forms the test split.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    stream: whether images are decoded when they are needed instead of at once;
      None: if all of them need more than 1 GiB.

  Raises:
    UsageError: a file is missing or is not of this format, two images have one
      name, an image has another size than the annotations say or is in both
      splits, only the test split has a category, or a box has an unknown
      category or a negative side, or lies outside its image.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  height, width = (
    checks.integer('image_size', side)
    for side in checks.length('image_size', image_size, 2, 'sides of an image')
  )
  root = pathlib.Path(os.path.expanduser(path))
  files = [(root / train_annotations, root / train_images)]
  if test_annotations is not None:
    files.append((root / test_annotations, root / test_images))
  splits = [_read(*names) for names in files]
  if test_annotations is not None:
    splits[1] = _with_classes_of(splits[0], splits[1], files[1][0])
  if stream is None:
    counts = (len(split.paths) for split in splits)
    stream = images.is_large([(n, height, width, 3) for n in counts])
  for split, (annotations, _) in zip(splits, files):
    _check_sizes(split, annotations)
  most = max(split.objects.most() for split in splits)
  columns: list[Mapping[str, Any]] = [
    _columns(split, (height, width), most, stream) for split in splits
  ]
  if test_annotations is None:
    columns = parts.cut(columns[0], test)
  return arrays.from_columns(
    *columns,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=splits[0].names,
  )


class _Split(NamedTuple):
  """What a file of annotations says.

  Attributes:
    paths: the image files.
    ids: the number of each image in the file.
    sizes: the height and width of each image.
    objects: the annotations of all images.
    names: the names of the categories.
  """

  paths: tuple[str, ...]
  ids: list[int]
  sizes: list[tuple[int, int]]
  objects: objects.Objects
  names: tuple[str, ...]


def _read(file: pathlib.Path, folder: pathlib.Path) -> _Split:
  """Reads a file of annotations, and checks all of its boxes."""
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UsageError(
      f'data.path: no file {str(file)!r}; data.train_annotations names the '
      'file of the training set, and data.test_annotations that of the test '
      'set, or None to take a part of the training set'
    ) from None
  except (OSError, ValueError) as error:
    raise UsageError(
      f'{file}: expected a JSON file ({checks.reason(error)})'
    ) from None
  try:
    return _split(content, file, folder)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    if isinstance(error, UsageError):
      raise
    raise UsageError(
      f'{file}: expected the format of COCO, with the keys images, annotations '
      f'and categories, got {checks.reason(error)}'
    ) from None


def _split(
  content: Mapping[str, Any], file: pathlib.Path, folder: pathlib.Path
) -> _Split:
  for key in ('images', 'categories'):
    _check_ids(f'{file}: {key}', [entry['id'] for entry in content[key]])
  # Some programs export a group of categories as one of the same name.
  category_names = {c['id']: str(c['name']) for c in content['categories']}
  names = tuple(dict.fromkeys(category_names.values()))
  classes = {i: names.index(name) for i, name in category_names.items()}
  sizes = {image['id']: _size(file, image) for image in content['images']}
  for kind, known in (('image', sizes), ('category', classes)):
    if not known:
      raise UsageError(f'{file}: expected at least one {kind}, got none')
  places = {image: place for place, image in enumerate(sizes)}
  rows: list[tuple[Any, ...]] = []
  for entry in content['annotations']:
    where = f'{file}: annotation {entry.get("id", "without an id")}'
    image, category = entry['image_id'], entry['category_id']
    for kind, value, known in (
      ('image_id', image, sizes),
      ('category_id', category, classes),
    ):
      if value not in known:
        raise UsageError(
          f'{where}: expected the id of one of the {len(known)} '
          f'{"images" if known is sizes else "categories"}, {min(known)} to '
          f'{max(known)}, as {kind}, got {value!r}'
        )
    box = _box(where, entry['bbox'], sizes[image])
    area = entry.get('area', (box[2] - box[0]) * (box[3] - box[1]))
    area = checks.number(f'{where}: area', area, at_least=0)
    is_crowd = entry.get('iscrowd', 0)
    if is_crowd not in (0, 1):
      raise UsageError(f'{where}: iscrowd: expected 0 or 1, got {is_crowd!r}')
    rows.append((places[image], box, classes[category], is_crowd, area))
  paths = tuple(str(folder / image['file_name']) for image in content['images'])
  for path, count in collections.Counter(paths).items():
    if count > 1:
      raise UsageError(
        f'{file}: expected one image named {path!r}, got {count}'
      )
  for path in paths:
    if not os.path.exists(path):
      raise UsageError(f'data.path: no file {path!r}, which {file} names')
  return _Split(paths, [*sizes], [*sizes.values()], _objects(rows), names)


def _with_classes_of(train: _Split, test: _Split, file: pathlib.Path) -> _Split:
  """Returns the test split with the classes of the training split.

  Raises:
    UsageError: it has a category that the training split does not have, or an
      image that the training split has too.
  """
  other = next((name for name in test.names if name not in train.names), None)
  if other is not None:
    raise UsageError(
      f'{file}: expected categories of the training set, got {other!r}'
    )
  trained = {os.path.realpath(path) for path in train.paths}
  for path in test.paths:
    if os.path.realpath(path) in trained:
      raise UsageError(
        f'{file}: expected images that are not in the training set, got {path};'
        ' with data.test_annotations=None, a part of the training set forms '
        'the test split'
      )
  number = np.array([train.names.index(name) for name in test.names], np.int32)
  of_train = test.objects._replace(classes=number[test.objects.classes])
  return test._replace(objects=of_train, names=train.names)


def _objects(rows: Sequence[tuple[Any, ...]]) -> objects.Objects:
  """Returns annotations as arrays."""
  image, boxes, classes, crowd, areas = zip(*rows) if rows else ((),) * 5
  return objects.Objects(
    np.array(image, np.int32),
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(classes, np.int32),
    np.array(crowd, bool),
    np.array(areas, np.float32),
  )


def _check_sizes(split: _Split, file: pathlib.Path) -> None:
  """Checks that the images have the sizes that the annotations say.

  Images are turned as their EXIF orientation says before they are measured,
  because they are turned when they are decoded.

  Raises:
    UsageError: an image has another size, or is not an image.
  """
  sizes, unreadable = image_files.sizes(split.paths, upright=True)
  for number, reason in unreadable.items():
    raise UsageError(f'{split.paths[number]}: {reason}')
  for place in np.flatnonzero((sizes != np.array(split.sizes)).any(1)):
    expected, got = (
      f'{width}x{height}'
      for height, width in (split.sizes[place], sizes[place])
    )
    raise UsageError(
      f'{split.paths[place]}: expected an upright image of {expected}, as '
      f'{file} says, got {got}'
    )


def _check_ids(where: str, ids: Sequence[Any]) -> None:
  """Raises UsageError if ids are no integers of 32 bits, or not unique."""
  seen = set()
  for number in ids:
    checks.integer(f'{where}: id', number, at_least=0, at_most=2**31 - 1)
    if number in seen:
      raise UsageError(
        f'{where}: expected one entry for each id, got {number} twice'
      )
    seen.add(number)


def _size(file: pathlib.Path, image: Mapping[str, Any]) -> tuple[int, int]:
  """Returns the height and width of an image."""
  height, width = (
    checks.integer(f'{file}: image {image["id"]}: {key}', image[key])
    for key in ('height', 'width')
  )
  return height, width


def _box(
  where: str, bbox: Sequence[float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
  """Returns (top, left, bottom, right) of (left, top, width, height)."""
  numbers = [checks.number(f'{where}: bbox', x) for x in bbox]
  left, top, width, height = checks.length(
    f'{where}: bbox', numbers, 4, 'numbers'
  )
  if width < 0 or height < 0:
    raise UsageError(
      f'{where}: expected a bbox (left, top, width, height) with sides of at '
      f'least 0, got {numbers}'
    )
  box = (top, left, top + height, left + width)
  limits = (*size, *size)
  clipped = tuple(min(max(x, 0.0), float(y)) for x, y in zip(box, limits))
  if any(abs(x - y) > _TOLERANCE for x, y in zip(box, clipped)):
    raise UsageError(
      f'{where}: expected a bbox (left, top, width, height) inside its image '
      f'of {size[1]}x{size[0]}, got {numbers}'
    )
  top, left, bottom, right = clipped
  return top, left, bottom, right


def _columns(
  split: _Split, size: tuple[int, int], most: int, stream: bool
) -> dict[str, Any]:
  """Returns the columns of a split.

  Args:
    split: the split.
    size: the height and width of all images.
    most: the largest number of boxes of an image.
    stream: whether images stay encoded.
  """
  count = len(split.paths)
  files = image_files.Paths(split.paths)
  image = images.LazyImages(files, np.arange(count), (*size, 3), letterbox=True)
  return {
    'image': image if stream else image[:],
    **objects.columns(split.objects, np.array(split.sizes), size, most),
    'image_id': np.array(split.ids, np.int32),
  }
