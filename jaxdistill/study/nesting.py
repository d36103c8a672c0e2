"""Which arguments of a function are sections, by their annotations."""

from collections.abc import Callable, Mapping, Sequence
import types
import typing
from typing import Any, Literal, NamedTuple

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Recipe
from jaxdistill.study import values

# Name -> function.
Table = Mapping[str, Callable[..., Any]]
# Type -> the functions that return a value of this type.
Tables = Mapping[Any, Table]

Form = Literal['section', 'factory', 'mapping', 'sequence', 'unsupported']
_WORDS: Mapping[Form, str] = {
  'section': "a section {'name': ...}",
  'factory': "a section {'name': ...}",
  'mapping': "sections by label, {LABEL: {'name': ...}}",
  'sequence': "a sequence of sections, [{'name': ...}]",
}


class Nested(NamedTuple):
  """The sections that one member of an annotation asks for.

  Attributes:
    form: 'section': one section. 'factory': one section, from which the
      function gets a function of a recipe. 'mapping': label -> section; the
      label is the name of a section that has none. 'sequence': a list or tuple
      of sections. 'unsupported': the member contains a type with a table in
      any other form.
    table: the functions that a section may name; of the first two forms.
    entry: the annotation of an entry; of a mapping or a sequence.
    container: what the function gets for a sequence, a list or a tuple.
  """

  form: Form
  table: Table = types.MappingProxyType({})
  entry: Any = None
  container: type = tuple


def nested_sections(annotation: Any, tables: Tables) -> tuple[Nested, ...]:
  """Returns the sections that an annotation asks for; () if it asks for none.

  An annotation asks for sections if it is a key of `tables` or a function from
  a recipe to such a type, if it is a mapping from strings to one of these or a
  sequence of them (`Sequence[X]`, `list[X]` or `tuple[X, ...]`), or if it is a
  union that has such a member.
  """
  nested = (_nested(member, tables) for member in _members(annotation, tables))
  return tuple(member for member in nested if member is not None)


def _members(annotation: Any, tables: Tables) -> tuple[Any, ...]:
  """Returns the members of a union; a type with a table is never split."""
  return values.members(
    annotation, lambda kind: _table(kind, tables) is not None
  )


def _nested(member: Any, tables: Tables) -> Nested | None:
  """Returns the sections that a member of an annotation asks for."""
  table = _table(member, tables)
  if table is not None:
    return Nested('section', table)
  if not _has_table(member, tables):
    return None
  origin, arguments = typing.get_origin(member), typing.get_args(member)
  if origin is Callable and arguments[0] == [Recipe]:
    table = _table(arguments[1], tables)
    return Nested('unsupported') if table is None else Nested('factory', table)
  if origin in (Mapping, dict) and arguments[0] in (str, Any):
    return Nested('mapping', entry=arguments[1])
  if origin in (Sequence, list) or (
    origin is tuple and arguments[1:] == (...,)
  ):
    container = list if origin is list else tuple
    return Nested('sequence', entry=arguments[0], container=container)
  return Nested('unsupported')


def _table(kind: Any, tables: Tables) -> Table | None:
  """Returns the table of a type, or of the type that has been annotated."""
  try:
    table = tables.get(kind)
  except TypeError:  # the annotation is not hashable
    return None
  if table is None and typing.get_origin(kind) is typing.Annotated:
    return _table(typing.get_args(kind)[0], tables)
  return table


def _has_table(kind: Any, tables: Tables) -> bool:
  """Returns whether a type is made of a type with a table.

  Only the result of a function counts, because a config never passes anything
  to it.
  """
  for member in _members(kind, tables):
    arguments = typing.get_args(member)
    if typing.get_origin(member) is Callable:
      arguments = arguments[1:]
    if _table(member, tables) is not None or any(
      _has_table(argument, tables) for argument in arguments
    ):
      return True
  return False


