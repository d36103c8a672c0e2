"""Config sections as checked calls: a name and keyword arguments.

A section {'name': 'sgd', 'momentum': 0.8} stands for a call of the function
that a table gives the name. Every key is checked against the function's real
signature, so defaults live there and nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping
import importlib
import inspect
import json
import types
import typing
from typing import Any, NamedTuple

from jaxdistill.networks import staged
from jaxdistill.types import Method, Recipe, UsageError

Table = Mapping[str, Callable[..., Any]]


class Section(NamedTuple):
  """A checked section.

  Attributes:
    resolved: the name and every argument, defaults filled in, as JSON.
    make: context -> what the function returns. The context gives arguments,
      such as 'num_classes', that the function takes and the section lacks.
  """

  resolved: dict[str, Any]
  make: Callable[[Mapping[str, Any]], Any]


def parse(
  section: Any,
  table: Table,
  where: str,
  tables: Mapping[str, Table],
  given: tuple[str, ...] = (),
  also: Iterable[str] = (),
) -> Section:
  """Checks a section, and the sections in it, without calling anything.

  Args:
    section: {'name': ..., arguments}.
    table: what the names mean. A name 'file:function' is imported.
    where: the section's place in the config, for messages.
    tables: key -> table of the sections that may stand under that key.
    given: arguments that only the context gives, no config.
    also: keys that may stand there too, for messages.

  Raises:
    UsageError: a name, key or value that is wrong, with the valid ones.
  """
  if isinstance(section, str):
    raise _no_section(section, where)
  if not isinstance(section, Mapping) or 'name' not in section:
    raise UsageError(
      f"{where}: wanted a section {{'name': ...}}, got {section!r}; valid "
      f'names: {", ".join(table)}'
    )
  function = _resolve(section['name'], table, where)
  parameters = {
    name: p
    for name, p in inspect.signature(function).parameters.items()
    if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    and name != 'name'  # is the section's own
  }
  hints = _hints(function)
  valid = [name for name in parameters if name not in given]
  arguments: dict[str, Any] = {}
  for key, value in section.items():
    if key == 'name':
      continue
    if key not in valid:
      raise staged.unknown(f'key of {where}', key, ['name', *valid, *also])
    arguments[key] = _argument(value, f'{where}.{key}', key, tables, given)
    if isinstance(value, str) and key in tables and hints.get(key) is not str:
      raise _no_section(value, f'{where}.{key}')
    if not isinstance(value, Mapping):
      _check_type(value, hints.get(key), f'{where}.{key}')

  def make(context: Mapping[str, Any]) -> Any:
    filled = {
      k: _later(v, context) if hints.get(k) == _LATER else _made(v, context)
      for k, v in arguments.items()
    }
    for name, parameter in parameters.items():
      if name in filled:
        continue
      if name in context:
        filled[name] = context[name]
      elif parameter.default is parameter.empty:
        raise UsageError(f'{where}: {section["name"]!r} needs the key {name!r}')
    return function(**filled)

  resolved = {'name': section['name']}
  for name, parameter in parameters.items():
    if name in arguments:
      resolved[name] = _resolved(arguments[name])
    elif parameter.default is not parameter.empty and _is_json(
      parameter.default
    ):
      resolved[name] = parameter.default
  for name, value in resolved.items():
    if not _is_json(value):
      raise UsageError(f'{where}.{name}: {value!r} is no plain value')
  return Section(json.loads(json.dumps(resolved)), make)


def check_keys(section: Any, function: Callable[..., Any], where: str) -> None:
  """Raises UsageError at a key that is no argument of `function`."""
  if not isinstance(section, Mapping):
    raise UsageError(f'{where}: wanted a section, got {section!r}')
  valid = list(inspect.signature(function).parameters)
  hints = _hints(function)
  for key, value in section.items():
    if key not in valid:
      raise staged.unknown(f'key of {where}' if where else 'key', key, valid)
    if not isinstance(value, Mapping):
      _check_type(value, hints.get(key), f'{where}.{key}' if where else key)


def _no_section(value: str, where: str) -> UsageError:
  return UsageError(
    f'{where}: {value!r} is no section; write {where}.name={value}'
  )


def _argument(value, where, key, tables, given):
  """A value, a nested section, or a dict of nested sections."""
  if isinstance(value, Mapping) and key in tables:
    if 'name' in value:
      return parse(value, tables[key], where, tables, given)
    return {
      label: parse(
        {'name': label, **part} if isinstance(part, Mapping) else part,
        tables[key],
        f'{where}.{label}',
        tables,
        given,
      )
      for label, part in value.items()
    }
  return value


def _made(value, context):
  if isinstance(value, Section):
    return value.make(context)
  if isinstance(value, dict):
    return {k: _made(v, context) for k, v in value.items()}
  return value


def _later(value, context):
  """What makes a section of a method for a recipe that is not the config's."""
  if isinstance(value, Section):
    return lambda recipe: value.make({**context, 'recipe': recipe})
  return value


def _resolved(value):
  if isinstance(value, Section):
    return value.resolved
  if isinstance(value, Mapping):
    return {k: _resolved(v) for k, v in value.items()}
  return value


def _resolve(name: Any, table: Table, where: str) -> Callable[..., Any]:
  if not isinstance(name, str):
    raise UsageError(f'{where}.name: {name!r} is no string')
  if name in table:
    return table[name]
  if ':' not in name:
    raise staged.unknown(f'{where}.name', name, [*table, 'my_file:my_function'])
  module_name, _, function_name = name.partition(':')
  try:
    module = importlib.import_module(module_name)
  except Exception as error:  # whatever the user's file raises
    raise UsageError(
      f'{where}.name: cannot import {name!r} ({type(error).__name__}: {error})'
    ) from error
  if not callable(getattr(module, function_name, None)):
    there = [k for k, v in vars(module).items() if inspect.isfunction(v)]
    raise staged.unknown(f'function of {module_name}', function_name, there)
  return getattr(module, function_name)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
  while hasattr(function, 'func'):  # functools.partial
    function = function.func
  try:
    return typing.get_type_hints(function)
  except (NameError, TypeError):
    return {}


def _check_type(value: Any, hint: Any, where: str) -> None:
  """Raises UsageError where a plain value does not fit a plain annotation."""
  if hint is None:
    return
  kinds = (
    typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
  )
  kinds = tuple(typing.get_origin(kind) or kind for kind in kinds)
  if Any in kinds or not all(isinstance(kind, type) for kind in kinds):
    return
  if isinstance(value, bool):
    fits = any(kind in (bool, object) for kind in kinds)
  elif isinstance(value, int) and float in kinds:
    fits = True
  elif isinstance(value, str):  # is a Sequence of str, which nobody means
    fits = any(kind in (str, object) for kind in kinds)
  else:
    fits = isinstance(value, kinds)
  if not fits:
    names = ' or '.join(_KINDS.get(kind, kind.__name__) for kind in kinds)
    raise UsageError(f'{where}: {value!r} is no {names}')


_LATER = Callable[[Recipe], Method]
_UNIONS = (typing.Union, types.UnionType)
_KINDS = {types.NoneType: 'None', Mapping: "section {'name': ...}"}


def _is_json(value: Any) -> bool:
  try:
    json.dumps(value)
  except TypeError:
    return False
  return True
