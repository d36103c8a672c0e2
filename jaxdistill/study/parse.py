"""Step 1 of a study: sections of a config become checked calls.

A section {'name': 'sgd', 'momentum': 0.8} stands for a call of the function
that a table has under this name. Every key is checked against the function's
real signature, so defaults are written there and nowhere else.

Sections nest by annotation: if a parameter is annotated with a type that has a
table, such as `Optimizer`, its value in a config is a section too; see
`nesting.nested_sections` for mappings, sequences and functions of such types.
That holds for a user's own functions as well as for those of the library.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
import dataclasses
import functools
import importlib
import inspect
import json
import types
from typing import Any, NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import nesting, values
from jaxdistill.study.nesting import Table, Tables

# Parameters that only the library passes, never a config.
RESERVED = ('recipe',)
# The module of a name such as 'my_file:my_function'.
_SEPARATOR = ':'


class Section(NamedTuple):
  """A checked section.

  Attributes:
    resolved: the name and every argument, defaults included, as JSON.
    build: context -> what the function returns. The context holds arguments,
      such as 'num_classes', for parameters that the section does not set.
  """

  resolved: dict[str, Any]
  build: Callable[[Mapping[str, Any]], Any]


class _Factory(NamedTuple):
  """A section that is built for a recipe which the caller chooses later."""

  section: Section


def parse(
  section: Any,
  table: Table,
  where: str,
  tables: Tables,
  *,
  context: Collection[str] = (),
  siblings: Iterable[str] = (),
) -> Section:
  """Checks a section and the sections in it, without calling anything.

  Args:
    section: {'name': ..., arguments}; the name may be missing if `table` has
      a single function.
    table: the functions that `section` may name, besides 'file:function'.
    where: the place of the section in the config, for messages.
    tables: the tables of nested sections.
    context: the names of the arguments that `Section.build` will get.
    siblings: other valid keys in this place, for messages.

  Raises:
    UsageError: a name, key or value is wrong, or a required key is missing.
  """
  if isinstance(section, Mapping) and 'name' not in section and len(table) == 1:
    section = {'name': next(iter(table)), **section}
  _check_is_section(section, table, where)
  function = _function(section['name'], table, where)
  parameters = _parameters(function, where, section['name'])
  annotations = values.annotations(function)
  valid = [name for name in parameters if name not in RESERVED]
  arguments: dict[str, Any] = {}
  for key, value in section.items():
    if key == 'name':
      continue
    if key not in valid:
      raise checks.unknown(f'key of {where}', key, ['name', *valid, *siblings])
    annotation = annotations.get(key)
    if _equals_default(value, parameters[key]):
      arguments[key] = values.converted(value, annotation)
    else:
      arguments[key] = _argument(
        value, annotation, f'{where}.{key}', tables, context
      )
  for name, parameter in parameters.items():
    is_given = name in arguments or name in context
    if parameter.default is parameter.empty and not is_given:
      raise UsageError(f'{where}: {section["name"]!r} needs the key {name!r}')
  return Section(
    _resolved_section(section['name'], parameters, arguments, where, tables),
    functools.partial(_build, function, tuple(parameters), arguments, where),
  )


def _check_is_section(section: Any, table: Table, where: str) -> None:
  if isinstance(section, str):
    raise nesting.string_error(section, where)
  if not isinstance(section, Mapping) or 'name' not in section:
    raise UsageError(
      f"{where}: expected a section {{'name': ...}}, got {section!r} (valid "
      f'names: {", ".join(table)})'
    )


def _argument(
  value: Any,
  annotation: Any,
  where: str,
  tables: Tables,
  context: Collection[str],
) -> Any:
  """Checks the value of an argument and parses the sections that it holds."""
  nested = nesting.choose(value, annotation, tables, where)
  if nested is None:
    return values.converted(value, annotation)
  if nested.form == 'mapping':
    for label in value:
      values.check(f'a label of {where}', label, str)
    labelled = {
      label: _labelled(label, part, nested.entry, tables)
      for label, part in value.items()
    }
    return {
      label: _argument(part, nested.entry, f'{where}.{label}', tables, context)
      for label, part in labelled.items()
    }
  if nested.form == 'sequence':
    return nested.container(
      _argument(part, nested.entry, f'{where}.{i}', tables, context)
      for i, part in enumerate(value)
    )
  if nested.form == 'factory':
    context = {*context, *RESERVED}
  section = parse(value, nested.table, where, tables, context=context)
  return _Factory(section) if nested.form == 'factory' else section


def _labelled(label: str, part: Any, entry: Any, tables: Tables) -> Any:
  """Returns an entry of a mapping; its label is the name that it lacks."""
  forms = {nested.form for nested in nesting.nested_sections(entry, tables)}
  is_section = 'mapping' not in forms and forms & {'section', 'factory'}
  if is_section and isinstance(part, Mapping):
    return {'name': label, **part}
  return part


def _parameters(
  function: Callable[..., Any], where: str, section_name: str
) -> dict[str, inspect.Parameter]:
  """Returns the parameters that a config can set; 'name' is the section's.

  Raises:
    UsageError: a parameter is called 'name' and needs a value.
  """
  parameters = {
    name: parameter
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind
    in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
  }
  own_name = parameters.pop('name', None)
  if own_name is not None and own_name.default is own_name.empty:
    raise UsageError(
      f"{where}: {section_name!r} requires an argument called 'name', which a "
      "config cannot set, because 'name' is the section's own key; rename the "
      'argument or give it a default'
    )
  return parameters


def _function(name: Any, table: Table, where: str) -> Callable[..., Any]:
  """Returns the function of a name, which a user's file may define."""
  if not isinstance(name, str):
    raise UsageError(f'{where}.name: expected a string, got {name!r}')
  if name in table:
    return table[name]
  if _SEPARATOR not in name:
    raise checks.unknown(f'{where}.name', name, [*table, 'my_file:my_function'])
  module_name, _, function_name = name.partition(_SEPARATOR)
  try:
    module = importlib.import_module(module_name)
  except Exception as error:  # whatever the user's file raises
    raise UsageError(
      f'{where}.name: cannot import {name!r} ({type(error).__name__}: {error})'
    ) from error
  if not callable(getattr(module, function_name, None)):
    raise checks.unknown(
      f'function of {module_name}', function_name, _functions(module)
    )
  return getattr(module, function_name)


