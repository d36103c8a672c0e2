"""Plain values of a config, checked against annotations.

This module imports neither JAX nor any other heavy package, so that a wrong
value is refused at once.
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
import numbers
import types
import typing
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError

_UNIONS = (typing.Union, types.UnionType)
# `type X = ...`, which Python 3.11 lacks.
_ALIASES: Any = getattr(typing, 'TypeAliasType', ())
# Numbers whose squares float32 can hold, and whole numbers of 32 bits: no
# computation can use any that are larger.
LARGEST = 1e18
SMALLEST = 1e-18
LARGEST_WHOLE = 2**32 - 1
_WORDS = {
  Callable: 'a function, which a config cannot hold',
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
  tuple and `list[int]` a list, whichever the config holds. NumPy's numbers
  become Python's. All other values are returned unchanged.
  """
  if isinstance(value, numbers.Real) and not isinstance(value, (int, float)):
    return int(value) if isinstance(value, numbers.Integral) else float(value)
  if type(value) not in (list, tuple):
    return value
  kinds = [(typing.get_origin(m) or m, m) for m in members(annotation)]
  for wanted in (type(value), Sequence, tuple, list):
    for origin, kind in kinds:
      if origin is wanted:
        container: Any = type(value) if origin is Sequence else origin
        return container(map(converted, value, _entries(kind, len(value))))
  return value


def _entries(kind: Any, count: int) -> tuple[Any, ...]:
  """Returns the annotation of each entry of a sequence of `count` entries."""
  arguments = typing.get_args(kind)
  if len(arguments) == count and Ellipsis not in arguments:
    return arguments
  return (arguments or (Any,))[:1] * count


def check(where: str, value: Any, annotation: Any) -> None:
  """Checks a plain value, and whatever it holds, against an annotation.

  Annotations that do not name plain types, such as protocols, accept any value.

  Args:
    where: the place of the value in the config, for the message.
    value: the value.
    annotation: the annotation; None accepts any value.

  Raises:
    UsageError: the value or a part of it has another type, or is a number that
      no computation can use: NaN, infinite, or beyond the limits above.
  """
  if annotation is not None:
    check_kinds(where, value, members(annotation))


def check_kinds(where: str, value: Any, kinds: Sequence[Any]) -> None:
  """Checks a value as `check` does.

  Args:
    where: the place of the value in the config, for the message.
    value: the value.
    kinds: the types that it may have, without unions.

  Raises:
    UsageError: see `check`.
  """
  suitable = [kind for kind in kinds if fits(value, (kind,))]
  if not suitable:
    raise mismatch(where, value, kinds)
  errors = []
  for kind in suitable:
    try:
      return _check_content(where, value, kind)
    except UsageError as error:  # the parts may suit another kind
      errors.append(error)
  raise errors[0]


def _check_content(where: str, value: Any, kind: Any) -> None:
  """Checks the size of a number, or the parts of a container."""
  if kind is int and not isinstance(value, bool):
    checks.integer(where, value, at_least=-LARGEST_WHOLE, at_most=LARGEST_WHOLE)
  elif kind is float:
    checks.number(where, value, at_least=-LARGEST, at_most=LARGEST)
    if 0 < abs(value) < SMALLEST:
      raise UsageError(
        f'{where}: expected 0 or a number of at least {SMALLEST:g} in size, '
        f'got {value!r}'
      )
  elif isinstance(value, (list, tuple)):
    arguments = typing.get_args(kind)
    is_fixed = typing.get_origin(kind) is tuple and Ellipsis not in arguments
    if is_fixed and arguments and len(arguments) != len(value):
      raise UsageError(
        f'{where}: expected {len(arguments)} entries, got {value!r}'
      )
    for i, entry in enumerate(_entries(kind, len(value))):
      check(f'{where}.{i}', value[i], entry)
  elif isinstance(value, Mapping) and typing.get_args(kind):
    key_kind, entry = typing.get_args(kind)
    for key, part in value.items():
      check(f'a key of {where}', key, key_kind)
      check(f'{where}.{key}', part, entry)


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
  """Returns whether a value is of one of the types, whatever it holds.

  An int is also a float, and NumPy's numbers are numbers. A bool is not a
  number, and a string is not a sequence: nobody who writes 'abc' means
  ('a', 'b', 'c'). Lists and tuples stand for each other, see `converted`.
  """
  for choice in (choice for kind in kinds for choice in _literals(kind)):
    if type(value) is type(choice) and value == choice:
      return True
  kinds = [kind for kind in kinds if not _literals(kind)]
  classes = [typing.get_origin(kind) or kind for kind in kinds]
  if not all(_is_checkable(kind) for kind in classes):
    return True
  for scalar in (bool, str, bytes):
    if isinstance(value, scalar):
      return scalar in classes or object in classes
  if isinstance(value, numbers.Integral) and {int, float} & {*classes}:
    return True
  if isinstance(value, numbers.Real) and float in classes:
    return True
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
