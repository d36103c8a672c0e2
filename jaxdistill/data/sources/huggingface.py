"""Data sets of Hugging Face, read without its library."""

from collections.abc import Mapping, Sequence
import os
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays, decoding, hub_tables, images, labels

# The types of features in the metadata of Hugging Face.
_IMAGE, _CLASS = 'Image', 'ClassLabel'
# The usual names of a column that has no type in metadata.
_USUAL = {
  _IMAGE: ('image', 'img', 'jpg', 'png'),
  _CLASS: ('label', 'labels', 'class', 'target'),
}


def huggingface(
  path: str,
  *,
  config: str | None = None,
  image: str | None = None,
  label: str | None = None,
  test: float = 0.2,
  image_size: int | None = None,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  stratified: bool = True,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns an image data set of Hugging Face.

  The columns are found by the types of the features. All images are converted
  to RGB. Without a column of labels, the data have no labels and no classes;
  the tasks `embedding` and `imitation` suit them. The encoded images are kept
  in memory.

  Args:
    path: a folder that `datasets.save_to_disk` wrote, a parquet file, a folder
      of parquet files, or the name of a data set of the hub, which needs a
      network and `pip install huggingface_hub`.
    config: the configuration of a data set of the hub that has several.
    image: the column of images; needed if there are several.
    label: the column of labels, class numbers or names; needed if there are
      several. 'none': the labels are not used.
    test: the fraction of each class that forms the test split if there is none
      with labels.
    image_size: the size in pixels to which the shorter side of every image is
      resized, bilinear and antialiased; the square in the middle is kept. None:
      images keep their size, which must be the same for all.
    num_classes: the number of classes; None: the number of classes that have
      names, and 0 if there are no labels.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset'.
    split_seed: chooses the examples of the validation split and the subset.
    stratified: see `from_arrays`.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.
    stream: whether images are decoded when they are needed; None: if all of
      them need more than 1 GiB.

  Raises:
    UsageError: there is no such data set, it cannot be read, or it has no
      column of images.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  if image_size is not None:
    checks.integer('data.image_size', image_size)
  train, test_part = read(path, config, image, label, test)
  shape = _shape(train, image_size)
  if stream is None:
    stream = images.is_large(
      (len(p.encoded), *shape) for p in (train, test_part)
    )
  columns = [
    images.LazyImages(
      part, np.arange(len(part.encoded)), shape, resize=image_size is not None
    )
    for part in (train, test_part)
  ]
  train_column, test_column = columns if stream else [c[:] for c in columns]
  return arrays.from_arrays(
    train_column,
    train.label if train.names else None,
    test_column,
    test_part.label if train.names else None,
    num_classes=num_classes,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    stratified=stratified,
    mean=mean,
    std=std,
    label_names=train.names,
  )


class Part(NamedTuple):
  """The encoded images of a split, see `images.Files`, and their classes.

  Attributes:
    encoded: the bytes of each image.
    label: the class of each image `[N]`.
    names: the names of the classes; empty if there are no labels.
    title: what the split is called in messages.
  """

  encoded: tuple[bytes, ...]
  label: np.ndarray
  names: tuple[str, ...]
  title: str

  def read(self, places: Sequence[int]) -> Sequence[bytes]:
    return [self.encoded[place] for place in places]

  def name(self, place: int) -> str:
    return f'image {place} of {self.title}'

  def select(self, chosen: np.ndarray) -> 'Part':
    """Returns the split with some of its images, booleans `[N]`."""
    encoded = tuple(self.encoded[i] for i in np.flatnonzero(chosen))
    return self._replace(encoded=encoded, label=self.label[chosen])


def read(
  path: str,
  config: str | None = None,
  image: str | None = None,
  label: str | None = None,
  test: float = 0.2,
) -> tuple[Part, Part]:
  """Returns the training and the test split; see `huggingface`."""
  checks.number('data.test', test, above=0, below=1)
  tables = hub_tables.read(path, config)
  train_name = next((n for n in hub_tables.TRAIN if n in tables), None)
  if train_name is None:
    raise UsageError(
      f'data.path: expected a split train in {path!r}, got {", ".join(tables)}'
    )
  described = hub_tables.features(tables[train_name])
  image_key = _column(tables[train_name], described, _IMAGE, 'image', image)
  if image_key is None:
    raise UsageError(
      f'data.image: expected a column of images in {path!r}, got the columns '
      f'{", ".join(tables[train_name].column_names)}'
    )
  label_key = None
  if label != 'none':
    label_key = _column(tables[train_name], described, _CLASS, 'label', label)
  names, numbers = _classes(tables[train_name], described, label_key)
  parts = {
    split: Part(
      tuple(
        _bytes(x, f'{path}, {split}') for x in table[image_key].to_pylist()
      ),
      _labels(table, label_key, numbers),
      names,
      f'{path}, {split}',
    )
    for split, table in tables.items()
    if split == train_name or split in hub_tables.TEST
  }
  train = parts[train_name]
  for split in hub_tables.TEST:  # a leaderboard's test split has labels of -1
    if split in parts and parts[split].label.min(initial=0) >= 0:
      return train, parts[split]
  rows = labels.test_rows(train.label, test)
  return train.select(~rows), train.select(rows)


def _column(
  table: Any,
  described: Mapping[str, Mapping[str, Any]],
  kind: str,
  key: str,
  chosen: str | None,
) -> str | None:
  """Returns the column of a kind; None if there is none.

  Raises:
    UsageError: the chosen column does not exist, or there are several.
  """
  if chosen is not None:
    return checks.choice(f'column for data.{key}', chosen, table.column_names)
  typed = [k for k, v in described.items() if v.get('_type') == kind]
  fitting = [k for k in typed if k in table.column_names]
  usual = [k for k in _USUAL[kind] if k in (fitting or table.column_names)]
  if len(fitting) > 1 and not usual:
    raise UsageError(
      f'data.{key}: needed because there are the columns {", ".join(fitting)}'
    )
  return next(iter([*usual, *fitting]), None)


def _classes(
  table: Any, described: Mapping[str, Mapping[str, Any]], label: str | None
) -> tuple[tuple[str, ...], Mapping[Any, int]]:
  """Returns the names of the classes, and {entry of the column: number}."""
  if label is None:
    return (), {}
  names = tuple(map(str, described.get(label, {}).get('names') or ()))
  if names:
    by_name = {name: i for i, name in enumerate(names)}
    return names, {**{i: i for i in range(len(names))}, **by_name}
  entries = {x for x in table[label].to_pylist() if isinstance(x, str | int)}
  ordered = sorted(entries, key=lambda x: (isinstance(x, str), x))
  return tuple(map(str, ordered)), {x: i for i, x in enumerate(ordered)}


def _labels(
  table: Any, label: str | None, numbers: Mapping[Any, int]
) -> np.ndarray:
  """Returns the class of each row, -1 if it is unknown; 0 without labels."""
  if label is None:
    return np.zeros(table.num_rows, np.int64)
  entries = table[label].to_pylist()
  return np.array([numbers.get(x, -1) for x in entries], np.int64)


def _bytes(entry: Any, title: str) -> bytes:
  """Returns the bytes of an image: a struct of bytes and path, or bytes."""
  if isinstance(entry, Mapping):
    if entry.get('bytes') is None and entry.get('path'):
      try:
        return decoding.content(os.fspath(entry['path']))
      except OSError as error:
        raise UsageError(
          f'data.path: {title} names the image {entry["path"]!r}, which cannot '
          f'be read ({checks.reason(error)})'
        ) from None
    entry = entry.get('bytes')
  if not isinstance(entry, bytes):
    raise UsageError(
      f'data.image: expected encoded images in {title}, got '
      f'{type(entry).__name__}'
    )
  return entry


def _shape(train: Part, image_size: int | None) -> tuple[int, int, int]:
  """Returns the shape `(H, W, C)` to which images are decoded."""
  if image_size is not None:
    return image_size, image_size, 3
  if not train.encoded:
    raise UsageError(f'data.path: no images in {train.title}')
  try:
    height, width, _ = decoding.decode(train.encoded[0]).shape
  except OSError as error:
    raise UsageError(
      f'data.path: cannot read {train.name(0)}: {checks.reason(error)}'
    ) from None
  return height, width, 3
