"""Data sets of TensorFlow Datasets (TFDS), read without TensorFlow."""

from collections.abc import Sequence
import os
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data import prepare
from jaxdistill.data.loading import cache
from jaxdistill.data.sources import arrays, images

# The number of records that are read at a time.
CHUNK = 1024
# The number of files that a process may open besides those of the data.
SPARE_FILES = 512
_PURPOSE = "the data set 'tfds'"


def tfds(
  dataset: str,
  *,
  data_dir: str | None = None,
  image_size: int | None = None,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  stratified: bool = False,
  train_split: str = 'train',
  test_split: str | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns an image classification data set that TFDS has prepared.

  The data set must be prepared in the format array_record (or parquet). Images
  with one channel keep it; all others are converted to RGB.

  Args:
    dataset: 'cifar10', 'imagenet2012', 'name/config:version', ...
    data_dir: the folder of prepared data sets; None: the default folder of
      TFDS.
    image_size: the size in pixels to which the shorter side of every image is
      resized, bilinear and antialiased; the square in the middle is kept. None:
      images keep their size, which must be the same for all.
    num_classes: the expected number of classes; None: any number.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    stratified: see `from_arrays`. False by default, because the published
      results of this library were measured with splits drawn without regard to
      the classes.
    train_split: a split, or a part of one such as 'train[:10%]'.
    test_split: likewise; None: 'test' if it has labels, 'validation' otherwise.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    stream: whether images are decoded when they are needed instead of at once;
      None: if all of them need more than 1 GiB.

  Raises:
    UsageError: the data set is not prepared (the message says how to prepare
      it), cannot be read, or is not for image classification.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  builder = prepared(dataset, data_dir)
  keys = _keys(builder.info, dataset)
  # A reader keeps each file open, and each part of a split has its own reader.
  allow_open_files(2 * len(files_of(builder.info.data_dir)))
  shape = builder.info.features[keys.image].shape
  channels = 1 if shape[-1] == 1 else 3
  if image_size is not None:
    checks.integer('data.image_size', image_size)
    shape = (image_size, image_size)
  elif None in shape:
    raise UsageError(
      f'data.image_size: needed because the images of {dataset!r} differ in '
      'size'
    )
  classes = builder.info.features[keys.label]
  if num_classes not in (None, classes.num_classes):
    raise UsageError(
      f'data.num_classes: expected {classes.num_classes}, as {dataset!r} has '
      f'this number of classes, got {num_classes}'
    )
  train = source_of(builder, train_split, [keys.image])
  test = source_of(
    builder, test_split or _test_split(builder, keys), [keys.image]
  )
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
    train_subset=train_subset,
    split_seed=split_seed,
    stratified=stratified,
    mean=mean,
    std=std,
    # TFDS gives classes without names the names '0', '1', ...
    label_names=classes.names,
  )


class _Keys(NamedTuple):
  """The names of the two features that are used."""

  image: str
  label: str


class Records(NamedTuple):
  """A feature of a split, such as encoded images, see `images.Files`.

  Attributes:
    source: the random access data source of TFDS.
    key: the name of the feature in a record.
    encoded: all values of the feature, if they have been read already.
  """

  source: Any
  key: str
  encoded: Sequence[bytes] | None = None

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    if self.encoded is not None:
      return [self.encoded[place] for place in places]
    return [record[self.key] for record in self.source.__getitems__(places)]

  def name(self, place: int) -> str:
    info = self.source.dataset_info
    return f'example {place} of {info.full_name}, {self.source.split}'


def prepared(dataset: str, data_dir: str | None) -> Any:
  """Returns the builder of a data set that is on disk.

  Args:
    dataset: the name of the data set in TFDS.
    data_dir: the folder of prepared data sets; None: the default folder.

  Raises:
    UsageError: there is no such data set, or it is not prepared.
  """
  tensorflow_datasets = optional.require('tensorflow_datasets', _PURPOSE)
  if data_dir is not None:
    data_dir = os.path.expanduser(data_dir)
  try:
    with prepare.quiet():
      builder = tensorflow_datasets.builder(dataset, data_dir=data_dir)
      is_prepared = builder.is_prepared()
  except tensorflow_datasets.core.DatasetNotFoundError:
    folder = '' if data_dir is None else f', and {data_dir!r} has none either'
    raise UsageError(
      f'data.dataset: TFDS has no data set {dataset!r}{folder}'
    ) from None
  except (ValueError, AssertionError) as error:
    raise UsageError(
      f'data.dataset: {dataset!r}: {checks.reason(error)}'
    ) from None
  if not is_prepared:
    raise UsageError(
      f'data.dataset: {dataset!r} is not in {str(builder.data_path)!r}; '
      'prepare it with '
      f'{prepare.command(dataset, data_dir)}'
    )
  return builder


