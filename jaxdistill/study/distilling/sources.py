"""Which data set the argument `data` of a call stands for."""

from collections.abc import Mapping
import difflib
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import (
  decoding,
  hub_tables,
  huggingface,
  image_files,
  image_trees,
)
from jaxdistill.study.parse import parse
from jaxdistill.study.registry import DATASETS, TABLES

HUB = 'hf:'
# Images are made smaller than this, and their size a multiple of `STEP`.
LARGEST, STEP = 224, 32
# The number of images from which the size is chosen.
_SAMPLE = 256


class Source(NamedTuple):
  """A data set that is not necessarily read yet.

  Attributes:
    section: the section of the config.
    title: what the data set is called.
    image_shape: (H, W, C) of its images.
    has_labels: whether its images have labels.
  """

  section: dict[str, Any]
  title: str
  image_shape: tuple[int, int, int]
  has_labels: bool


def found(
  data: str | os.PathLike[str] | Mapping[str, Any],
  labels: str,
  image_size: int | None,
) -> Source:
  """Returns the data set that a call means.

  Args:
    data: see `call.distill`, like the others.
    labels: where the labels of a tree of images are.
    image_size: the size in pixels, or None to choose one.

  Raises:
    UsageError: there is no such data set, or it holds no images.
  """
  section = _section(data)
  if image_size is not None:
    checks.integer('image_size', image_size)
    section['image_size'] = image_size
  if section.get('name') in ('images', 'huggingface') and (
    'path' not in section
  ):
    raise UsageError(f"data: {section['name']!r} needs the key 'path'")
  if section.get('name') == 'images':
    return _images({'labels': labels, **section})
  if section.get('name') == 'huggingface':
    column = {} if labels == 'auto' else {'label': labels}
    return _huggingface({**column, **section})
  if labels != 'auto':
    raise UsageError(
      "labels: expected 'auto' for data that are no tree of images and not of "
      f'Hugging Face, got {labels!r}'
    )
  dataset: Dataset = parse(section, DATASETS, 'data', TABLES).build({})
  shape = dataset.splits['train']['image'].shape[1:]
  has_labels = 'label' in dataset.splits['train']
  return Source(
    _with_absolute_paths(section), str(section['name']), shape, has_labels
  )


def _section(
  data: str | os.PathLike[str] | Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the section of a path or a name, still without its options."""
  if isinstance(data, Mapping):
    return dict(data)
  if not isinstance(data, str | os.PathLike):
    raise UsageError(
      'data: expected a folder, a file, a name or a section of a config, got '
      f'{type(data).__name__}; write arrays to a .npz file, see jd.data.npz'
    )
  path = os.fspath(data)
  if path.startswith(HUB):
    return {'name': 'huggingface', 'path': path.removeprefix(HUB)}
  place = pathlib.Path(path).expanduser()
  if hub_tables.is_data_set(place):
    return {'name': 'huggingface', 'path': path}
  if place.is_dir():
    return {'name': 'images', 'path': path}
  if place.suffix == '.npz':
    return {'name': 'npz', 'path': path}
  if path == 'digits':
    return {'name': path}
  beside = os.listdir(place.parent) if place.parent.is_dir() else []
  near = difflib.get_close_matches(place.name, [*beside, 'digits'], n=1)
  hint = f'; did you mean {near[0]!r}?' if near else ''
  if place.is_file():
    hint = f'; the folder of this file is {os.fspath(place.parent)!r}'
  raise UsageError(
    "data: expected a folder of images, a .npz or .parquet file, 'hf:NAME' or "
    f"'digits', got {path!r}{hint}"
  )


def _images(section: dict[str, Any]) -> Source:
  """Returns a tree of images, whose size is chosen from a sample of them."""
  whole = {k: section[k] for k in ('path', 'labels', 'test') if k in section}
  train, _ = image_trees.read_splits(**whole)
  if section.get('image_size') is None:
    rows = _sample(len(train.paths))
    sizes = image_files.sizes([train.paths[i] for i in rows], upright=True)
    section['image_size'] = _size(sizes.sizes, section['path'])
  return _resized(section, bool(train.names))


def _huggingface(section: dict[str, Any]) -> Source:
  """Returns a table of images, whose size is chosen from a sample of them."""
  keys = ('path', 'config', 'image', 'label', 'test')
  train, _ = huggingface.read(**{k: section[k] for k in keys if k in section})
  if section.get('image_size') is None:
    sizes = []
    for i in _sample(len(train.encoded)):
      try:
        sizes.append(decoding.decode(train.encoded[i]).shape[:2])
      except OSError:
        sizes.append((0, 0))
    section['image_size'] = _size(np.array(sizes), section['path'])
  return _resized(section, bool(train.names))


def _resized(section: dict[str, Any], has_labels: bool) -> Source:
  size = section['image_size']
  shape = (size, size, 3)
  title = str(section['path'])
  section = _with_absolute_paths(section)
  first = {key: section.pop(key) for key in ('name', 'path')}
  ordered = {**first, 'validation': 0.1, **section}
  return Source(ordered, title, shape, has_labels)


def absolute(path: str | os.PathLike[str]) -> str:
  """Returns the absolute path of what exists; another name is unchanged."""
  place = pathlib.Path(path).expanduser()
  return str(place.absolute()) if place.exists() else os.fspath(path)


def _with_absolute_paths(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a section that names its files by absolute paths."""
  files = {
    key: absolute(section[key])
    for key in ('path', 'labels')
    if section.get(key) not in (None, *image_trees.LABELS)
  }
  return {**section, **files}


def _sample(count: int) -> list[int]:
  """Returns the numbers of at most 256 of some images, evenly spaced."""
  rows = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)
  return [int(i) for i in rows]


def _size(sizes: np.ndarray, path: str) -> int:
  """Returns the size in pixels that suits most images.

  It is the median of the shorter sides, at most 224, rounded down to a multiple
  of 32 if it is above 64.

  Args:
    sizes: (height, width) of some images `[N, 2]`; 0 for an unreadable one.
    path: the data set, for the message.

  Raises:
    UsageError: all of them are unreadable.
  """
  sides = sizes[(sizes > 0).all(-1)].min(-1)
  if not len(sides):
    raise UsageError(
      f'data: none of the images in {path!r} can be read; expected JPEG, PNG, '
      'WebP, TIFF or another format that Pillow reads'
    )
  side = min(LARGEST, int(np.median(sides)))
  return side if side <= 2 * STEP else side // STEP * STEP
