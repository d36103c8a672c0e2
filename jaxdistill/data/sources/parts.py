"""Parts of the examples of a split."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdistill.core import checks
from jaxdistill.data.sources.images import LazyImages


def part(
  split: Mapping[str, Any], share: tuple[float, float]
) -> Mapping[str, Any]:
  """Returns a part of the examples of a split, see `types.Stream`.

  Args:
    split: name -> `[N, ...]`; lazy columns stay lazy.
    share: (start, stop) as fractions of the split after a fixed shuffle.

  Returns:
    name -> `[M, ...]`, in the order of the split.
  """
  if share == (0.0, 1.0):
    return split
  rows = part_rows(len(next(iter(split.values()))), share)
  return {name: taken(x, rows) for name, x in split.items()}


def cut(columns: Mapping[str, Any], test: float) -> list[Mapping[str, Any]]:
  """Splits columns into a training and a test set, always in the same way.

  Args:
    columns: name -> `[N, ...]`; lazy columns stay lazy.
    test: the fraction of the examples that forms the test set.

  Returns:
    The columns of the training set and those of the test set.

  Raises:
    UsageError: the fraction is not in (0, 1).
  """
  checks.number('data.test', test, above=0, below=1)
  return [part(columns, share) for share in ((test, 1.0), (0.0, test))]


def part_rows(size: int, share: tuple[float, float]) -> np.ndarray:
  """Returns the rows `[M]` of a part of a split, in ascending order.

  Args:
    size: the number of examples of the split.
    share: (start, stop) as fractions of the split after a fixed shuffle.
  """
  start, stop = (round(s * size) for s in share)
  return np.sort(np.random.default_rng(0).permutation(size)[start:stop])


def taken(column: Any, rows: np.ndarray) -> Any:
  """Returns some rows of a column; lazy columns stay lazy.

  Args:
    column: `[N, ...]`.
    rows: their numbers.
  """
  return column.select(rows) if isinstance(column, LazyImages) else column[rows]
