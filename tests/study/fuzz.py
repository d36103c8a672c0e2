"""Wrong configs by the thousand: each is refused in one line, or is a plan.

    python tests/study/fuzz.py --seed 0 --count 1000 [--show accepted]

Takes the configs of the repository, one config for each method and one for each
kind of network, with the digits as data and small networks, changes one to
three of their keys at random, and builds the plan. Nothing is trained. A plan
or a `UsageError` of one line is a good outcome; anything else is a failure, of
which the changes and the traceback are printed. The exit code is then 1.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import copy
import functools
import inspect
import pathlib
import random
import runpy
import signal
import sys
import time
import traceback
import typing
from typing import Any, NamedTuple
import warnings

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import digits
from jaxdistill.study import config as config_lib
from jaxdistill.study import overrides, registry, settings, values

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
# A plan that is not ready after so many seconds is a failure.
LIMIT = 60
# Networks in place of those of the configs; they suit every method.
TEACHER = {'name': 'resnet8', 'widths': (10, 12, 16), 'stem_width': 10}
STUDENT = {'name': 'narrowed', 'network': TEACHER, 'multiplier': 0.5}
DATA = {'name': 'digits', 'train_subset': 500}
# The arguments that make a family's network small; others keep their defaults.
SMALL = {
  'cifar_resnet': {'depth': 8},
  'wide_resnet': {'depth': 10, 'width': 1},
  'preactivation_resnet': {'depth': 11},
  'pyramidnet': {'depth': 11, 'widening': 9},
  'cifar_densenet': {'depth': 7, 'growth': 2},
  'imagenet_resnet': {'stem': 'cifar'},
  'vit': {'width': 8, 'depth': 2, 'heads': 2, 'patch': 4},
}
# Values for arguments that have no default.
NEEDED = {
  'terms': {'kd': {}},
  'method': {'name': 'kd'},
  'fine_tune': {'name': 'kd'},
  'pruning': {'name': 'filters', 'keep': 0.5},
  'prunings': {'half': {'name': 'filters', 'keep': 0.5}},
  'assistants': {'ta': TEACHER},
  'at': [0.5, 1.0],
}
TABLES = tuple(registry.TABLES.values())
FUNCTIONS = {name: f for table in TABLES for name, f in table.items()}
# Partials are the larger members of a family, which take longer to trace.
NAMES = tuple(name for name, f in FUNCTIONS.items() if inspect.isfunction(f))
WORDS = ('', 'x', 'resnet8', 'kd', 'teacher', 'group1', '🦊', 'é' * 200, 'a\nb')
NUMBERS = (
  *(0, 1, 2, 3, 7, -1, -3, 100, 1000, 2**31, 2**32, 2**63, -(2**63), 10**40),
  *(0.0, 0.5, 1.0, 1.5, -0.5, -2.0, 1e-9, 1e-300, 1e300, 1e308, -1e300, 1e9),
  *(float('nan'), float('inf'), -float('inf')),
)
PAIRS = (
  *([], (), [[]], [1, 1], ['group1', 'group1'], [['group1']], [['group1', 1]]),
  *([[1, 1]], [[1.5, 2.5]], [['group1', 'group1', 'group1']], [None], [[[]]]),
  *([['group1', 'group1']] * 2, [['group9', 'group1']], [['stem', 'head']]),
  *([{'a': 1}], [[{'name': 'kd'}, 'group1']], {'group1': 'group1'}),
)


class Outcome(NamedTuple):
  """What became of one config.

  Attributes:
    kind: 'accepted', 'refused' or 'failed'.
    changes: what was changed, one line each.
    text: the message of the refusal, or the traceback of the failure.
    seconds: how long it took.
  """

  kind: str
  changes: tuple[str, ...]
  text: str
  seconds: float


class _Late(BaseException):
  """The plan took too long; no `except Exception` may swallow it."""


def bases() -> list[dict[str, Any]]:
  """Returns the configs that are changed; nearly all of them are valid."""
  return [*_shipped(), *_of_methods(), *_of_networks()]


def run(seed: int, count: int) -> Iterator[Outcome]:
  """Yields what became of each of `count` configs."""
  generator = random.Random(seed)
  configs = bases()
  for _ in range(count):
    config = copy.deepcopy(generator.choice(configs))
    changes = [
      _change(generator, config) for _ in range(generator.choice((1, 1, 2, 3)))
    ]
    command_line = []
    if generator.random() < 0.2:
      path = _dotted(_place(generator, config)[2])
      command_line = [(path, repr(wild(generator)))]
      changes += ['--config.{}={}'.format(*command_line[0])]
    start = time.perf_counter()
    kind, text = outcome(config, command_line)
    seconds = time.perf_counter() - start
    yield Outcome(kind, tuple(changes), text, seconds)


def outcome(
  config: Mapping[str, Any], command_line: Sequence[tuple[str, str]] = ()
) -> tuple[str, str]:
  """Returns (kind, text) of what becomes of a config; see `Outcome`.

  Args:
    config: the config.
    command_line: (key, value) of overrides.
  """
  try:
    with _limited(), warnings.catch_warnings():
      warnings.simplefilter('error')
      if command_line:
        config = _overridden(config, command_line)
      study.plan(config)
  except UsageError as error:
    is_one_line = '\n' not in str(error) and len(str(error)) < 2000
    return 'refused' if is_one_line else 'failed', str(error)
  except (Exception, _Late):
    return 'failed', traceback.format_exc()
  return 'accepted', ''


def _overridden(
  config: Mapping[str, Any], command_line: Sequence[tuple[str, str]]
) -> dict[str, Any]:
  """Returns a config with overrides, as the command line applies them."""
  try:
    loaded = config_lib._ordered(config)
  except (TypeError, ValueError) as error:  # a broken config file
    raise UsageError(str(error)) from error
  overrides.apply(loaded, command_line)
  return config_lib.plain(loaded)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
  """Raises `_Late` in a body that takes longer than the limit."""

  def stop(*_: Any) -> None:
    raise _Late

  before = signal.signal(signal.SIGALRM, stop)
  # Again and again, because callbacks of the interpreter swallow exceptions.
  signal.setitimer(signal.ITIMER_REAL, LIMIT, 1)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _shipped() -> Iterator[dict[str, Any]]:
  """Yields the configs of the repository with small networks and digits."""
  for path in sorted(CONFIGS.rglob('*.py')):
    arguments = runpy.run_path(str(path)).get('ARGUMENTS', ('',))
    for argument in arguments[:2]:
      loaded = config_lib.load(f'{path}:{argument}' if argument else path)
      config = config_lib.plain(loaded)
      yield _small(config)


def _small(config: dict[str, Any]) -> dict[str, Any]:
  """Returns a config with the digits and small networks."""
  small = {**config, 'data': DATA, 'student': STUDENT}
  if config.get('teacher'):
    training = config['teacher'].get('training', {})
    small['teacher'] = {**TEACHER, 'training': training}
  return small


def _of_methods() -> Iterator[dict[str, Any]]:
  """Yields a config for each method, with every default written out."""
  for name, function in registry.METHODS.items():
    row = {'name': name, **_written_out(function)}
    yield _config(row, STUDENT)


def _of_networks() -> Iterator[dict[str, Any]]:
  """Yields a config for each family of networks and each edit."""
  for name, function in registry.NETWORKS.items():
    if name in NAMES:
      arguments = {**_written_out(function), **SMALL.get(name, {})}
      arguments.pop('num_classes', None)
      yield _config({'name': 'supervised'}, {'name': name, **arguments})


def _written_out(function: Any) -> dict[str, Any]:
  """Returns the arguments of a function that JSON can hold."""
  parameters = inspect.signature(function).parameters
  arguments = {k: p.default for k, p in parameters.items() if k != 'name'}
  for key, parameter in parameters.items():
    if parameter.default is parameter.empty:
      del arguments[key]
      if key in NEEDED:
        arguments[key] = NEEDED[key]
  if 'network' in parameters:
    arguments |= {'network': TEACHER}
    arguments |= {'names': ['group1.block1']} if 'names' in parameters else {}
    arguments |= {'multiplier': 0.5} if 'multiplier' in parameters else {}
  return arguments


def _config(row: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
  """Returns a config with every section, and one row."""
  return {
    'data': DATA,
    'student': student,
    'teacher': {**TEACHER, 'training': {'epochs': 1}},
    'methods': {'row': row},
    'augment': {'name': 'crop_flip', 'padding': 1},
    'optimizer': {'name': 'sgd', 'momentum': 0.9},
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': [0.5]},
    'task': {'name': 'classification'},
    'epochs': 1,
  }


def _change(generator: random.Random, config: dict[str, Any]) -> str:
  """Changes one thing in a config; returns what, in one line."""
  changes = (
    *(_replace, _replace, _argument, _argument, _argument, _setting),
    *(_delete, _misspell, _swap, _wrap, _label, _rename),
  )
  return generator.choice(changes)(generator, config)


def _places(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple]:
  """Yields (container, key, path) of every value."""
  items: Any = ()
  if isinstance(config, dict):
    items = list(config.items())
  elif isinstance(config, list):
    items = list(enumerate(config))
  for key, value in items:
    yield config, key, (*path, key)
    yield from _places(value, (*path, key))


def _place(generator: random.Random, config: dict[str, Any]) -> tuple:
  return generator.choice(list(_places(config)) or [(config, 'epochs', ())])


def _sections(config: dict[str, Any]) -> list[tuple[dict[str, Any], tuple]]:
  """Returns (section, path) of all sections whose function is known."""
  found = []
  for container, key, path in _places(config):
    value = container[key]
    if isinstance(value, dict) and _name(value) in FUNCTIONS:
      found.append((value, path))
  return found or [({'name': 'kd'}, ())]


def _name(section: dict[str, Any]) -> str:
  name = section.get('name')
  return name if isinstance(name, str) else ''


def wild(generator: random.Random) -> Any:
  """Returns a value of any type."""
  kind = generator.randrange(9)
  if kind == 0:
    return generator.choice((None, True, False, [], {}, (), b'x', {1: 2}, {2}))
  if kind == 1:
    return generator.choice(WORDS)
  if kind in (2, 3, 4):
    return generator.choice(NUMBERS)
  if kind == 5:
    return copy.deepcopy(generator.choice(PAIRS))
  if kind == 6:
    name = generator.choice(NAMES)
    return {'name': name, **({'x': 1} if generator.random() < 0.2 else {})}
  if kind == 7:
    count = generator.choice((1, 2, 3, 4))
    return [wild(generator) for _ in range(count)]
  return {generator.choice((*WORDS, 'name')): wild(generator)}


def _near(generator: random.Random, annotation: Any) -> Any:
  """Returns a value that may just suit an annotation, or a wild one."""
  kind = generator.choice(values.members(annotation))
  arguments = typing.get_args(kind)
  if generator.random() < 0.3:
    return wild(generator)
  if kind in (int, float):
    return generator.choice(NUMBERS)
  if kind is str:
    return generator.choice(WORDS)
  if typing.get_origin(kind) is tuple:
    return copy.deepcopy(generator.choice(PAIRS))
  if typing.get_origin(kind) is Sequence and arguments:
    count = generator.choice((0, 1, 1, 2, 3, 4))
    return [_near(generator, arguments[0]) for _ in range(count)]
  return wild(generator)


def _replace(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = _place(generator, config)
  container[key] = wild(generator)
  return f'{_dotted(path)} = {container[key]!r}'


def _argument(generator: random.Random, config: dict[str, Any]) -> str:
  section, path = generator.choice(_sections(config))
  parameters = list(inspect.signature(FUNCTIONS[_name(section)]).parameters)
  key = generator.choice(parameters or ['x'])
  annotation = values.annotations(FUNCTIONS[_name(section)]).get(key)
  section[key] = _near(generator, annotation)
  return f'{_dotted((*path, key))} = {section[key]!r}'


def _setting(generator: random.Random, config: dict[str, Any]) -> str:
  key = generator.choice(list(settings.FIELDS))
  config[key] = wild(generator)
  return f'{key} = {config[key]!r}'


def _delete(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = _place(generator, config)
  if key in container or isinstance(container, list):
    del container[key]
  return f'{_dotted(path)} deleted'


def _misspell(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = _place(generator, config)
  if isinstance(container, list) or not isinstance(key, str):
    return 'nothing'
  at = generator.randrange(len(key) + 1)
  wrong = key[:at] + generator.choice('xé.-_') + key[at + 1 :]
  container[wrong] = container.pop(key, 1)
  return f'{_dotted(path)} renamed {wrong!r}'


def _swap(generator: random.Random, config: dict[str, Any]) -> str:
  one, key, path = _place(generator, config)
  other, other_key, other_path = _place(generator, config)
  if key in one and other_key in other:
    one[key], other[other_key] = (
      copy.deepcopy(other[other_key]),
      copy.deepcopy(one[key]),
    )
  return f'{_dotted(path)} and {_dotted(other_path)} swapped'


def _wrap(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = _place(generator, config)
  value = container.get(key) if isinstance(container, dict) else container[key]
  wrapped = ([value], [value] * 2, {'name': value}, {'x': value}, {0: value})
  container[key] = generator.choice(wrapped)
  return f'{_dotted(path)} = {container[key]!r}'


def _label(generator: random.Random, config: dict[str, Any]) -> str:
  rows = config.get('methods')
  if not isinstance(rows, dict) or not rows:
    return 'nothing'
  label = generator.choice(list(rows))
  new = generator.choice(
    (f'{label}/', f'{label} ', 3, None, 'teacher', '..', 'x' * 101, True, '🦊')
  )
  rows[new] = copy.deepcopy(rows[label])
  return f'methods has {new!r} too'


def _rename(generator: random.Random, config: dict[str, Any]) -> str:
  section, path = generator.choice(_sections(config))
  table = next(t for t in TABLES if _name(section) in t)
  if generator.random() < 0.2:
    table = generator.choice(TABLES)
  name = generator.choice([name for name in table if name in NAMES])
  section.clear()
  section |= {'name': name, **SMALL.get(name, {})}
  return f'{_dotted(path)}.name = {name!r}'


def _dotted(path: tuple[Any, ...]) -> str:
  return '.'.join(map(str, path))


def main(argv: list[str] | None = None) -> int:
  """Runs the fuzz; returns 1 if a config failed."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--count', type=int, default=1000)
  parser.add_argument(
    '--show', choices=('accepted', 'refused'), default=None, nargs='?'
  )
  options = parser.parse_args(argv)
  # Reading the digits takes 60 ms.
  digits._load = functools.cache(digits._load)
  counts = {'accepted': 0, 'refused': 0, 'failed': 0}
  slowest = 0.0
  for outcome in run(options.seed, options.count):
    counts[outcome.kind] += 1
    slowest = max(slowest, outcome.seconds)
    if outcome.kind in ('failed', options.show):
      changes = '; '.join(outcome.changes)
      print(f'{outcome.kind}: {changes}\n  {outcome.text}'.rstrip())
  print(f'seed {options.seed}: {counts}, slowest {slowest:.1f} s')
  return 1 if counts['failed'] else 0


if __name__ == '__main__':
  sys.exit(main())
