"""Labels: how classes are numbered, and examples spread over the classes."""

from collections.abc import Sequence
import itertools
from typing import Any

from absl import logging
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError

# Labels are stored as int32.
MOST_CLASSES = 2**31 - 1
# The number of classes that a message names.
NAMED = 5


def renumbered(
  train_label: np.ndarray,
  test_label: np.ndarray,
  num_classes: int | None,
  label_names: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (training labels, test labels) from 0.

  Labels that have gaps or do not begin at 0 are renumbered if there is exactly
  one name for each of them. All others are returned unchanged.

  Args:
    train_label: integers `[N]`.
    test_label: integers `[M]`.
    num_classes: the number of classes, some of which may have no examples;
      None: it is not known.
    label_names: one per class, or empty.

  Raises:
    UsageError: neither `num_classes` nor names say what the gaps mean.
  """
  values = sorted({*train_label.tolist(), *test_label.tolist()})
  first, last = (values[0], values[-1]) if values else (0, -1)
  if first >= 0 and last >= len(values) == len(label_names):
    logging.warning(
      'labels: the %d values from %d to %d are renumbered from 0 in the order '
      'of label_names',
      *(len(values), first, last),
    )
    train_label, test_label = (
      np.searchsorted(values, label) for label in (train_label, test_label)
    )
  elif last >= len(values) and num_classes is None and not label_names:
    raise UsageError(
      f'labels: expected every class from 0 to {len(values) - 1}, got '
      f'{len(values)} different labels from {first} to {last}; renumber them, '
      'add label_names with one name for each, or set data.num_classes to '
      'have classes without examples'
    )
  return train_label, test_label


def checked_classes(
  train_label: np.ndarray,
  test_label: np.ndarray,
  num_classes: int | None,
  label_names: Sequence[str],
) -> int:
  """Returns the number of classes.

  Args:
    train_label: integers `[N]`.
    test_label: integers `[M]`.
    num_classes: the number of classes; None: the number of names, or the
      largest label plus one if there are no names.
    label_names: one per class, or empty.

  Raises:
    UsageError: a label is not from 0 to the number of classes minus one, there
      are fewer than two classes, or the number of names is another.
  """
  most = int(max(train_label.max(), test_label.max()))
  if num_classes is None:
    num_classes = len(label_names) or most + 1
  for label in (train_label, test_label):
    if label.min() < 0 or label.max() >= num_classes:
      raise UsageError(
        f'labels: expected integers from 0 to {num_classes - 1}, got '
        f'{label.min()} to {label.max()}'
      )
  if num_classes == 1:
    raise UsageError(
      'labels: expected at least two classes, got only the label 0; set '
      'data.num_classes if there are more classes'
    )
  if label_names:
    checks.length('label_names', label_names, num_classes, 'classes')
  return checks.integer(
    'data.num_classes', num_classes, at_least=2, at_most=MOST_CLASSES
  )


def checked_names(name: str, label_names: Any) -> tuple[str, ...]:
  """Returns the names of the classes as strings.

  Args:
    name: the name of the argument, for the message.
    label_names: a sequence or array of names; bytes are decoded as UTF-8.

  Raises:
    UsageError: it is a single name, or an array of arrays.
  """
  if isinstance(label_names, str | bytes) or np.ndim(label_names) != 1:
    raise UsageError(
      f'{name}: expected one name for each class, got {label_names!r}'
    )
  return tuple(
    x.decode('utf-8', 'backslashreplace') if isinstance(x, bytes) else str(x)
    for x in label_names
  )


def spread(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Returns rows in an order that spreads them over the classes.

  Every beginning of the result has each class in proportion, up to rounding:
  first one row of each class, large classes first, and then by the method of
  Sainte-Laguë, which divides seats by votes.

  Args:
    rows: row numbers `[n]`, in a random order.
    label: the class of every row of the data set.
  """
  _, classes, counts = np.unique(
    label[rows], return_inverse=True, return_counts=True
  )
  by_class = np.argsort(classes, kind='stable')
  starts = np.cumsum(counts) - counts
  rank = np.empty(len(rows), int)  # of a row in its class
  rank[by_class] = np.arange(len(rows)) - np.repeat(starts, counts)
  size = counts[classes]
  order = np.where(rank == 0, -size, (rank + 0.5) / size)
  return rows[np.argsort(order, kind='stable')]


def test_rows(label: np.ndarray, test: float) -> np.ndarray:
  """Returns which rows form a test split, always the same, booleans `[N]`.

  Args:
    label: the class of each row `[N]`.
    test: the fraction of each class that is in the test split.

  Raises:
    UsageError: the fraction is not in (0, 1).
  """
  checks.number('data.test', test, above=0, below=1)
  order = np.random.default_rng(0).permutation(len(label))
  held_out = np.zeros(len(order), bool)
  for i in np.unique(label):
    class_rows = order[label[order] == i]
    held_out[class_rows[: round(test * len(class_rows))]] = True
  return held_out


def held_out_first(order: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Returns rows such that any first ones are a stratified validation split.

  One row of each class comes last, so that the training set keeps it.

  Args:
    order: all rows `[N]`, in a random order.
    label: the class of each row `[N]`.
  """
  _, first = np.unique(label[order], return_index=True)
  rest = np.delete(order, first)
  return np.concatenate([spread(rest, label), order[np.sort(first)]])


def missing(
  label: np.ndarray, num_classes: int, label_names: Sequence[str]
) -> str:
  """Says which classes have no examples; '' if all of them have some.

  Args:
    label: the labels of the examples `[N]`, from 0.
    num_classes: the number of classes.
    label_names: one per class, or empty.
  """
  present = {*label.tolist()}
  count = num_classes - len(present)
  if not count:
    return ''
  absent = (i for i in range(num_classes) if i not in present)
  named = [
    repr(str(label_names[i])) if label_names else str(i)
    for i in itertools.islice(absent, NAMED)
  ]
  more = f' and {count - len(named)} more' if count > len(named) else ''
  return f'{count} of the {num_classes} classes: {", ".join(named)}{more}'
