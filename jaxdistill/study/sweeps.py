"""Sweeps: one row is tried with several values, and validation chooses.

The section 'sweep' of a row names keys of that row and the values to try. Each
combination becomes a row of its own, a trial, which is trained with the first
seed. When all trials are finished, the one with the best validation score after
its last epoch is trained with the other seeds too.

This module imports neither JAX nor any other heavy package, so that a wrong
value is refused at once.
"""

from collections.abc import Iterable, Iterator, Mapping
import itertools
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
    low, high, is_whole = self.low, self.high, self._is_whole()
    if is_whole and self.scale == 'linear':
      return rng.randint(int(low), int(high))
    if self.scale == 'log':
      number = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
      number = rng.uniform(low, high)
    return round(number) if is_whole else float(f'{number:.4g}')

  def _is_whole(self) -> bool:
    return isinstance(self.low, int) and isinstance(self.high, int)


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


def _choices(keys: Any, where: str) -> dict[str, list[Any] | _Range]:
  """Returns what each key of a sweep may be; 'schedule.rate' is a nested key.

  Raises:
    UsageError: there is no key, or a key has neither a list nor a range.
  """
  if not isinstance(keys, Mapping) or not keys:
    raise UsageError(
      f'{where}: expected keys of the row with their values, such as '
      f"{{'temperature': [1.0, 2.0, 4.0]}}, got {keys!r}"
    )
  choices: dict[str, list[Any] | _Range] = {}
  for key, value in keys.items():
    if not isinstance(value, Mapping):
      choices[str(key)] = _different(value, f'{where}.{key}')
    elif value.keys() & {'low', 'high'}:
      choices[str(key)] = _range(value, f'{where}.{key}')
    else:
      inner = _choices(value, f'{where}.{key}')
      choices |= {f'{key}.{name}': choice for name, choice in inner.items()}
  return choices


def _different(value: Any, where: str) -> list[Any]:
  """Returns the values of a key, of which each exists once."""
  if not isinstance(value, (list, tuple)) or not value:
    raise UsageError(
      f"{where}: expected a list of values or {{'low': ..., 'high': ...}}, got "
      f'{value!r}'
    )
  different: list[Any] = []
  for entry in value:
    if entry not in different:
      different.append(entry)
  return different


def _range(value: Mapping[str, Any], where: str) -> _Range:
  """Checks {'low': ..., 'high': ..., 'scale': ...}."""
  keys = {'scale': 'linear', **values.check_keys(value, RANGE_FIELDS, where)}
  for key in ('low', 'high'):
    if key not in keys:
      raise UsageError(f'{where}: a range needs the key {key!r}')
  checks.choice(f'{where}.scale', keys['scale'], SCALES)
  bounds: dict[str, float] = {'above': 0} if keys['scale'] == 'log' else {}
  checks.number(f'{where}.low', keys['low'], **bounds)
  checks.number(f'{where}.high', keys['high'], above=keys['low'])
  return _Range(keys['low'], keys['high'], keys['scale'])


def _combinations(
  sweep: Mapping[str, Any],
  choices: Mapping[str, list[Any] | _Range],
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
  size = math.prod(map(len, lists.values()))
  if len(lists) == len(choices) and (count is None or count >= size):
    checks.integer(f'{where}: combinations', size, at_most=MAX_TRIALS)
    for combination in itertools.product(*lists.values()):
      yield dict(zip(lists, combination))
  else:
    yield from _draws(choices, count or 0, sweep.get('seed', 0))


def _draws(
  choices: Mapping[str, list[Any] | _Range], count: int, seed: int
) -> Iterator[dict[str, Any]]:
  """Yields different random combinations, fewer if there are not so many."""
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
