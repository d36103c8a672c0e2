"""Data sets from arrays: their splits and channel statistics."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import channels, labels, parts
from jaxdistill.data.sources.images import LazyImages


def from_arrays(
  train_image: np.ndarray | LazyImages,
  train_label: np.ndarray | None,
  test_image: np.ndarray | LazyImages,
  test_label: np.ndarray | None,
  *,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  stratified: bool = True,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  label_names: Sequence[str] = (),
) -> Dataset:
  """Returns a data set whose validation split is taken from the training set.

  Args:
    train_image: uint8 `[N, H, W, C]`, or a column that is decoded lazily.
      An array with one to four channels first, such as `[N, 3, H, W]` where H
      and W are above 4, is transposed.
    train_label: integers `[N]` from 0. None: the images have no labels, and the
      data no column of them; see `from_columns`.
    test_image: `[M, H, W, C]`, likewise.
    test_label: integers `[M]`; None if the training images have no labels.
    num_classes: the number of classes; None: the number of `label_names`, or
      the largest label plus one if there are no names. Then every class needs
      a training example.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of both splits.
    stratified: whether both splits have each class in proportion. Each class
      then has at least one validation example if it has two or more examples
      and the validation split is large enough. False: the examples are drawn
      without regard to their classes.
    mean: per channel in [0, 255]; None: computed from the images of the split
      'train', or from 1,024 of them, evenly spaced, if they are lazy.
    std: the standard deviation, likewise.
    label_names: one per class.

  Raises:
    UsageError: the data does not have the requested number of examples, or the
      images or labels are not valid.
  """
  if train_label is None or test_label is None:
    return from_columns(
      {'image': train_image},
      {'image': test_image},
      num_classes=num_classes or 0,
      validation=validation,
      train_subset=train_subset,
      split_seed=split_seed,
      mean=mean,
      std=std,
      label_names=label_names,
    )
  check_choices(validation, train_subset, split_seed, mean, std)
  train_image, test_image = map(channels_last, (train_image, test_image))
  _check_examples(train_image, train_label, test_image, test_label)
  label_names = labels.checked_names('label_names', label_names)
  count = held_out(validation, len(train_label))
  is_counted = num_classes is None
  num_classes = labels.checked_classes(
    train_label, test_label, num_classes, label_names
  )
  missing = labels.missing(train_label, num_classes, label_names)
  if is_counted and not label_names and missing:
    raise UsageError(
      f'labels: expected training examples of every class, but there are none '
      f'of {missing}; set num_classes to have classes without examples'
    )
  return split_dataset(
    {'image': train_image, 'label': train_label.astype(np.int32)},
    {'image': test_image, 'label': test_label.astype(np.int32)},
    _rows(train_label, count, split_seed, stratified),
    train_subset=train_subset,
    num_classes=num_classes,
    mean=mean,
    std=std,
    label_names=label_names,
  )


def from_columns(
  train: Mapping[str, Any],
  test: Mapping[str, Any],
  *,
  num_classes: int = 0,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  label_names: Sequence[str] = (),
) -> Dataset:
  """Returns a data set of images with any targets, or without targets.

  The validation split is drawn from the training set at random.

  Args:
    train: 'image', see `from_arrays`, and the targets `[N, ...]`, such as
      'mask', uint8 `[N, H, W]`, or 'depth', float32 `[N, H, W]`. The task says
      which targets it reads.
    test: the same columns.
    num_classes: the number of classes; 0: that of `label_names`.
    validation: see `from_arrays`.
    train_subset: see `from_arrays`.
    split_seed: chooses the examples of both splits.
    mean: see `from_arrays`.
    std: see `from_arrays`.
    label_names: one per class, or none.

  Raises:
    UsageError: the columns do not have one row for each image, the splits have
      different columns, or see `from_arrays`.
  """
  check_choices(validation, train_subset, split_seed, mean, std)
  splits = {'train': dict(train), 'test': dict(test)}
  if train.keys() != test.keys() or 'image' not in train:
    raise UsageError(
      "data: expected 'image' and the same other columns in both splits, got "
      f'{", ".join(train)} for training and {", ".join(test)} for the test'
    )
  for name, split in splits.items():
    for key, column in split.items():
      if len(column) != len(split['image']):
        raise UsageError(
          f'{name}_{key}: expected {len(split["image"])} rows, one for each '
          f'image, got {len(column)}'
        )
    split['image'] = channels_last(split['image'])
  check_images(splits['train']['image'], splits['test']['image'])
  label_names = labels.checked_names('label_names', label_names)
  num_classes = checks.integer(
    'data.num_classes', num_classes or len(label_names), at_least=0
  )
  if label_names:
    checks.length('label_names', label_names, num_classes, 'classes')
  total = len(train['image'])
  order = np.random.default_rng(split_seed).permutation(total)
  count = held_out(validation, total)
  return split_dataset(
    splits['train'],
    splits['test'],
    (order[:count], order[count:]),
    train_subset=train_subset,
    num_classes=num_classes,
    mean=mean,
    std=std,
    label_names=label_names,
  )


def held_out(
  validation: float, total: int, what: str = 'training examples'
) -> int:
  """Returns how many training examples form the validation split.

  Args:
    validation: a fraction of all examples, or a number of them if above 1.
    total: the number of all examples.
    what: the name of what is counted in messages, in the plural.

  Raises:
    UsageError: no example is left for training.
  """
  count = int(validation if validation > 1 else round(validation * total))
  if not 0 <= count < total:
    raise UsageError(
      f'data.validation: expected fewer than the {total} {what}, got '
      f'{validation}'
    )
  return count


def split_dataset(
  train: Mapping[str, Any],
  test: Mapping[str, Any],
  rows: tuple[np.ndarray, np.ndarray],
  *,
  train_subset: int | None,
  num_classes: int,
  mean: Sequence[float] | None,
  std: Sequence[float] | None,
  label_names: tuple[str, ...],
) -> Dataset:
  """Makes the splits from columns that are valid, see `from_columns`.

  Args:
    train: the columns of the training set.
    test: the columns of the test set, which may have further ones.
    rows: the rows for validation and those for training; see `_rows`.
    train_subset: the size of a further split.
    num_classes: the number of classes.
    mean: per channel, or None.
    std: per channel, or None.
    label_names: one per class, or none.
  """
  held, kept = rows
  splits = {
    'train': _split(train, np.sort(kept)),
    'test': _split(test, np.arange(len(test['image']))),
  }
  if len(held):
    splits['validation'] = _split(train, np.sort(held))
  if train_subset is not None:
    if train_subset > len(kept):
      raise UsageError(
        f'data.train_subset: expected at most {len(kept)}, the number of '
        f'training examples without the validation split, got {train_subset}'
      )
    splits['train_subset'] = _split(train, np.sort(kept[:train_subset]))
  if mean is None or std is None:
    computed_mean, computed_std = channels.statistics(splits['train']['image'])
    mean = computed_mean if mean is None else mean
    std = computed_std if std is None else std
  for name, values in (('mean', mean), ('std', std)):
    channels.check(name, values, train['image'].shape[-1])
  return Dataset(
    splits,
    num_classes,
    tuple(map(float, mean)),
    tuple(map(float, std)),
    label_names,
  )


def check_choices(
  validation: float,
  train_subset: int | None,
  split_seed: int,
  mean: Sequence[float] | None,
  std: Sequence[float] | None,
) -> None:
  """Checks the arguments of `from_arrays` that can be checked without data.

  Args:
    validation: see `from_arrays`, like the others.
    train_subset: the size of the split 'train_subset'.
    split_seed: chooses the examples of the splits.
    mean: per channel.
    std: per channel.

  Raises:
    UsageError: one of them is wrong for any data.
  """
  checks.number('data.validation', validation, at_least=0)
  if validation > 1 and isinstance(validation, float):
    raise UsageError(
      'data.validation: expected a fraction in [0, 1] or a whole number of '
      f'examples, got {validation}'
    )
  if train_subset is not None:
    checks.integer('data.train_subset', train_subset)
  checks.integer('data.split_seed', split_seed, at_least=0)
  for name, values in (('mean', mean), ('std', std)):
    if values is not None:
      channels.check(name, values, len(values))


def _check_examples(
  train_image: np.ndarray | LazyImages,
  train_label: np.ndarray,
  test_image: np.ndarray | LazyImages,
  test_label: np.ndarray,
) -> None:
  """Raises UsageError if images and labels do not make a data set."""
  for split, image, label in (
    ('train', train_image, train_label),
    ('test', test_image, test_label),
  ):
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
      raise UsageError(
        f'{split}_label: expected integers [N], got {label.dtype} '
        f'{list(label.shape)}'
      )
    if len(image) != len(label):
      raise UsageError(
        f'{split}_label: expected one label for each of {len(image)} images, '
        f'got {len(label)}'
      )
  check_images(train_image, test_image)


def check_images(
  train_image: np.ndarray | LazyImages, test_image: np.ndarray | LazyImages
) -> None:
  """Checks that images make a data set.

  Args:
    train_image: the images of the training set.
    test_image: the images of the test set.

  Raises:
    UsageError: they are not uint8 `[N, H, W, C]`, or differ in size, or a split
      has no images.
  """
  for split, image in (('train', train_image), ('test', test_image)):
    if image.dtype != np.uint8 or len(image.shape) != 4:
      raise UsageError(
        f'{split}_image: expected uint8 [N, H, W, C], got {image.dtype} '
        f'{list(image.shape)}'
      )
  if not len(train_image) or not len(test_image):
    raise UsageError(
      'data: expected training and test examples, got '
      f'{len(train_image)} and {len(test_image)}'
    )
  if train_image.shape[1:] != test_image.shape[1:]:
    raise UsageError(
      'data: expected training and test images of the same size, got '
      f'{train_image.shape[1:]} and {test_image.shape[1:]}'
    )


def _rows(
  label: np.ndarray, held_out: int, seed: int, stratified: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows for validation and those for training, in random order.

  The first training rows form the training subset.
  """
  order = np.random.default_rng(seed).permutation(len(label))
  if not stratified:
    return order[:held_out], order[held_out:]
  order = labels.held_out_first(order, label)
  return order[:held_out], labels.spread(order[held_out:], label)


def channels_last(image: np.ndarray | LazyImages) -> np.ndarray | LazyImages:
  """Returns images as `[N, H, W, C]`.

  Args:
    image: the images, `[N, H, W, C]` or `[N, C, H, W]`.
  """
  if isinstance(image, LazyImages) or image.ndim != 4:
    return image
  if not 1 <= image.shape[1] <= 4 or min(image.shape[2:]) <= 4:
    return image
  logging.warning(
    'images: taken as [N, C, H, W] because of their shape %s, and transposed '
    'to [N, H, W, C]',
    list(image.shape),
  )
  return image.transpose(0, 2, 3, 1)


def _split(columns: Mapping[str, Any], indices: np.ndarray) -> dict[str, Any]:
  chosen = {
    name: parts.taken(column, indices) for name, column in columns.items()
  }
  return {**chosen, 'index': indices.astype(np.int32)}
