"""Checks the arguments of architectures: widths, strides, depths, stems."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError

# The most layers of a network; the deepest ones published have about 1,000.
DEEPEST = 10_000


def probability(name: str, value: float) -> float:
  """Returns the probability of a drop, at least 0 and below 1."""
  return checks.number(name, value, at_least=0, below=1)


def per_group(
  name: str, values: Sequence[int], count: int, what: str = 'groups'
) -> tuple[int, ...]:
  """Returns `values` if they are a whole number for each of `count` groups."""
  values = checks.length(name, values, count, what)
  return tuple(checks.integer(name, value) for value in values)


def per_block(
  name: str, values: Sequence[int] | None, count: int, what: str = 'blocks'
) -> tuple[int | None, ...]:
  """Returns a whole number for each of `count` blocks, or None for each."""
  if values is None:
    return (None,) * count
  return per_group(name, values, count, what)


def pair_per_block(
  name: str, values: Sequence[Any] | None, count: int
) -> tuple[tuple[int, int], ...]:
  """Returns two whole numbers for each block; 0 lets the block decide.

  An entry is a pair, or one number, which is the first of the pair.
  """
  if values is None:
    return ((0, 0),) * count
  pairs = []
  for value in checks.length(name, values, count, 'blocks'):
    if isinstance(value, Sequence | np.ndarray):
      first, second = checks.length(
        f'an entry of {name}', value, 2, 'widths of a pair'
      )
      pairs.append((checks.integer(name, first), checks.integer(name, second)))
    else:
      pairs.append((checks.integer(name, value), 0))
  return tuple(pairs)


def blocks_per_group(depth: int, layers_per_block: int, rest: int) -> int:
  """Returns the n of a network of depth layers_per_block * n + rest.

  Raises:
    UsageError: there is no such n of at least 1.
  """
  checks.integer('depth', depth, at_most=DEEPEST)
  blocks, remainder = divmod(depth - rest, layers_per_block)
  if remainder or blocks < 1:
    valid = ', '.join(str(layers_per_block * n + rest) for n in range(1, 6))
    raise UsageError(f'depth: expected one of {valid}, ..., got {depth}')
  return blocks


def stem(
  kind: str,
  kinds: Mapping[str, tuple[int, int, bool]],
  stride: int | None,
  pool: bool | None,
) -> tuple[int, int, bool]:
  """Returns kernel, stride and pooling of a stem.

  Args:
    kind: the kind of stem.
    kinds: kind -> its kernel, stride and pooling.
    stride: replaces the stride of the kind, unless it is None.
    pool: replaces the pooling of the kind, unless it is None.

  Raises:
    UsageError: `kind` is not one of `kinds`, or the stride is invalid.
  """
  kernel, kind_stride, kind_pool = kinds[checks.choice('stem', kind, kinds)]
  if stride is not None:
    kind_stride = checks.integer('stem_stride', stride)
  return kernel, kind_stride, kind_pool if pool is None else bool(pool)
