"""`jaxdistill predict`: an exported student's predictions for image files."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np

from jaxdistill.analysis import maps
from jaxdistill.core import checks, optional, writing
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import (
  class_folders,
  decoding,
  image_files,
  images,
  lazy_maps,
)
from jaxdistill.study import coco_ids, opening, reading
from jaxdistill.study.predictors import Predictor
from jaxdistill.tasks.detection.coco_results import coco_results

# The number of images that are read at a time.
_BATCH = 64


def lines(
  path: str,
  files: Sequence[str],
  out: str,
  background: str | None = None,
  annotations: str | None = None,
) -> Iterator[str]:
  """Yields what a student predicts, a line for each image.

  A line has the file, a tab, and the class, another tab and its probability; or
  the file that holds the prediction. Vectors are written to `vectors.npy`,
  objects to `objects.json`, and maps to a file for each image: the classes of
  pixels as a PNG file with these values, depths as a `.npy` file.

  Images are brought to the size of the student as its data set did, see
  `reading.of_data`. Masks and boxes are those of the original images.

  Args:
    path: see `opening.predictor`.
    files: image files, and folders that stand for all images below them.
    out: the folder for what is written.
    background: the colour behind transparent pixels, 'white' or 'black'; None:
      that of the student's data set.
    annotations: a file of COCO with the ids of the images and categories.
      Objects are then written to `coco_results.json`, in the format of COCO's
      evaluation server.

  Raises:
    UsageError: the student cannot be opened, or an image cannot be read. With
      `annotations`: the student is not a detector, or the file has another
      format or does not name an image or a class of the student.
  """
  files = [file for name in files for file in _files(name)]
  student = opening.predictor(path)
  folder = pathlib.Path(out).expanduser()
  column = _column(student, files)
  if background is not None:
    column = dataclasses.replace(
      column, background=decoding.COLOURS[background]
    )
  targets = student.task.targets
  if annotations is not None and 'boxes' not in targets:
    raise UsageError(
      'annotations: expected a student that finds objects, got one of the task '
      f'{student.task.name!r}'
    )
  if student.task.probabilities is not None:
    yield from _classes(student, files, column)
  elif 'boxes' in targets:
    ids = None if annotations is None else coco_ids.read(annotations)
    yield from _objects(student, files, column, folder, ids)
  elif 'mask' in targets or 'depth' in targets:
    yield from _maps(student, files, column, folder)
  else:
    yield from _vectors(student, files, column, folder)


def _files(name: str) -> list[str]:
  """Returns an image file, or those below a folder in the order of their paths.

  Raises:
    UsageError: there is no such file, or the folder holds no images.
  """
  place = pathlib.Path(name)
  if place.is_file():
    return [name]
  if not place.is_dir():
    raise UsageError(
      f'{name}: expected an image file or a folder of images, got no such file'
    )
  try:
    files = sorted(class_folders.image_paths(place, decoding.suffixes()))
    class_folders.warn_of_photographs(place)
  except OSError as error:
    raise UsageError(f'{name}: {checks.reason(error)}') from None
  if not files:
    raise UsageError(
      f'{name}: expected a folder of images, got a folder without images'
    )
  return files


def _column(student: Predictor, files: Sequence[str]) -> images.LazyImages:
  """Returns the images in the size of the student."""
  shape = student.image_shape
  if shape[-1] not in (1, 3):
    raise UsageError(
      'predict: expected a student of images with 1 or 3 channels, got '
      f'{shape[-1]}'
    )
  background, levels, fitting = student.reading
  how = fitting or reading.usual_fitting(student.task, shape)
  kind = (
    lazy_maps.LazyStretched if how == reading.STRETCHED else images.LazyImages
  )
  return kind(
    image_files.Paths(tuple(files)),
    np.arange(len(files)),
    shape,
    resize=how == reading.SQUARE,
    letterbox=how == reading.FITTED,
    background=background,
    range=levels,
  )


def _rows(
  function: Callable[[np.ndarray], np.ndarray], column: images.LazyImages
) -> Iterator[np.ndarray]:
  """Yields what a function gives for each image, some images at a time."""
  for start in range(0, len(column), _BATCH):
    yield from function(column[start : start + _BATCH])


def _classes(
  student: Predictor, files: Sequence[str], column: images.LazyImages
) -> Iterator[str]:
  for file, row in zip(files, _rows(student.probabilities, column)):
    best = int(row.argmax())
    yield f'{file}\t{_name(student, best)}\t{row[best]:.4f}'


def _vectors(
  student: Predictor,
  files: Sequence[str],
  column: images.LazyImages,
  folder: pathlib.Path,
) -> Iterator[str]:
  path = folder / 'vectors.npy'
  _write_array(path, np.stack([*_rows(student.__call__, column)]))
  for row, file in enumerate(files):
    yield f'{file}\t{path}, row {row}'


def _objects(
  student: Predictor,
  files: Sequence[str],
  column: images.LazyImages,
  folder: pathlib.Path,
  ids: coco_ids.CocoIds | None,
) -> Iterator[str]:
  """Writes the objects of all images, as results of COCO if there are ids."""
  if ids is None:
    path = folder / 'objects.json'
  else:
    path = folder / 'coco_results.json'
    category_ids = ids.of_classes(student.label_names)
    image_ids = ids.of_images(files)
  found = [
    _original(student, row[row[:, 5] >= 0], _size(file))
    for file, row in zip(files, _rows(student.__call__, column))
  ]
  if ids is None:
    content = json.dumps(
      [
        {'file': file, 'objects': [_object(student, x) for x in objects]}
        for file, objects in zip(files, found)
      ],
      indent=1,
    )
  else:
    content = json.dumps(
      [
        entry
        for number, objects in zip(image_ids, found)
        for entry in coco_results(
          objects[None], {'image_id': [number]}, category_ids=category_ids
        )
      ]
    )
  writing.write(path, content)
  for file, objects in zip(files, found):
    yield f'{file}\t{path}, {len(objects)} objects'


def _original(
  student: Predictor, objects: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """Returns objects `[D, 6]` with their boxes in pixels of the original image.

  Objects that lie in the black part of the resized image are dropped.

  Args:
    student: its images have another size.
    objects: for each object, the box, the score and the class.
    size: the height and width of the original image, at which boxes end.
  """
  height, width, _ = student.image_shape
  _, scale = decoding.fitted_size(size, (height, width))
  boxes = np.clip(objects[:, :4] / scale, 0, size * 2)
  has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
  return np.concatenate([boxes, objects[:, 4:]], axis=1)[has_area]


def _object(student: Predictor, row: np.ndarray) -> dict[str, Any]:
  """Returns an object as JSON."""
  number = int(row[5])
  return {
    'class': number,
    'name': _name(student, number),
    'score': round(float(row[4]), 4),
    'box': [round(float(x), 2) for x in row[:4]],
  }


def _maps(
  student: Predictor,
  files: Sequence[str],
  column: images.LazyImages,
  folder: pathlib.Path,
) -> Iterator[str]:
  for file, stem, row in zip(
    files, _stems(files), _rows(student.__call__, column)
  ):
    if row.dtype.kind == 'f':
      path = folder / f'{stem}.npy'
      _write_array(path, row)
    else:
      path = folder / f'{stem}.png'
      writing.write(path, _png(maps.nearest(row, _size(file))))
    yield f'{file}\t{path}'


def _stems(files: Sequence[str]) -> Iterator[str]:
  """Yields a name for each file; those of equal files get a number."""
  taken: set[str] = set()
  for file in files:
    stem = name = pathlib.Path(file).stem
    count = 1
    while name in taken:
      count += 1
      name = f'{stem}-{count}'
    taken.add(name)
    yield name


def _png(classes: np.ndarray) -> bytes:
  """Returns a PNG file whose values are classes, with a colour for each."""
  pillow = optional.require('PIL.Image', 'writing maps')
  image, content = pillow.fromarray(classes.astype(np.uint8)), io.BytesIO()
  image.putpalette(maps.palette().tobytes())
  image.save(content, 'PNG')
  return content.getvalue()


def _size(file: str) -> tuple[int, int]:
  """Returns the height and width of an image that has been read before."""
  try:
    return decoding.size(file)
  except OSError as error:
    raise UsageError(f'{file}: {checks.reason(error)}') from None


def _name(student: Predictor, number: int) -> str:
  """Returns the name of a class, or its number as text."""
  names = student.label_names
  return names[number] if number < len(names) else str(number)


def _write_array(path: pathlib.Path, array: np.ndarray) -> None:
  content = io.BytesIO()
  np.save(content, array)
  writing.write(path, content.getvalue())
