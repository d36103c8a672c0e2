"""Data sets of TFDS for detection, such as 'voc' and 'coco/2017'."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.loading import cache
from jaxdistill.data.sources import arrays, decoding, images, objects, tfds

_PURPOSE = "the data set 'tfds_boxes'"
# An object with one of these flags need not be found.
_FLAGS = ('is_crowd', 'is_difficult')


def tfds_boxes(
  dataset: str,
  *,
  image_size: Sequence[int],
  data_dir: str | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  train_split: str = 'train',
  test_split: str | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns a data set for detection that TFDS has prepared.

  The data set must be prepared in the format array_record (or parquet). It has
  one image and a sequence of objects with a box and a class each, such as 'voc'
  and 'coco/2017'. Images are resized and placed as by `coco`, and the columns
  are the same. Objects that TFDS calls crowded or difficult are marked in the
  column 'crowd': they are not learned and need not be found.

  Args:
    dataset: 'voc/2007', 'coco/2017', 'name/config:version', ...
    image_size: the height and width in pixels of all images.
    data_dir: the folder of prepared data sets; None: the default folder of
      TFDS.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    train_split: a split, or a part or sum of splits such as
      'train+validation'.
    test_split: likewise; None: 'test' if it has objects, 'validation'
      otherwise.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    stream: whether images are decoded when they are needed instead of at once;
      None: if all of them need more than 1 GiB.

  Raises:
    UsageError: the data set is not prepared (the message says how to prepare
      it), cannot be read, is not for detection, or has a box that lies outside
      its image.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  height, width = (
    checks.integer('image_size', side)
    for side in checks.length('image_size', image_size, 2, 'sides of an image')
  )
  builder = tfds.prepared(dataset, data_dir)
  keys = _keys(builder.info, dataset)
  tfds.allow_open_files(2 * len(tfds.files_of(builder.info.data_dir)))
  sources = [
    tfds.source_of(builder, split, [keys.image])
    for split in (train_split, test_split or _test_split(builder, keys))
  ]
  shape = (height, width, 3)
  if stream is None:
    stream = images.is_large([(len(source), *shape) for source in sources])
  splits = [_read(source, keys, stream) for source in sources]
  most = max(1, *(split.objects.most() for split in splits))
  return arrays.from_columns(
    *(_columns(split, shape, most, stream) for split in splits),
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=keys.classes,
  )


class _Keys(NamedTuple):
  """What a data set calls its features.

  Attributes:
    image: the image.
    objects: the sequence of objects.
    box: the box of an object.
    label: the class of an object.
    number: the number of the image; '' if it has none.
    classes: the names of the classes.
  """

  image: str
  objects: str
  box: str
  label: str
  number: str
  classes: tuple[str, ...]


class _Split(NamedTuple):
  """A split after one pass over its records.

  Attributes:
    records: the encoded images.
    sizes: the height and width of each image, `[N, 2]`.
    numbers: the number of each image, `[N]`.
    objects: the objects of all images.
  """

  records: tfds.Records
  sizes: np.ndarray
  numbers: np.ndarray
  objects: objects.Objects


def _keys(info: Any, dataset: str) -> _Keys:
  """Returns the names of the features of a data set for detection."""
  features = optional.require('tensorflow_datasets', _PURPOSE).features

  def of(kind: Any, holder: Mapping[str, Any]) -> list[str]:
    return [name for name, x in holder.items() if isinstance(x, kind)]

  sequences = {
    name: feature.feature
    for name, feature in info.features.items()
    if isinstance(feature, features.Sequence)
    and isinstance(feature.feature, features.FeaturesDict)
    and of(features.BBoxFeature, feature.feature)
    and of(features.ClassLabel, feature.feature)
  }
  pictures = of(features.Image, info.features)
  if len(sequences) != 1 or len(pictures) != 1:
    raise UsageError(
      f'data.dataset: expected one image and one sequence of objects with a '
      f'BBoxFeature and a ClassLabel in {dataset!r}, got the features '
      f'{", ".join(sorted(info.features))}'
    )
  ((name, holder),) = sequences.items()
  label = of(features.ClassLabel, holder)[0]
  return _Keys(
    pictures[0],
    name,
    of(features.BBoxFeature, holder)[0],
    label,
    'image/id' if 'image/id' in info.features else '',
    tuple(holder[label].names),
  )


def _test_split(builder: Any, keys: _Keys) -> str:
  """Returns the name of the split that serves as the test split."""
  for split in ('test', 'validation'):
    if split in builder.info.splits:
      source = tfds.source_of(builder, split, [keys.image])
      # In the test split of a challenge, no image has objects.
      first = source.__getitems__(list(range(min(100, len(source)))))
      if any(len(record[keys.objects][keys.box]) for record in first):
        return split
  raise UsageError(
    f'data.test_split: needed because {builder.name!r} has no test or '
    f'validation split with objects (valid: {", ".join(builder.info.splits)}, '
    'and parts of them)'
  )


def _read(source: Any, keys: _Keys, stream: bool) -> _Split:
  """Reads everything about a split but its pixels.

  If images are streamed, the result is cached until a file changes.
  """
  info = source.dataset_info
  encoded: list[bytes] = []

  def measured() -> dict[str, np.ndarray]:
    rows: list[dict[str, np.ndarray]] = []
    for start in range(0, len(source), tfds.CHUNK):
      stop = min(start + tfds.CHUNK, len(source))
      for i, record in enumerate(source.__getitems__([*range(start, stop)])):
        where = f'example {start + i} of {info.full_name}, {source.split}'
        rows.append(_row(record, keys, start + i, where))
        if not stream:
          encoded.append(record[keys.image])
    return {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}

  if not len(source):
    raise UsageError(f'data: {info.full_name}, {source.split} has no examples')
  files = tfds.files_of(info.data_dir)
  if stream and files:
    what = f'{keys.objects} of {info.full_name}, {source.split}'
    table = cache.remembered(what, files, measured)
  else:
    table = measured()
  records = tfds.Records(source, keys.image, None if stream else encoded)
  found = objects.Objects(*(table[k] for k in objects.Objects._fields))
  return _Split(records, table['sizes'], table['numbers'], found)


def _row(
  record: Mapping[str, Any], keys: _Keys, row: int, where: str
) -> dict[str, np.ndarray]:
  """Returns what a record says besides the pixels of its image."""
  size = _size(record[keys.image], where)
  entries = record[keys.objects]
  boxes = np.asarray(entries[keys.box], np.float64).reshape(-1, 4)
  labels = np.asarray(entries[keys.label], np.int32).reshape(-1)
  wrong = (boxes[:, :2] > boxes[:, 2:]).any(1) | ~(
    (boxes >= -1e-3) & (boxes <= 1 + 1e-3)
  ).all(1)
  if wrong.any():
    raise UsageError(
      f'{where}: expected boxes (ymin, xmin, ymax, xmax) in [0, 1] with ymin '
      f'<= ymax and xmin <= xmax, got {boxes[wrong][0].tolist()}'
    )
  if (labels < 0).any():
    raise UsageError(f'{where}: expected the class of each object, got -1')
  pixels = np.clip(boxes, 0, 1) * np.array((*size, *size))
  flags = [np.asarray(entries[k], bool) for k in _FLAGS if k in entries]
  areas = np.prod(pixels[:, 2:] - pixels[:, :2], axis=1)
  return {
    'images': np.full(len(boxes), row, np.int32),
    'boxes': pixels.astype(np.float32),
    'classes': labels,
    'crowd': np.any([np.zeros(len(boxes), bool), *flags], axis=0),
    'areas': np.asarray(entries.get('area', areas), np.float32).reshape(-1),
    'sizes': np.array([size], np.int32),
    'numbers': np.array([record[keys.number] if keys.number else row]),
  }


def _size(encoded: bytes, where: str) -> tuple[int, int]:
  """Returns the height and width of an image.

  Raises:
    UsageError: this is not an image, or it is turned when it is decoded, so
      that its boxes would no longer fit.
  """
  try:
    size = decoding.size(encoded, upright=False)
    is_upright = decoding.is_upright(encoded)
  except OSError as error:
    raise UsageError(f'{where}: {checks.reason(error)}') from None
  if not is_upright:
    raise UsageError(
      f'{where}: expected an image that is stored upright, as its boxes are, '
      'got one whose EXIF orientation turns it'
    )
  return size


def _columns(
  split: _Split, shape: tuple[int, int, int], most: int, stream: bool
) -> dict[str, Any]:
  """Returns the columns of a split, with images of one shape."""
  count = len(split.sizes)
  image = images.LazyImages(
    split.records, np.arange(count), shape, letterbox=True
  )
  return {
    'image': image if stream else image[:],
    **objects.columns(split.objects, split.sizes, shape[:2], most),
    'image_id': split.numbers,
  }
