"""Data sets from arrays: their splits and channel statistics."""

from collections.abc import Sequence

import numpy as np

from jaxdistill.types import Dataset, UsageError


def from_arrays(
  train_image: np.ndarray,
  train_label: np.ndarray,
  test_image: np.ndarray,
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
    train_image: uint8 `[N, H, W, C]`.
    train_label: integers `[N]` from 0.
    test_image: uint8 `[M, H, W, C]`.
    test_label: integers `[M]`.
    num_classes: None: the largest label plus one.
    validation: share of the training set, or a number of examples if above 1;
      0: no such split.
    few: size of a split 'few', a part of 'train'; None: no such split.
    split_seed: chooses both.
    mean: per channel in [0, 255]; None: of the images trained on.
    std: the same.
    label_names: one per class.

  Raises:
    UsageError: a size that the data cannot give.
  """
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
  if split_seed < 0:
    raise UsageError(f'data.split_seed: {split_seed} is below 0')
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
  trained_on = splits['train']['image']
  if mean is None:
    mean = trained_on.mean((0, 1, 2), dtype=np.float64)
  if std is None:
    std = np.maximum(trained_on.std((0, 1, 2), dtype=np.float64), 1e-3)
  return Dataset(
    splits,
    num_classes,
    tuple(map(float, mean)),
    tuple(map(float, std)),
    tuple(map(str, label_names)),
  )


def _split(
  image: np.ndarray, label: np.ndarray, indices: np.ndarray
) -> dict[str, np.ndarray]:
  return {
    'image': image[indices],
    'label': label[indices].astype(np.int32),
    'index': indices.astype(np.int32),
  }