def source_of(builder: Any, split: str, encoded: Sequence[str]) -> Any:
  """Returns random access to a split.

  Args:
    builder: from `prepared`.
    split: the name of a split, or of a part of one.
    encoded: the features that stay encoded.

  Raises:
    UsageError: there is no such split, or the format has no random access.
  """
  decode = optional.require('tensorflow_datasets', _PURPOSE).decode
  try:
    return builder.as_data_source(
      split, decoders={key: decode.SkipDecoding() for key in encoded}
    )
  except NotImplementedError:
    raise UsageError(
      f'data.dataset: {str(builder.data_path)!r} is in a format without random '
      'access; convert it with tfds convert_format '
      '--out_file_format=array_record '
      f'--dataset_version_dir={builder.data_path} (which needs TensorFlow)'
    ) from None
  except ValueError:
    raise UsageError(
      f'data: {builder.name!r} has no split {split!r} (valid: '
      f'{", ".join(builder.info.splits)}, and parts of them)'
    ) from None


def _keys(info: Any, dataset: str) -> _Keys:
  """Returns the names of the features that hold the image and its class."""
  features = optional.require('tensorflow_datasets', _PURPOSE).features
  kinds = (features.Image, features.ClassLabel)
  chosen = []
  for i, (kind, usual) in enumerate(zip(kinds, _Keys('image', 'label'))):
    fitting = [k for k, v in info.features.items() if isinstance(v, kind)]
    supervised = (info.supervised_keys or ())[i : i + 1]
    preferred = [k for k in (*supervised, usual) if k in fitting]
    if not preferred and len(fitting) != 1:
      raise UsageError(
        f'data.dataset: expected one feature {kind.__name__} in {dataset!r}, '
        f'got {len(fitting)} among {", ".join(sorted(info.features))}'
      )
    chosen.append((preferred or fitting)[0])
  image = info.features[chosen[0]]
  if np.dtype(image.np_dtype) != np.uint8:
    raise UsageError(
      f'data.dataset: expected images of type uint8 in {dataset!r}, got '
      f'{image.np_dtype}'
    )
  return _Keys(*chosen)


def _test_split(builder: Any, keys: _Keys) -> str:
  """Returns the name of the split that serves as the test split."""
  for split in ('test', 'validation'):
    # In the test split of a leaderboard, all labels are -1.
    if split in builder.info.splits:
      source = source_of(builder, split, [keys.image])
      if len(source) and source[0][keys.label] >= 0:
        return split
  raise UsageError(
    f'data.test_split: needed because {builder.name!r} has no test or '
    'validation split with labels (valid: '
    f'{", ".join(builder.info.splits)}, and parts of them)'
  )


def _columns(
  source: Any,
  keys: _Keys,
  image_shape: tuple[int, int, int],
  resize: bool,
  stream: bool,
) -> tuple[np.ndarray | images.LazyImages, np.ndarray]:
  """Returns (images, labels) of a split, after one pass over its records.

  If images are streamed, the labels are cached until a file changes.
  """
  encoded: list[bytes] = []

  def read_labels() -> dict[str, np.ndarray]:
    labels: list[int] = []
    for start in range(0, len(source), CHUNK):
      stop = min(start + CHUNK, len(source))
      records = source.__getitems__(list(range(start, stop)))
      labels += [record[keys.label] for record in records]
      if not stream:
        encoded.extend(record[keys.image] for record in records)
    return {'label': np.array(labels, np.int64)}

  info = source.dataset_info
  files = files_of(info.data_dir)
  if stream and files:
    what = f'{keys.label} of {info.full_name}, {source.split}'
    arrays_read = cache.remembered(what, files, read_labels)
  else:
    arrays_read = read_labels()
  records = Records(source, keys.image, None if stream else encoded)
  column = images.LazyImages(
    records, np.arange(len(source)), image_shape, resize
  )
  return column if stream else column[:], arrays_read['label']


def files_of(data_dir: str) -> list[str]:
  """Returns the files of a data set; none if they are in cloud storage.

  Args:
    data_dir: the folder of one version of the data set.
  """
  if not os.path.isdir(data_dir):
    return []
  return sorted(entry.path for entry in os.scandir(data_dir))


def allow_open_files(count: int) -> None:
  """Allows this process and its workers to open a number of files at once.

  Args:
    count: the number of files.

  Raises:
    UsageError: the limit of the system is lower.
  """
  try:
    import resource
  except ImportError:  # Windows has no such limit
    return
  needed = count + SPARE_FILES
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY or soft >= needed:
    return
  if hard != resource.RLIM_INFINITY and hard < needed:
    raise UsageError(
      f'data.dataset: needs {needed} open files at once, but the system allows '
      f'{hard}; raise the limit (ulimit -Hn)'
    )
  resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
