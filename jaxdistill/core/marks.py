"""A mark for parts that work whatever the teacher's classes are."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_Function = TypeVar('_Function', bound=Callable[..., Any])


def any_classes(function: _Function) -> _Function:
  """Marks an objective or a phase builder, and returns it.

  It says that the function never takes the teacher's outputs for scores of the
  classes of the data. So the teacher may have been trained for other classes. A
  method works with such a teacher if all of its phases are marked.

  Args:
    function: the objective, `pair -> Term`, or the builder, `carry -> Phase`.
  """
  function.any_classes = True  # type: ignore[attr-defined]
  return function


def any_classes_if_all(
  function: _Function, parts: Iterable[Callable[..., Any]]
) -> _Function:
  """Marks a function if all of its parts are marked, and returns it.

  Args:
    function: see `any_classes`.
    parts: the objectives or phase builders that it consists of.
  """
  is_marked = all(map(allows_any_classes, parts))
  return any_classes(function) if is_marked else function


def allows_any_classes(function: Callable[..., Any]) -> bool:
  """Returns whether a function is marked; see `any_classes`."""
  return getattr(function, 'any_classes', False)
