"""Random changes of configs, most of them wrong."""

from collections.abc import Iterator, Sequence
import copy
import inspect
import random
import typing
from typing import Any

from jaxdistill.study import registry, settings, values

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


def change(generator: random.Random, config: dict[str, Any]) -> str:
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


def place(generator: random.Random, config: dict[str, Any]) -> tuple:
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
  container, key, path = place(generator, config)
  container[key] = wild(generator)
  return f'{dotted(path)} = {container[key]!r}'


def _argument(generator: random.Random, config: dict[str, Any]) -> str:
  section, path = generator.choice(_sections(config))
  parameters = list(inspect.signature(FUNCTIONS[_name(section)]).parameters)
  key = generator.choice(parameters or ['x'])
  annotation = values.annotations(FUNCTIONS[_name(section)]).get(key)
  section[key] = _near(generator, annotation)
  return f'{dotted((*path, key))} = {section[key]!r}'


def _setting(generator: random.Random, config: dict[str, Any]) -> str:
  key = generator.choice(list(settings.FIELDS))
  config[key] = wild(generator)
  return f'{key} = {config[key]!r}'


def _delete(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = place(generator, config)
  if key in container or isinstance(container, list):
    del container[key]
  return f'{dotted(path)} deleted'


def _misspell(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = place(generator, config)
  if isinstance(container, list) or not isinstance(key, str):
    return 'nothing'
  at = generator.randrange(len(key) + 1)
  wrong = key[:at] + generator.choice('xé.-_') + key[at + 1 :]
  container[wrong] = container.pop(key, 1)
  return f'{dotted(path)} renamed {wrong!r}'


def _swap(generator: random.Random, config: dict[str, Any]) -> str:
  one, key, path = place(generator, config)
  other, other_key, other_path = place(generator, config)
  if key in one and other_key in other:
    one[key], other[other_key] = (
      copy.deepcopy(other[other_key]),
      copy.deepcopy(one[key]),
    )
  return f'{dotted(path)} and {dotted(other_path)} swapped'


def _wrap(generator: random.Random, config: dict[str, Any]) -> str:
  container, key, path = place(generator, config)
  value = container.get(key) if isinstance(container, dict) else container[key]
  wrapped = ([value], [value] * 2, {'name': value}, {'x': value}, {0: value})
  container[key] = generator.choice(wrapped)
  return f'{dotted(path)} = {container[key]!r}'


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
  return f'{dotted(path)}.name = {name!r}'


def dotted(path: tuple[Any, ...]) -> str:
  return '.'.join(map(str, path))
