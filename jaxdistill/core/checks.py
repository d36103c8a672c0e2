"""Checks of what a user chooses, and the one-line errors that they raise.

Every check names the argument and says what it expected and what it received:
`optimizer.momentum: expected a number in [0, 1), got 1.5`.
"""

from collections.abc import Iterable
import difflib
import math
import numbers
import operator
from typing import Any

# If there are more valid names than this, an error shows only the nearest one.
MOST_LISTED = 30


class UsageError(ValueError):
  """The user chose something that does not work; the message is one line."""

  def __init__(self, message: str):
    """Sets the message; line breaks, such as in a user's key, are escaped."""
    super().__init__(message.replace('\n', r'\n').replace('\r', r'\r'))


def unknown(kind: str, name: Any, valid: Iterable[str]) -> UsageError:
  """Returns the error for a name that does not exist, with the nearest match.

  The message lists all valid names, unless they are many and one is near.

  Args:
    kind: the kind of thing that is named, such as 'network'.
    name: what the user passed.
    valid: the names that exist.
  """
  valid = [str(choice) for choice in valid]
  near = difflib.get_close_matches(str(name), valid, n=1)
  hint = f'; did you mean {near[0]!r}?' if near else ''
  if not near or len(valid) <= MOST_LISTED:
    hint += f' (valid: {", ".join(valid)})'
  return UsageError(f'unknown {kind} {name!r}{hint}')


def choice(kind: str, name: str, valid: Iterable[str]) -> str:
  """Returns `name` if it is one of the valid names.

  Args:
    kind: the kind of thing that is named, such as 'network'.
    name: what the user passed.
    valid: the names that exist.

  Raises:
    UsageError: it is not; see `unknown` for the message.
  """
  valid = list(valid)
  if name not in valid:
    raise unknown(kind, name, valid)
  return name


def reason(error: BaseException) -> str:
  """Returns what an exception says, in one line.

  Args:
    error: the exception; its type is named unless it is one of those whose
      messages speak for themselves.
  """
  text = ' '.join(str(error).split())
  if text and isinstance(error, (OSError, ValueError)):
    return text
  return f'{type(error).__name__}: {text}' if text else type(error).__name__


def integer(
  name: str, value: Any, *, at_least: int = 1, at_most: int | None = None
) -> int:
  """Returns a whole number as an int; NumPy's integers count, booleans do not.

  Args:
    name: the name of the argument, for the message.
    value: what the user passed.
    at_least: the smallest valid number.
    at_most: the largest valid number; None: there is none.

  Raises:
    UsageError: `value` is not a whole number within these bounds.
  """
  try:
    whole = None if isinstance(value, bool) else operator.index(value)
  except TypeError:
    whole = None
  too_large = whole is not None and at_most is not None and whole > at_most
  if whole is None or whole < at_least or too_large:
    bounds = (
      f'of at least {at_least}'
      if at_most is None
      else f'from {at_least} to {at_most}'
    )
    raise UsageError(f'{name}: expected a whole number {bounds}, got {value!r}')
  return whole


def number(
  name: str,
  value: Any,
  *,
  at_least: float | None = None,
  above: float | None = None,
  at_most: float | None = None,
  below: float | None = None,
) -> float:
  """Returns a finite number within bounds as a float; booleans do not count.

  Args:
    name: the name of the argument, for the message.
    value: what the user passed.
    at_least: the smallest valid number.
    above: every valid number is larger than this.
    at_most: the largest valid number.
    below: every valid number is smaller than this.

  Raises:
    UsageError: `value` is not a finite number within these bounds.
  """
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if (
    not is_number
    or not _is_finite(value)
    or (at_least is not None and value < at_least)
    or (above is not None and value <= above)
    or (at_most is not None and value > at_most)
    or (below is not None and value >= below)
  ):
    bounds = _bounds(at_least, above, at_most, below)
    raise UsageError(f'{name}: expected a number{bounds}, got {value!r}')
  return float(value)


def weights(**values: Any) -> None:
  """Checks the factors of losses: finite numbers from 0 to 1e9.

  Args:
    **values: the name of each argument, for the message, and its value.

  Raises:
    UsageError: a value is not such a number.
  """
  for name, value in values.items():
    number(name, value, at_least=0, at_most=1e9)


def _is_finite(value: Any) -> bool:
  """Returns whether a number is finite as a float."""
  try:
    return math.isfinite(value)
  except OverflowError:  # an int of more than 308 digits
    return False


def length(name: str, values: Any, count: int, what: str) -> tuple[Any, ...]:
  """Returns a sequence as a tuple if it has the expected number of entries.

  Args:
    name: the name of the argument, for the message.
    values: what the user passed.
    count: how many entries are expected.
    what: what each entry belongs to, in the plural: 'groups'.

  Raises:
    UsageError: there are more or fewer entries, or `values` is not a sequence.
  """
  got = len(values) if hasattr(values, '__len__') else repr(values)
  if got != count:
    raise UsageError(
      f'{name}: expected {count} entries, one for each of the {what}, got {got}'
    )
  return tuple(values)


def _bounds(
  at_least: float | None,
  above: float | None,
  at_most: float | None,
  below: float | None,
) -> str:
  """Says in words which numbers are valid."""
  low = at_least if above is None else above
  high = at_most if below is None else below
  if low is not None and high is not None:
    opening = '[' if above is None else '('
    closing = ']' if below is None else ')'
    return f' in {opening}{low:g}, {high:g}{closing}'
  if low is not None:
    return f' of at least {low:g}' if above is None else f' above {low:g}'
  if high is not None:
    return f' of at most {high:g}' if below is None else f' below {high:g}'
  return ''
