"""Data sets from arrays: their splits and channel statistics."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from jaxdistill.data.images import LazyImages
from jaxdistill.types import Dataset, UsageError

# Images that the channel statistics of a lazy column are taken from.
SAMPLE = 1024


def from_arrays(
  train_image: np.ndarray | LazyImages,
  train_label: np.ndarray,
  test_image: np.ndarray | LazyImages,
  test_label: np.ndarray,
  *,
  num_classes: int | None = None,
  validation: float = 0.1,
  few: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  label_names: Sequence[str] = (),
) -> Dataset:
  """A data set whose validation split is cut from the training set.

  Args:
    train_image: uint8 `[N, H, W, C]`, or a column that is decoded lazily.
    train_label: integers `[N]` from 0.
    test_image: `[M, H, W, C]`, the same.
    test_label: integers `[M]`.
    num_classes: None: the largest label plus one.
    validation: share of the training set, or a number of examples if above 1;
      0: no such split.
    few: size of a split 'few', a part of 'train'; None: no such split.
    split_seed: chooses both.
    mean: per channel in [0, 255]; None: of the images trained on, or of 1,024
      of them, evenly spaced, where they are lazy.
    std: the same.
    label_names: one per class.

  Raises:
    UsageError: a size that the data cannot give.
  """
  check_choices(validation, few, split_seed, mean, std)
  total = len(train_label)
  if not total or not len(test_label):
    raise UsageError(
      f'the data has {total} training and {len(test_label)} test examples'
    )
  if train_image.shape[1:] != test_image.shape[1:]:
    raise UsageError(
      f'the training images are {train_image.shape[1:]} and the test images '
      f'{test_image.shape[1:]}: they must have the same size'
    )
  held_out = int(validation if validation > 1 else round(validation * total))
  if not 0 <= held_out < total:
    raise UsageError(
      f'data.validation is {validation}; the training set has {total} examples'
    )
  order = np.random.default_rng(split_seed).permutation(total)
  kept = order[held_out:]
  if num_classes is None:
    num_classes = int(max(train_label.max(), test_label.max())) + 1
  for label in (train_label, test_label):
    if label.min() < 0 or label.max() >= num_classes:
      raise UsageError(
        f'the labels are {label.min()} to {label.max()}; wanted: 0 to '
        f'{num_classes - 1}'
      )
  splits = {
    'train': _split(train_image, train_label, np.sort(kept)),
    'test': _split(test_image, test_label, np.arange(len(test_label))),
  }
  if held_out:
    indices = np.sort(order[:held_out])
    splits['validation'] = _split(train_image, train_label, indices)
  if few is not None:
    if not 0 < few <= len(kept):
      raise UsageError(
        f'data.few is {few}; there are {len(kept)} training examples beside '
        'the validation split'
      )
    splits['few'] = _split(train_image, train_label, np.sort(kept[:few]))
  if mean is None or std is None:
    found = _statistics(splits['train']['image'])
    mean = found[0] if mean is None else mean
    std = found[1] if std is None else std
  for name, values in (('mean', mean), ('std', std)):
    _check_statistics(name, values, train_image.shape[-1])
  return Dataset(
    splits,
    num_classes,
    tuple(map(float, mean)),
    tuple(map(float, std)),
    tuple(map(str, label_names)),
  )


def check_choices(
  validation: float,
  few: int | None,
  split_seed: int,
  mean: Sequence[float] | None,
  std: Sequence[float] | None,
) -> None:
  """What can be said of arguments of `from_arrays` before there is data.

  Raises:
    UsageError: one is wrong whatever the data.
  """
  share = math.isfinite(validation) and validation >= 0
  if not share or (validation > 1 and isinstance(validation, float)):
    raise UsageError(
      f'data.validation is {validation}; wanted: a share from 0 to 1, or a '
      'whole number of examples'
    )
  if few is not None and few < 1:
    raise UsageError(f'data.few is {few}; wanted: 1 or more examples')
  if split_seed < 0:
    raise UsageError(f'data.split_seed: {split_seed} is below 0')
  for name, values in (('mean', mean), ('std', std)):
    if values is not None:
      _check_statistics(name, values, len(values))


def part(
  split: Mapping[str, Any], share: tuple[float, float]
) -> Mapping[str, Any]:
  """The examples from one share of a split to another, see `types.Stream`.

  Args:
    split: name -> `[N, ...]`; a lazy column stays one.
    share: (from, to) in [0, 1].

  Returns:
    name -> `[M, ...]`, in the order of the split.
  """
  if share == (0.0, 1.0):
    return split
  rows = part_rows(len(next(iter(split.values()))), share)
  return {
    name: x.select(rows) if isinstance(x, LazyImages) else x[rows]
    for name, x in split.items()
  }


def part_rows(size: int, share: tuple[float, float]) -> np.ndarray:
  """Which rows of a split of `size` examples are a part of it."""
  start, stop = (round(s * size) for s in share)
  return np.sort(np.random.default_rng(0).permutation(size)[start:stop])


def _split(
  image: np.ndarray | LazyImages, label: np.ndarray, indices: np.ndarray
) -> dict[str, np.ndarray | LazyImages]:
  chosen: np.ndarray | LazyImages
  if isinstance(image, LazyImages):
    chosen = image.select(indices)
  else:
    chosen = image[indices]
  return {
    'image': chosen,
    'label': label[indices].astype(np.int32),
    'index': indices.astype(np.int32),
  }


def _statistics(
  image: np.ndarray | LazyImages,
) -> tuple[list[float], list[float]]:
  """Mean and standard deviation per channel; exact sums, a part at a time."""
  rows = np.arange(len(image))
  if isinstance(image, LazyImages) and len(image) > SAMPLE:
    rows = np.linspace(0, len(image) - 1, SAMPLE).astype(int)
  total = squares = np.zeros(image.shape[-1], np.int64)
  for start in range(0, len(rows), 256):
    part = image[rows[start : start + 256]].astype(np.int64)
    total = total + part.sum((0, 1, 2))
    squares = squares + np.square(part).sum((0, 1, 2))
  count = len(rows) * image.shape[1] * image.shape[2]
  mean = total / count
  variance = np.maximum(squares / count - mean**2, 1e-6)
  return mean.tolist(), np.sqrt(variance).tolist()


def _check_statistics(
  name: str, values: Sequence[float], channels: int
) -> None:
  least = 0.0 if name == 'std' else -np.inf
  fine = all(np.isfinite(v) and v > least for v in values)
  if len(values) != channels or not fine:
    raise UsageError(
      f'data.{name}: {list(values)} is not one number for each of {channels} '
      f'channels{", above 0" if name == "std" else ""}'
    )
