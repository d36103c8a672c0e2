"""Data sets of TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Sequence
import os
import resource
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.data import arrays, cache, images, prepare
from jaxdistill.types import Dataset, UsageError

# Records read at a time.
CHUNK = 1024
# Files that a process has open beside those of the data.
SPARE_FILES = 512


def tfds(
  dataset: str,
  *,
  data_dir: str | None = None,
  image_size: int | None = None,
  num_classes: int | None = None,
  validation: float = 0.1,
  few: int | None = None,
  split_seed: int = 0,
  train_split: str = 'train',
  test_split: str | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Any image classification data set that TFDS knows or has prepared.

  It must be prepared in the format array_record (or parquet). Images with one
  channel keep one; all others become RGB.

  Args:
    dataset: 'cifar10', 'imagenet2012', 'name/config:version', ...
    data_dir: where it is; None: where TFDS keeps its data.
    image_size: every image's shorter side is resized to it, bilinear and
      antialiased, and the square in the middle is kept. None: as they are; a
      data set whose images differ in size needs it.
    num_classes: None: as many as it has.
    validation: see `arrays.from_arrays`; so are few, split_seed, mean and std.
    few: size of the split 'few'.
    split_seed: which examples those splits take.
    train_split: a split, or a part such as 'train[:10%]'.
    test_split: None: 'test' if it has labels, or else 'validation'.
    mean: per channel in [0, 255]; None: of the images trained on, but of 1,024
      of them, evenly spaced, where they are not decoded at once.
    std: the same.
    stream: whether images are decoded when they are needed, not at once; None:
      if all of them take more than 1 GiB.

  Raises:
    UsageError: it is not there, not readable, or no image classification. The
      message says how to prepare it.
  """
  arrays.check_choices(validation, few, split_seed, mean, std)
  builder = _prepared(dataset, data_dir)
  keys = _keys(builder.info, dataset)
  # A reader keeps each file open, and a part of a split has its own.
  _allow_open_files(2 * len(_files(builder.info.data_dir)))
  shape = builder.info.features[keys.image].shape
  channels = 1 if shape[-1] == 1 else 3
  if image_size is not None:
    if image_size <= 0:
      raise UsageError(f'data.image_size: {image_size} is not above 0')
    shape = (image_size, image_size)
  elif None in shape:
    raise UsageError(
      f'the images of {dataset!r} differ in size: give data.image_size'
    )
  classes = builder.info.features[keys.label]
  if num_classes not in (None, classes.num_classes):
    raise UsageError(
      f'data.num_classes is {num_classes}; {dataset!r} has '
      f'{classes.num_classes} classes'
    )
  train = _source(builder, train_split, keys)
  test = _source(builder, test_split or _test_split(builder, keys), keys)
  image_shape = (*shape[:2], channels)
  if stream is None:
    sizes = [(len(source), *image_shape) for source in (train, test)]
    stream = images.is_large(sizes)
  columns = [
    _columns(source, keys, image_shape, image_size is not None, stream)
    for source in (train, test)
  ]
  return arrays.from_arrays(
    *columns[0],
    *columns[1],
    num_classes=classes.num_classes,
    validation=validation,
    few=few,
    split_seed=split_seed,
    mean=mean,
    std=std,
    # TFDS calls classes without names '0', '1', ...
    label_names=classes.names,
  )


class _Keys(NamedTuple):
  """What the features are called."""

  image: str
  label: str


class _Records(NamedTuple):
  """The images of a data source.

  Attributes:
    source: of TFDS.
    key: what they are called in a record.
    encoded: they, if they have been read.
  """

  source: Any
  key: str
  encoded: Sequence[bytes] | None

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    if self.encoded is not None:
      return [self.encoded[place] for place in places]
    return [record[self.key] for record in self.source.__getitems__(places)]

  def name(self, place: int) -> str:
    info = self.source.dataset_info
    return f'example {place} of {info.full_name}, {self.source.split}'


def _prepared(dataset: str, data_dir: str | None) -> Any:
  """The builder of a data set that is on disk."""
  import tensorflow_datasets  # takes half a second, and few need it

  if data_dir is not None:
    data_dir = os.path.expanduser(data_dir)
  try:
    with prepare.quiet():
      builder = tensorflow_datasets.builder(dataset, data_dir=data_dir)
      there = builder.is_prepared()
  except tensorflow_datasets.core.DatasetNotFoundError:
    where = '' if data_dir is None else f', nor one prepared in {data_dir!r}'
    raise UsageError(
      f'data.dataset: TFDS has no data set {dataset!r}{where}'
    ) from None
  except (ValueError, AssertionError) as error:
    reason = ' '.join(str(error).split())
    raise UsageError(f'data.dataset: {dataset!r}: {reason}') from None
  if not there:
    raise UsageError(
      f'{dataset!r} is not in {str(builder.data_path)!r}; prepare it with '
      f'{prepare.command(dataset, data_dir)}'
    )
  return builder


