"""Public names that a package imports when they are first used.

This module needs only the standard library, so that importing a package is
quick.
"""

from collections.abc import Callable, Collection, Mapping
import importlib
import sys
from typing import Any


def attributes(
  package: str,
  public: Collection[str],
  homes: Mapping[str, str],
  *,
  modules: Collection[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """Returns the functions `__getattr__` and `__dir__` of a package.

  A name is imported when it is first used, and then becomes an ordinary
  attribute of the package. Define the two functions only `if not
  TYPE_CHECKING`, because type checkers would otherwise accept every name.

  Args:
    package: the name of the package.
    public: all public names of the package; its `__all__`.
    homes: name -> the full name of the module that defines it.
    modules: the public names that are modules of the package themselves.
  """

  def import_name(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in modules:
      return importlib.import_module(f'{package}.{name}')
    if name not in homes:
      raise AttributeError(f'module {package!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(homes[name]), name)
    setattr(sys.modules[package], name, value)
    return value

  def names() -> list[str]:
    """Lists the names of the package, those not imported yet included."""
    return sorted({*vars(sys.modules[package]), *public})

  return import_name, names