def choose(
  value: Any, annotation: Any, tables: Tables, where: str
) -> Nested | None:
  """Returns which sections of an annotation a value holds.

  If a union has several members of the same form, the name of a section decides
  between them, and the entries of a mapping or sequence may be of either.

  Args:
    value: the value of an argument in a config.
    annotation: the annotation of the argument.
    tables: the tables of nested sections.
    where: the place of the value in the config, for messages.

  Returns:
    The sections, or None if the value is a plain one.

  Raises:
    UsageError: the value suits no member of the annotation.
  """
  is_mapping = isinstance(value, Mapping)
  is_container = is_mapping or isinstance(value, (list, tuple))
  nested: dict[Form, list[Nested]] = {}
  plain = []
  for member in _members(annotation, tables):
    found = _nested(member, tables)
    if found is not None:
      nested.setdefault(found.form, []).append(found)
    if found is None or (found.form == 'unsupported' and not is_container):
      plain.append(member)
  if not nested:
    values.check(where, value, annotation)
    return None
  sections = nested.get('section', []) + nested.get('factory', [])
  has_name = is_mapping and _has_name(value)
  if has_name and sections:
    return _of_name(value['name'], sections)
  containers = nested.get('mapping' if is_mapping else 'sequence', [])
  if is_container and _has_mapping(value):
    if containers and not has_name:
      return _joined(containers)
    if 'unsupported' in nested:
      raise _unsupported(value, annotation, where)
  if _fits(value, plain):
    values.check_kinds(where, value, plain)
    return None
  if is_container and containers and not has_name:
    return _joined(containers)
  if is_mapping and sections:
    return _of_name(None, sections)
  if is_container and 'unsupported' in nested:
    raise _unsupported(value, annotation, where)
  raise _mismatch(value, nested, plain, where)


def _has_name(value: Mapping[str, Any]) -> bool:
  """Returns whether a mapping is a section, not sections by label."""
  return 'name' in value and not isinstance(value['name'], Mapping)


def _has_mapping(value: Any) -> bool:
  """Returns whether a container holds a mapping at any depth."""
  parts = value.values() if isinstance(value, Mapping) else value
  return any(
    isinstance(part, Mapping)
    or (isinstance(part, (list, tuple)) and _has_mapping(part))
    for part in parts
  )


def _fits(value: Any, plain: Sequence[Any]) -> bool:
  """Returns whether a value is of a plain type of an annotation.

  A mapping is a section unless the annotation asks for a plain mapping too.
  """
  if isinstance(value, Mapping):
    origins = [typing.get_origin(kind) or kind for kind in plain]
    return any(isinstance(o, type) and issubclass(o, Mapping) for o in origins)
  return bool(plain) and values.fits(value, plain)


def _of_name(name: Any, sections: Sequence[Nested]) -> Nested:
  """Returns the section whose table has a name, or one with all tables."""
  for section in sections:
    if isinstance(name, str) and name in section.table:
      return section
  table = {k: f for section in sections for k, f in section.table.items()}
  return sections[0]._replace(table=table)


def _joined(containers: Sequence[Nested]) -> Nested:
  """Returns one mapping or sequence whose entries may be of either kind."""
  entries = tuple(container.entry for container in containers)
  return containers[0]._replace(entry=typing.Union[entries])  # noqa: UP007


def _unsupported(value: Any, annotation: Any, where: str) -> UsageError:
  return UsageError(
    f'{where}: a config cannot hold sections for the annotation {annotation}, '
    f'got {value!r}; of a type X that has sections, a function may ask for X, '
    'Callable[[Recipe], X], Mapping[str, X], Sequence[X], list[X] or '
    'tuple[X, ...]'
  )


def _mismatch(
  value: Any,
  nested: Mapping[Form, Sequence[Nested]],
  plain: Sequence[Any],
  where: str,
) -> UsageError:
  """Returns the error for a value that suits no member of an annotation."""
  if isinstance(value, Mapping) and 'mapping' in nested and _has_name(value):
    return UsageError(
      f'{where}: expected {_WORDS["mapping"]}, got the section {dict(value)!r}'
    )
  has_section = 'section' in nested or 'factory' in nested
  has_literal = any(typing.get_origin(kind) is Literal for kind in plain)
  if has_section and isinstance(value, str) and not has_literal:
    return string_error(value, where)
  words = dict.fromkeys(_WORDS[f] for f in nested if f in _WORDS)
  return values.mismatch(where, value, plain, also=tuple(words))


def string_error(value: str, where: str) -> UsageError:
  """Returns the error for a name in the place of a section."""
  *_, key = where.split('.')
  is_word = value.replace(':', '').replace('.', '').isidentifier()
  hint = f'; write {where}.name={value}' if is_word else ''
  if key.isdigit():  # an entry of a sequence, which no override can name
    hint = ''
  return UsageError(
    f"{where}: expected a section {{'name': ...}}, got {value!r}{hint}"
  )
