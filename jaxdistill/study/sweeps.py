"""Sweeps: one row is tried with several values, and validation chooses.

The section 'sweep' of a row names keys of that row and the values to try. Each
combination becomes a row of its own, a trial, which is trained with the first
seed. When all trials are finished, the one with the best validation score after
its last epoch is trained with the other seeds too.

This module imports neither JAX nor any other heavy package, so that a wrong
value is refused at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import math
import random
from typing import Any, NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import values

FIELDS = {'keys': Any, 'trials': int | None, 'seed': int}
RANGE_FIELDS = {'low': float, 'high': float, 'scale': str}
SCALES = ('linear', 'log')
# Draws of a combination that has been drawn before, until a sweep gives up.
_MAX_REPEATS = 1000
MAX_TRIALS = 10_000
# Beyond this number of combinations, random draws hardly ever repeat.
_MANY = 1_000_000


class Trial(NamedTuple):
  """One combination of values.

  Attributes:
    sweep: the label of the row that has the sweep.
    values: key of the row -> value; 'schedule.rate' is a nested key.
    seeds: the seeds of the row; a trial that is not chosen has the first alone.
    chosen: whether it has the best validation score of all trials.
  """

  sweep: str
  values: dict[str, Any]
  seeds: tuple[int, ...]
  chosen: bool = False


class _Range(NamedTuple):
  """Numbers between two bounds, to be drawn at random.

  Attributes:
    low: the smallest number.
    high: the largest number. If both bounds are ints, so are the numbers.
    scale: 'linear', or 'log' for a uniform distribution of the logarithm.
  """

  low: float
  high: float
  scale: str

  def draw(self, rng: random.Random) -> float:
    """Returns a number; one that is not whole has four significant digits."""
    if self.scale == 'log':
      number = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
    else:
      number = rng.uniform(self.low, self.high)
    is_whole = isinstance(self.low, int) and isinstance(self.high, int)
    return round(number) if is_whole else float(f'{number:.4g}')


def trials(
  label: str, section: Mapping[str, Any], seeds: tuple[int, ...], where: str
) -> Iterator[tuple[str, dict[str, Any], Trial]]:
  """Yields (label, section, trial) of each combination of a sweep.

  Args:
    label: the label of the row.
    section: the row's section, with the key 'sweep'.
    seeds: the seeds of the row.
    where: the place of the row in the config.

  Raises:
    UsageError: the sweep is not valid.
  """
  row = {key: value for key, value in section.items() if key != 'sweep'}
  sweep = values.check_keys(section['sweep'], FIELDS, f'{where}.sweep')
  choices = _choices(sweep.get('keys', {}), f'{where}.sweep.keys')
  names = _short_names(choices)
  for combination in _combinations(sweep, choices, f'{where}.sweep'):
    trial = Trial(label, combination, seeds)
    text = ', '.join(
      f'{names[key]}={value}' for key, value in combination.items()
    )
    yield f'{label}: {text}', _changed(row, combination, where), trial


def _choices(keys: Any, where: str) -> dict[str, Sequence[Any] | _Range]:
  """Returns what each key of a sweep may be; 'schedule.rate' is a nested key.

  The keys are sorted, as those of a `ConfigDict` are, so that labels do not
  depend on how the config was made.

  Raises:
    UsageError: there is no key, or a key has neither a list nor a range.
  """
  if not isinstance(keys, Mapping) or not keys:
    raise UsageError(
      f'{where}: expected keys of the row with their values, such as '
      f"{{'temperature': [1.0, 2.0, 4.0]}}, got {keys!r}"
    )
  choices: dict[str, Sequence[Any] | _Range] = {}
  for key, value in sorted(keys.items(), key=lambda item: str(item[0])):
    if '.' in str(key) or key == 'sweep':
      raise UsageError(
        f'{where}: expected keys of the row, with nested keys in a section '
        f"such as {{'schedule': {{'rate': [0.1, 0.3]}}}}, got {key!r}"
      )
    if not isinstance(value, Mapping):
      choices[str(key)] = _different(value, f'{where}.{key}')
    elif value.keys() & {'low', 'high'}:
      choices[str(key)] = _range(value, f'{where}.{key}')
    else:
      inner = _choices(value, f'{where}.{key}')
      choices |= {f'{key}.{name}': choice for name, choice in inner.items()}
  return choices


def _different(value: Any, where: str) -> list[Any]:
  """Returns the values of a key, of which each exists once.

  If some of several numbers are floats, the whole ones become floats too.
  """
  if not isinstance(value, (list, tuple)) or not value:
    raise UsageError(
      f"{where}: expected a list of values or {{'low': ..., 'high': ...}}, got "
      f'{value!r}'
    )
  if {*map(type, value)} == {int, float}:
    value = [*map(float, value)]
  return list({repr(entry): entry for entry in value}.values())


def _range(value: Mapping[str, Any], where: str) -> Sequence[int] | _Range:
  """Returns what {'low': ..., 'high': ..., 'scale': ...} stands for."""
  keys = {'scale': 'linear', **values.check_keys(value, RANGE_FIELDS, where)}
  for key in ('low', 'high'):
    if key not in keys:
      raise UsageError(f'{where}: a range needs the key {key!r}')
  checks.choice(f'{where}.scale', keys['scale'], SCALES)
  bounds: dict[str, float] = {'above': 0} if keys['scale'] == 'log' else {}
  checks.number(f'{where}.low', keys['low'], **bounds)
  checks.number(f'{where}.high', keys['high'], above=keys['low'])
  low, high, scale = keys['low'], keys['high'], keys['scale']
  if isinstance(low, int) and isinstance(high, int) and scale == 'linear':
    return range(low, high + 1)
  return _Range(low, high, scale)


def _combinations(
  sweep: Mapping[str, Any],
  choices: Mapping[str, Sequence[Any] | _Range],
  where: str,
) -> Iterator[dict[str, Any]]:
  """Yields all combinations, or as many different ones at random as asked for.

  Raises:
    UsageError: a range has no number of trials, or there are too many trials.
  """
  lists = {k: v for k, v in choices.items() if not isinstance(v, _Range)}
  count = sweep.get('trials')
  if count is not None:
    checks.integer(f'{where}.trials', count, at_most=MAX_TRIALS)
  elif len(lists) < len(choices):
    (key, *_) = (key for key in choices if key not in lists)
    raise UsageError(
      f'{where}: the range of {key!r} needs {where}.trials, the number of '
      'random combinations'
    )
  seed = checks.integer(f'{where}.seed', sweep.get('seed', 0), at_least=0)
  size = math.prod(map(len, lists.values()))
  if count is not None and (len(lists) < len(choices) or size > _MANY):
    yield from _draws(choices, count, seed)
    return
  numbers: Iterable[int] = range(size)
  if count is not None and count < size:
    numbers = random.Random(seed).sample(range(size), count)
  else:
    checks.integer(f'{where}: combinations', size, at_most=MAX_TRIALS)
  for number in numbers:
    yield _combination(lists, number)


def _combination(
  lists: Mapping[str, Sequence[Any]], number: int
) -> dict[str, Any]:
  """Returns the combination with a number; the last key changes fastest."""
  combination = {}
  for key, choice in reversed(list(lists.items())):
    number, index = divmod(number, len(choice))
    combination[key] = choice[index]
  return dict(reversed(list(combination.items())))


def _draws(
  choices: Mapping[str, Sequence[Any] | _Range], count: int, seed: int
) -> Iterator[dict[str, Any]]:
  """Yields different random combinations, of which there are far more."""
  rng = random.Random(seed)
  drawn: list[dict[str, Any]] = []
  for _ in range(count + _MAX_REPEATS):
    combination = {
      key: choice.draw(rng)
      if isinstance(choice, _Range)
      else rng.choice(choice)
      for key, choice in choices.items()
    }
    if combination not in drawn and len(drawn) < count:
      drawn.append(combination)
      yield combination


def _short_names(keys: Iterable[str]) -> dict[str, str]:
  """Returns the last part of each key, or the key if that is ambiguous."""
  last = {key: key.rpartition('.')[2] for key in keys}
  names = list(last.values())
  return {k: v if names.count(v) == 1 else k for k, v in last.items()}


def _changed(
  row: Mapping[str, Any], combination: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """Returns a row's section with the values of a combination.

  Raises:
    UsageError: a part of a key before a dot is not a section.
  """
  changed = dict(row)
  for key, value in combination.items():
    *parents, name = key.split('.')
    section = changed
    for parent in parents:
      inner = section.get(parent, {})
      if not isinstance(inner, Mapping):
        raise UsageError(
          f'{where}.sweep.keys: {key!r} expects a section at {parent!r}, got '
          f'{inner!r}'
        )
      section[parent] = dict(inner)
      section = section[parent]
    section[name] = value
  return changed
