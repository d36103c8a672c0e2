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
import threading
import time
import traceback
from typing import Any, NamedTuple
import warnings

import mutations

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import digits
from jaxdistill.study import config as config_lib
from jaxdistill.study import overrides, registry

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
# A plan that is not ready after so many seconds is a failure.
LIMIT = 60
# Networks in place of those of the configs; they suit every method.
TEACHER = {'name': 'resnet8', 'widths': (10, 12, 16), 'stem_width': 10}
STUDENT = {'name': 'narrowed', 'network': TEACHER, 'multiplier': 0.5}
DATA = {'name': 'digits', 'train_subset': 500}
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
  return [*_shipped(), *of_methods(), *_of_networks()]


def run(
  seed: int, count: int, configs: Sequence[dict[str, Any]]
) -> Iterator[Outcome]:
  """Yields what becomes of `count` changed configs."""
  generator = random.Random(seed)
  for _ in range(count):
    config = copy.deepcopy(generator.choice(configs))
    changes = [
      mutations.change(generator, config)
      for _ in range(generator.choice((1, 1, 2, 3)))
    ]
    command_line = []
    if generator.random() < 0.2:
      path = mutations.dotted(mutations.place(generator, config)[2])
      command_line = [(path, repr(mutations.wild(generator)))]
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

  if threading.current_thread() is not threading.main_thread():
    yield  # only the main thread can be interrupted
    return
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


def of_methods() -> Iterator[dict[str, Any]]:
  """Yields a config for each method, with every default written out."""
  for name, function in registry.METHODS.items():
    row = {'name': name, **_written_out(function)}
    yield _config(row, STUDENT)


def _of_networks() -> Iterator[dict[str, Any]]:
  """Yields a config for each family of networks and each edit."""
  for name, function in registry.NETWORKS.items():
    if name in mutations.NAMES:
      arguments = {**_written_out(function), **mutations.SMALL.get(name, {})}
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
  for outcome in run(options.seed, options.count, bases()):
    counts[outcome.kind] += 1
    slowest = max(slowest, outcome.seconds)
    if outcome.kind in ('failed', options.show):
      changes = '; '.join(outcome.changes)
      print(f'{outcome.kind}: {changes}\n  {outcome.text}'.rstrip())
  print(f'seed {options.seed}: {counts}, slowest {slowest:.1f} s')
  return 1 if counts['failed'] else 0


if __name__ == '__main__':
  sys.exit(main())