def _functions(module: types.ModuleType) -> list[str]:
  """Returns the functions that a module defines, without those it imports."""
  return [
    name
    for name, value in vars(module).items()
    if inspect.isfunction(value) and value.__module__ == module.__name__
  ]


def _equals_default(value: Any, parameter: inspect.Parameter) -> bool:
  """Returns whether a plain value is the default, as `resolved` writes it."""
  if not (_is_json(value) and _is_json(parameter.default)):
    return False
  return json.dumps(value) == json.dumps(parameter.default)


def _build(
  function: Callable[..., Any],
  parameters: tuple[str, ...],
  arguments: Mapping[str, Any],
  where: str,
  context: Mapping[str, Any],
) -> Any:
  """Calls the function of a section.

  Raises:
    UsageError: that of the function, with the place of the section or of the
      argument that the message names.
  """
  built = {key: _built(value, context) for key, value in arguments.items()}
  missing = {key: context[key] for key in parameters if key in context}
  try:
    return function(**{**missing, **built})
  except UsageError as error:
    message = str(error)
    if message.startswith(where):
      raise
    separator = '.' if message.partition(':')[0] in parameters else ': '
    raise UsageError(f'{where}{separator}{message}') from error


def _built(value: Any, context: Mapping[str, Any]) -> Any:
  """Builds the sections of an argument."""
  if isinstance(value, _Factory):
    return lambda recipe: value.section.build({**context, 'recipe': recipe})
  if isinstance(value, Section):
    return value.build(context)
  if isinstance(value, dict):
    return {key: _built(part, context) for key, part in value.items()}
  if type(value) in (list, tuple):
    return type(value)(_built(part, context) for part in value)
  return value


def _resolved_section(
  name: str,
  parameters: Mapping[str, inspect.Parameter],
  arguments: Mapping[str, Any],
  where: str,
  tables: Tables,
) -> dict[str, Any]:
  """Returns the name and all arguments as JSON.

  Raises:
    UsageError: an argument is not plain.
  """
  resolved: dict[str, Any] = {'name': name}
  for key, parameter in parameters.items():
    default = parameter.default
    if type(default) in tables and dataclasses.is_dataclass(default):
      default = vars(default)
    if key in arguments:
      resolved[key] = _resolved(arguments[key])
    elif default is not parameter.empty and _is_json(default):
      resolved[key] = default
  for key, value in resolved.items():
    if not _is_json(value):
      raise UsageError(
        f'{where}.{key}: expected a plain value (numbers, strings, lists or '
        f'keys and values), got {value!r}'
      )
  return json.loads(json.dumps(resolved))


def _resolved(value: Any) -> Any:
  if isinstance(value, _Factory):
    return value.section.resolved
  if isinstance(value, Section):
    return value.resolved
  if isinstance(value, Mapping):
    return {key: _resolved(part) for key, part in value.items()}
  if type(value) in (list, tuple):
    return [_resolved(part) for part in value]
  return value


def _is_json(value: Any) -> bool:
  try:
    json.dumps(value)
  except TypeError:
    return False
  return True
