"""Plain values of a config, checked against annotations.

This module imports neither JAX nor any other heavy package, so that a wrong
value is refused at once.
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
import types
import typing
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError

_UNIONS = (typing.Union, types.UnionType)
# `type X = ...`, which Python 3.11 lacks.
_ALIASES: Any = getattr(typing, 'TypeAliasType', ())
_WORDS = {
  bool: 'True or False',
  float: 'a number',
  int: 'a whole number',
  str: 'a string',
  Mapping: "a section {'name': ...}",
  Sequence: 'a sequence',
  dict: 'keys and values',
  list: 'a sequence',
  tuple: 'a sequence',
  types.NoneType: 'None',
}


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
  """Returns the annotation of each parameter that has one.

  Annotations that are strings are resolved, each on its own; one that cannot be
  resolved is left out.

  Args:
    function: a function, a class, a callable object, or a `functools.partial`
      of one.
  """
  parameters = inspect.signature(function).parameters
  namespace = _namespace(function)
  resolved: dict[str, Any] = {}
  for name, parameter in parameters.items():
    annotation = parameter.annotation
    if annotation is parameter.empty:
      continue
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    try:
      hints = typing.get_type_hints(holder, namespace, include_extras=True)
    except (AttributeError, NameError, SyntaxError, TypeError):
      if isinstance(annotation, str):
        continue
      hints = {name: annotation}
    resolved |= hints
  return resolved


def _namespace(function: Any) -> dict[str, Any]:
  """Returns the names with which the annotations of a function are resolved."""
  while hasattr(function, 'func'):  # functools.partial
    function = function.func
  if isinstance(function, type):
    function = inspect.getattr_static(function, '__init__')
  elif not hasattr(function, '__globals__'):  # a callable object
    function = type(function).__call__
  return getattr(inspect.unwrap(function), '__globals__', {})


def members(
  annotation: Any, is_whole: Callable[[Any], bool] = lambda kind: False
) -> tuple[Any, ...]:
  """Returns the members of a union, or the annotation as the only one.

  Args:
    annotation: the annotation; aliases and `Annotated` are looked through.
    is_whole: says which annotations are returned as they are.
  """
  if is_whole(annotation):
    return (annotation,)
  if isinstance(annotation, _ALIASES):
    return members(annotation.__value__, is_whole)
  arguments = typing.get_args(annotation)
  if typing.get_origin(annotation) is typing.Annotated:
    return members(arguments[0], is_whole)
  if typing.get_origin(annotation) in _UNIONS:
    return tuple(m for kind in arguments for m in members(kind, is_whole))
  return (annotation,)


def converted(value: Any, annotation: Any) -> Any:
  """Returns a value with its lists and tuples as the annotation names them.

  Configs hold either, and JSON holds only lists, so `tuple[int, ...]` means a
  tuple and `list[int]` a list, whichever the config holds. All other values are
  returned unchanged.
  """
  if type(value) not in (list, tuple):
    return value
  kinds = [(typing.get_origin(m) or m, m) for m in members(annotation)]
  for wanted in (type(value), Sequence, tuple, list):
    for origin, kind in kinds:
      if origin is wanted:
        container: Any = type(value) if origin is Sequence else origin
        arguments = typing.get_args(kind)
        if len(arguments) != len(value) or Ellipsis in arguments:
          arguments = (arguments or (Any,))[:1] * len(value)
        return container(map(converted, value, arguments))
  return value


def check(where: str, value: Any, annotation: Any) -> None:
  """Checks a plain value against an annotation.

  Annotations that do not name plain types, such as protocols, accept any value.

  Args:
    where: the place of the value in the config, for the message.
    value: the value.
    annotation: the annotation; None accepts any value.

  Raises:
    UsageError: the value has another type.
  """
  if annotation is not None and not fits(value, members(annotation)):
    raise mismatch(where, value, members(annotation))


def mismatch(
  where: str, value: Any, kinds: Sequence[Any], *, also: Sequence[str] = ()
) -> UsageError:
  """Returns the error for a value that is of none of the types.

  Args:
    where: the place of the value in the config.
    value: the value.
    kinds: the types, without unions.
    also: what else would be valid, in words.
  """
  literals = [choice for kind in kinds for choice in _literals(kind)]
  if isinstance(value, str) and any(isinstance(c, str) for c in literals):
    others = [words(kind) for kind in kinds if not _literals(kind)]
    return checks.unknown(where, value, [*map(str, literals), *also, *others])
  expected = ' or '.join([*also, *map(words, kinds)])
  return UsageError(f'{where}: expected {expected}, got {value!r}')


def fits(value: Any, kinds: Sequence[Any]) -> bool:
  """Returns whether a value is of one of the types.

  An int is also a float. A bool is not a number, and a string is not a
  sequence: nobody who writes 'abc' means ('a', 'b', 'c'). Lists and tuples
  stand for each other, see `converted`.
  """
  for choice in (choice for kind in kinds for choice in _literals(kind)):
    if type(value) is type(choice) and value == choice:
      return True
  kinds = [kind for kind in kinds if not _literals(kind)]
  classes = [typing.get_origin(kind) or kind for kind in kinds]
  if not all(_is_checkable(kind) for kind in classes):
    return True
  if isinstance(value, bool):
    return bool in classes or object in classes
  if isinstance(value, int) and float in classes:
    return True
  if isinstance(value, str):
    return str in classes or object in classes
  if isinstance(value, (list, tuple)) and {list, tuple} & {*classes}:
    return True
  return isinstance(value, tuple(classes))


def _literals(kind: Any) -> tuple[Any, ...]:
  """Returns the values of a `Literal`; none for another type."""
  is_literal = typing.get_origin(kind) is typing.Literal
  return typing.get_args(kind) if is_literal else ()


def words(kind: Any) -> str:
  """Returns how a message calls a type."""
  if _literals(kind):
    return ' or '.join(map(repr, _literals(kind)))
  kind = typing.get_origin(kind) or kind
  return str(_WORDS.get(kind, getattr(kind, '__name__', kind)))


def check_keys(
  section: Any, fields: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """Checks the keys of a section and the types of their values.

  Args:
    section: the section.
    fields: key -> annotation.
    where: the place of the section in the config; '' for the whole config.

  Returns:
    The section as a dict.

  Raises:
    UsageError: the section is not a mapping, a key does not exist, or a value
      has another type.
  """
  if not isinstance(section, Mapping):
    place = where or 'the config'
    raise UsageError(f'{place}: expected keys and values, got {section!r}')
  for key, value in section.items():
    if key not in fields:
      kind = f'key of {where}' if where else 'key'
      raise checks.unknown(kind, key, fields)
    check(f'{where}.{key}' if where else key, value, fields[key])
  return dict(section)


def _is_checkable(kind: Any) -> bool:
  """Returns whether `isinstance` works with a type and means something."""
  return (
    isinstance(kind, type)
    and kind is not Any
    and not getattr(kind, '_is_protocol', False)
    and not typing.is_typeddict(kind)
  )
