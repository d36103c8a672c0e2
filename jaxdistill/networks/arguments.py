"""Checked arguments of architectures: widths, strides, depths, stems."""

from collections.abc import Mapping, Sequence
import math
import numbers
import operator
from typing import Any

import numpy as np

from jaxdistill.networks import staged
from jaxdistill.types import UsageError


def whole(name: str, value: Any) -> int:
  """A whole number of at least 1, NumPy's integers too, as int.

  Raises:
    UsageError: it is none.
  """
  try:
    number = 0 if isinstance(value, bool) else operator.index(value)
  except TypeError:
    number = 0
  if number < 1:
    raise UsageError(f'{name}: wanted whole numbers above 0, got {value!r}')
  return number


def real(name: str, value: Any, least: float = -math.inf) -> float:
  """A finite number of at least `least`, as float.

  Raises:
    UsageError: it is none; a bool is none either.
  """
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if not is_number or not math.isfinite(value) or value < least:
    bound = '' if least == -math.inf else f' of at least {least:g}'
    raise UsageError(f'{name}: wanted a number{bound}, got {value!r}')
  return float(value)


def check_length(
  name: str, values: Any, count: int, what: str
) -> tuple[Any, ...]:
  """The sequence `values` as a tuple, where it has `count` entries.

  Raises:
    UsageError: there are more or fewer.
  """
  if len(values) != count:
    raise UsageError(
      f'{name} has {len(values)} entries; the network has {count} {what}'
    )
  return tuple(values)


def per_group(
  name: str, values: Sequence[int], count: int, what: str = 'groups'
) -> tuple[int, ...]:
  """A whole number for each of `count` groups."""
  values = check_length(name, values, count, what)
  return tuple(whole(name, value) for value in values)


def per_block(
  name: str, values: Sequence[int] | None, count: int, what: str = 'blocks'
) -> tuple[int | None, ...]:
  """A whole number for each of `count` blocks; None: the usual for all."""
  if values is None:
    return (None,) * count
  return per_group(name, values, count, what)


def pair_per_block(
  name: str, values: Sequence[Any] | None, count: int
) -> tuple[tuple[int, int], ...]:
  """Two whole numbers for each block, 0 where the block decides.

  An entry is a pair, or one number: the block's first.
  """
  if values is None:
    return ((0, 0),) * count
  found = []
  for value in check_length(name, values, count, 'blocks'):
    if isinstance(value, Sequence | np.ndarray):
      one, two = check_length(f'an entry of {name}', value, 2, 'such widths')
      found.append((whole(name, one), whole(name, two)))
    else:
      found.append((whole(name, value), 0))
  return tuple(found)


def blocks_per_group(depth: int, layers_per_block: int, rest: int) -> int:
  """The n of a network of depth layers_per_block * n + rest.

  Raises:
    UsageError: there is no such n.
  """
  blocks, left = divmod(depth - rest, layers_per_block)
  if left or blocks < 1:
    valid = [layers_per_block * n + rest for n in (1, 2, 3, 4, 5)]
    raise UsageError(f'no network of depth {depth}; valid: {valid}, ...')
  return blocks


def stem(
  kind: str,
  kinds: Mapping[str, tuple[int, int, bool]],
  stride: int | None,
  pool: bool | None,
) -> tuple[int, int, bool]:
  """Kernel, stride and pooling of a kind of stem, or those given.

  Raises:
    UsageError: `kind` is none of `kinds`.
  """
  if kind not in kinds:
    raise staged.unknown('stem', kind, kinds)
  kernel, usual_stride, usual_pool = kinds[kind]
  if stride is not None:
    usual_stride = whole('stem_stride', stride)
  return kernel, usual_stride, usual_pool if pool is None else bool(pool)