def _source(builder: Any, split: str, keys: _Keys) -> Any:
  """Random access to a split; images stay encoded."""
  from tensorflow_datasets import decode

  try:
    return builder.as_data_source(
      split, decoders={keys.image: decode.SkipDecoding()}
    )
  except NotImplementedError:
    raise UsageError(
      f'{str(builder.data_path)!r} is in a format without random access; '
      'convert it with tfds convert_format --out_file_format=array_record '
      f'--dataset_version_dir={builder.data_path} (which needs TensorFlow)'
    ) from None
  except ValueError:
    raise UsageError(
      f'data: {builder.name!r} has no split {split!r}; valid: '
      f'{", ".join(builder.info.splits)}, and parts of them'
    ) from None


def _keys(info: Any, dataset: str) -> _Keys:
  """The features that are the image and its class."""
  from tensorflow_datasets import features

  kinds = (features.Image, features.ClassLabel)
  chosen = []
  for i, (kind, usual) in enumerate(zip(kinds, _Keys('image', 'label'))):
    found = [k for k, v in info.features.items() if isinstance(v, kind)]
    named = (info.supervised_keys or ())[i : i + 1]
    preferred = [k for k in (*named, usual) if k in found]
    if not preferred and len(found) != 1:
      raise UsageError(
        f'{dataset!r} has {len(found)} features {kind.__name__}, where image '
        f'classification has one; all: {", ".join(sorted(info.features))}'
      )
    chosen.append((preferred or found)[0])
  image = info.features[chosen[0]]
  if np.dtype(image.np_dtype) != np.uint8:
    raise UsageError(
      f'the images of {dataset!r} are {image.np_dtype}; wanted: uint8'
    )
  return _Keys(*chosen)


def _test_split(builder: Any, keys: _Keys) -> str:
  for split in ('test', 'validation'):
    # A test split for a leaderboard has the label -1 throughout.
    if split in builder.info.splits:
      source = _source(builder, split, keys)
      if len(source) and source[0][keys.label] >= 0:
        return split
  raise UsageError(
    f'{builder.name!r} has no test or validation split with labels; give '
    f'data.test_split, of {", ".join(builder.info.splits)} or parts of them'
  )


def _columns(
  source: Any,
  keys: _Keys,
  image_shape: tuple[int, int, int],
  resize: bool,
  stream: bool,
) -> tuple[np.ndarray | images.LazyImages, np.ndarray]:
  """The images and labels of a split.

  One pass over its records; where images are read when they are needed, the
  labels of files that have not changed are remembered.
  """
  encoded: list[bytes] = []

  def find() -> dict[str, np.ndarray]:
    labels: list[int] = []
    for start in range(0, len(source), CHUNK):
      stop = min(start + CHUNK, len(source))
      records = source.__getitems__(list(range(start, stop)))
      labels += [record[keys.label] for record in records]
      if not stream:
        encoded.extend(record[keys.image] for record in records)
    return {'label': np.array(labels, np.int64)}

  info = source.dataset_info
  files = _files(info.data_dir)
  if stream and files:
    what = f'{keys.label} of {info.full_name}, {source.split}'
    found = cache.remembered(what, files, find)
  else:
    found = find()
  records = _Records(source, keys.image, None if stream else encoded)
  column = images.LazyImages(
    records, np.arange(len(source)), image_shape, resize
  )
  return column if stream else column[:], found['label']


def _files(data_dir: str) -> list[str]:
  """The files of a data set; none where they are in a cloud."""
  if not os.path.isdir(data_dir):
    return []
  return sorted(entry.path for entry in os.scandir(data_dir))


def _allow_open_files(count: int) -> None:
  """Lets this process, and its workers, hold so many files open.

  Raises:
    UsageError: the system does not allow it.
  """
  wanted = count + SPARE_FILES
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY or soft >= wanted:
    return
  if hard != resource.RLIM_INFINITY and hard < wanted:
    raise UsageError(
      f'the data set has {count} files, all of which are open at once, and the '
      f'system allows {hard}; let it allow {wanted} (ulimit -Hn)'
    )
  resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
