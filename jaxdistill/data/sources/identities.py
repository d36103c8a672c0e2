"""Data sets whose test identities do not occur in the training images."""

from collections.abc import Mapping, Sequence
import csv
import os
import pathlib
from typing import Any

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import (
  arrays,
  class_folders,
  decoding,
  folder,
  image_files,
  images,
  npz,
)
from jaxdistill.data.sources.class_folders import Split

# The columns that say how test images are compared.
PROTOCOL = ('template', 'gallery', 'protocol')


def identities(
  path: str,
  *,
  test: float = 0.3,
  table: str | None = None,
  image_size: int | None = None,
  grey: bool = False,
  validation: float = 0.1,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns a data set of identities, such as faces, for `verification`.

  The path is a folder with one folder of images for each identity. Or it is a
  folder with the folders 'train' and 'test' (or other usual names, see
  `folder`), each with one folder for each identity. Or it is a .npz file with
  the keys '{split}_image' and '{split}_label' of `npz`, where the labels are
  the identities, and optionally 'test_template', 'test_gallery' and
  'test_protocol'. The identities of the validation split do not occur in
  training either.

  Args:
    path: the folder or file.
    test: the fraction of the identities, or their number if above 1, that form
      the test split if the folder has no folders of splits.
    table: a CSV file that lists the test images, which are then not taken from
      a folder. It is looked for in the current folder and then in `path`. Its
      columns are 'file', a path below `path`; 'identity'; and optionally
      'template', 'gallery' and 'protocol', see `from_identities`. An image may
      have several lines.
    image_size: the size in pixels to which the shorter side of every image is
      resized, bilinear and antialiased; the square in the middle is kept. None:
      images keep their size, which must be the same for all.
    grey: whether images are converted to grey, with one channel, instead of
      RGB.
    validation: the size of the validation split: a fraction of the training
      identities, or a number of them if above 1. 0: there is no such split.
    split_seed: chooses the identities of the validation and the test split.
    mean: per channel in [0, 255]; None: computed from the training images, or
      from 1,024 of them, evenly spaced, if images are streamed.
    std: the standard deviation, likewise.
    stream: whether images are decoded when they are needed instead of at once;
      None: if all of them need more than 1 GiB.

  Raises:
    UsageError: there is no such data set, or it cannot be read.
  """
  options: dict[str, Any] = {
    'validation': validation,
    'split_seed': split_seed,
    'mean': mean,
    'std': std,
  }
  arrays.check_choices(validation, None, split_seed, mean, std)
  checks.number('data.test', test, above=0)
  if image_size is not None:
    checks.integer('data.image_size', image_size)
  root = pathlib.Path(os.path.expanduser(path))
  if not root.is_dir():
    if image_size is not None or grey or table is not None:
      key = 'image_size' if image_size is not None else 'table'
      key = 'grey' if grey else key
      raise UsageError(f'data.{key}: expected a folder with it, got {path!r}')
    return _of_file(path, options)
  lines = [] if table is None else _table(root, table)
  try:
    train, test_split = _splits(root, test, split_seed, lines)
  except OSError as error:
    raise UsageError(f'data.path: {checks.reason(error)}') from None
  columns = _columns((train, test_split), image_size, grey, stream)
  test_columns = {'image': columns[1], 'identity': _identity(test_split)}
  return from_identities(
    {'image': columns[0], 'identity': _identity(train)},
    {**test_columns, **_protocol(lines)},
    **options,
  )


def from_identities(
  train: Mapping[str, Any],
  test: Mapping[str, Any],
  *,
  validation: float = 0.1,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Returns a data set whose splits consist of different identities.

  The training identities are the classes, numbered from 0 in sorted order. The
  numbers of the validation identities follow, and then those of the test split.

  Args:
    train: 'image', see `from_arrays`, and 'identity' `[N]`, names or numbers.
    test: the same columns, and optionally three columns of integers `[M]`:
      'template', where images with the same number form one template, whose
      embedding is the mean of theirs; 'gallery', 1 for the gallery and 0 for
      probes; and 'protocol', the number of the protocol's split to which the
      row belongs.
    validation: see `identities`, like the others.
    split_seed: chooses the identities of the validation split.
    mean: per channel in [0, 255].
    std: the standard deviation, likewise.

  Raises:
    UsageError: a column is missing or unknown, or does not have one entry for
      each image; or see `from_arrays`. Identities that training and test share
      are not refused here, but by the task.
  """
  arrays.check_choices(validation, None, split_seed, mean, std)
  for name, split, optional in (('train', train, ()), ('test', test, PROTOCOL)):
    _check_columns(name, split, optional)
  train_image, test_image = (
    arrays.channels_last(split['image']) for split in (train, test)
  )
  arrays.check_images(train_image, test_image)
  names, number = np.unique(train['identity'], return_inverse=True)
  count = arrays.held_out(validation, len(names), 'training identities')
  order = np.random.default_rng(split_seed).permutation(len(names))
  held, kept = np.sort(order[:count]), np.sort(order[count:])
  if len(kept) < 2:
    raise UsageError(
      f'identities: expected at least two for training, got {len(kept)}'
    )
  label = np.empty(len(names), np.int32)
  label[np.concatenate([kept, held])] = np.arange(len(names))
  protocol = {k: np.asarray(test[k]) for k in PROTOCOL if k in test}
  is_held = np.isin(number, held)
  return arrays.split_dataset(
    {'image': train_image, 'label': label[number]},
    {
      'image': test_image,
      'label': _numbered(np.asarray(test['identity']), names, label),
      **{k: v.astype(np.int32) for k, v in protocol.items()},
    },
    (np.flatnonzero(is_held), np.flatnonzero(~is_held)),
    train_subset=None,
    num_classes=len(kept),
    mean=mean,
    std=std,
    label_names=tuple(map(str, names[kept])),
  )


def _check_columns(
  name: str, split: Mapping[str, Any], optional: Sequence[str]
) -> None:
  """Raises UsageError if the columns of a split are not those of identities."""
  for column in ('image', 'identity'):
    if column not in split:
      raise UsageError(
        f'{name}: expected the columns image and identity, got '
        f'{", ".join(split)}'
      )
  for column in split:
    checks.choice(f'column of {name}', column, ('image', 'identity', *optional))
    if column == 'image':
      continue
    values = np.asarray(split[column])
    is_valid = values.dtype.kind in ('iu' if column in PROTOCOL else 'iuUS')
    if values.shape != (len(split['image']),) or not is_valid:
      kind = 'integers' if column in PROTOCOL else 'names or numbers'
      raise UsageError(
        f'{name}_{column}: expected {kind} [{len(split["image"])}], one for '
        f'each image, got {values.dtype} {list(values.shape)}'
      )
    if column == 'gallery' and not np.isin(values, (0, 1)).all():
      raise UsageError(
        f'{name}_gallery: expected 1 for images of the gallery and 0 for '
        f'probes, got {values[~np.isin(values, (0, 1))][0]}'
      )


def _numbered(
  identity: np.ndarray, names: np.ndarray, label: np.ndarray
) -> np.ndarray:
  """Returns the labels of test images; new identities follow all others."""
  new = np.setdiff1d(identity, names)
  every = np.concatenate([names, new])
  order = np.argsort(every, kind='stable')
  labels = np.concatenate([label, len(names) + np.arange(len(new))])
  place = np.searchsorted(every[order], identity)
  return labels[order][place].astype(np.int32)


def _of_file(path: str, options: Mapping[str, Any]) -> Dataset:
  """Returns the data set of a .npz file."""
  with npz.opened(path) as pack:
    train, test = (
      dict(zip(('image', 'identity'), npz.read(pack, path, split)))
      for split in npz.SPLITS
    )
    test |= {k: pack[f'test_{k}'] for k in PROTOCOL if f'test_{k}' in pack}
  return from_identities(train, test, **options)


def _splits(
  root: pathlib.Path,
  test: float,
  seed: int,
  lines: Sequence[Mapping[str, str]],
) -> tuple[Split, Split]:
  """Returns the files of training and test, with one label per folder."""
  suffixes = decoding.suffixes()
  train_folder = class_folders.named(root, class_folders.TRAIN_NAMES)
  train = class_folders.split(
    root / (train_folder or '.'), suffixes, 'data.path'
  )
  if lines:
    return train, _listed(root, lines)
  if train_folder is None:
    return _cut(train, test, seed)
  test_folder = class_folders.named(root, class_folders.TEST_NAMES)
  if test_folder is None:
    raise UsageError(
      'data.path: expected a folder test, val or the like beside '
      f'{train_folder!r} in {str(root)!r}, with one folder per identity, or a '
      'list of the test images as data.table'
    )
  return train, class_folders.split(root / test_folder, suffixes, 'data.path')


def _cut(whole: Split, test: float, seed: int) -> tuple[Split, Split]:
  """Returns (train, test), which have different identities."""
  count = int(test if test > 1 else round(test * len(whole.names)))
  if not 0 < count < len(whole.names):
    raise UsageError(
      f'data.test: expected 1 to {len(whole.names) - 1} of the '
      f'{len(whole.names)} identities, or a fraction of them, got {test}'
    )
  # This order differs from the one that chooses the validation identities.
  order = np.random.default_rng((seed, 1)).permutation(len(whole.names))
  held = np.isin(whole.label, order[:count])
  return whole.select(~held), whole.select(held)


def _identity(split: Split) -> np.ndarray:
  return np.array(split.names)[split.label]


def _columns(
  splits: Sequence[Split],
  image_size: int | None,
  grey: bool,
  stream: bool | None,
) -> list[Any]:
  """Returns the images of each split, decoded or lazy."""
  height, width, _ = folder.image_shape(splits, image_size)
  shape = (height, width, 1 if grey else 3)
  if stream is None:
    stream = images.is_large((len(s.paths), *shape) for s in splits)
  columns = [
    images.LazyImages(
      image_files.Paths(split.paths),
      np.arange(len(split.paths)),
      shape,
      resize=image_size is not None,
    )
    for split in splits
  ]
  return columns if stream else [column[:] for column in columns]


def _table(root: pathlib.Path, table: str) -> list[dict[str, str]]:
  """Returns the lines of a CSV file that lists test images.

  Raises:
    UsageError: there is no such file, it has no lines, or a column is missing.
  """
  path = pathlib.Path(os.path.expanduser(table))
  path = path if path.is_file() else root / path
  if not path.is_file():
    raise UsageError(f'data.table: no file {table!r}')
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      lines = list(csv.DictReader(file, restval=''))
  except (OSError, ValueError, csv.Error) as error:
    raise UsageError(
      f'data.table: cannot read {table!r} ({checks.reason(error)})'
    ) from None
  columns = list(lines[0]) if lines else []
  if not {'file', 'identity'} <= {*columns}:
    raise UsageError(
      'data.table: expected lines with the columns file and identity in '
      f'{table!r}, got {", ".join(map(str, columns)) or "no lines"}'
    )
  return lines


def _listed(root: pathlib.Path, lines: Sequence[Mapping[str, str]]) -> Split:
  """Returns the images that a table lists, in its order."""
  names, label = np.unique(
    [line['identity'] for line in lines], return_inverse=True
  )
  paths = tuple(str(root / line['file']) for line in lines)
  missing = next((p for p in paths if not os.path.isfile(p)), None)
  if missing is not None:
    raise UsageError(f'data.table: names {missing!r}, which is not a file')
  return Split(root, tuple(map(str, names)), paths, label)


def _protocol(lines: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
  """Returns the columns of a table that say how its images are compared.

  Raises:
    UsageError: an entry is not a whole number.
  """
  columns = {}
  for name in PROTOCOL:
    if not lines or name not in lines[0]:
      continue
    try:
      columns[name] = np.array([int(line[name]) for line in lines])
    except ValueError as error:
      raise UsageError(
        f'data.table: expected whole numbers in the column {name} '
        f'({checks.reason(error)})'
      ) from None
  return columns
