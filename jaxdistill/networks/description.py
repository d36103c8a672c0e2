"""Describes networks as JSON, and rebuilds them from their descriptions."""

import json
import sys
from typing import Any

from flax import linen as nn

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage

_PACKAGE = 'jaxdistill.'


def to_description(network: Network) -> list[dict[str, Any]]:
  """Returns a network as JSON: the class and the fields of each stage.

  Args:
    network: the network. A class of the library is described by its name only,
      so that files stay valid when it moves to another module. Any other class
      is described as 'module:Name'.

  Raises:
    UsageError: a stage is not a Linen module, or has fields that JSON cannot
      hold.
  """
  return [
    {
      'name': stage.name,
      'inputs': list(stage.inputs),
      'class': _class_name(type(stage.module)),
      'fields': _fields(stage),
    }
    for stage in network.stages
  ]


def from_description(description: list[dict[str, Any]]) -> Network:
  """Returns the network that `to_description` described.

  A description never makes Python import a module, since it may come from a
  file of unknown origin. Classes of other packages must be imported before.

  Args:
    description: what `to_description` returned.

  Raises:
    UsageError: a class is unknown, or has no field of a given name.
  """
  return Network(
    tuple(
      Stage(entry['name'], _module(entry), tuple(entry['inputs']))
      for entry in description
    )
  )


def _fields(stage: Stage) -> dict[str, Any]:
  """Returns the fields of a stage's module."""
  module = stage.module
  if not isinstance(module, nn.Module):
    raise UsageError(
      f'stage {stage.name!r}: expected a Linen module, got a model that was '
      'adopted from functions or NNX; such a network has no description'
    )
  fields = {
    name: getattr(module, name)
    for name in module.__dataclass_fields__
    if name not in ('parent', 'name')
  }
  try:
    json.dumps(fields)
  except TypeError:
    raise UsageError(
      f'stage {stage.name!r}: expected fields of {type(module).__name__} that '
      f'JSON can hold, got {fields}'
    ) from None
  return fields


def _tuples(value: Any) -> Any:
  """Turns the lists of JSON into tuples, which Linen modules can hash."""
  if isinstance(value, dict):
    return {k: _tuples(v) for k, v in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _class_name(kind: type) -> str:
  """Returns how a description names a class; see `to_description`."""
  if kind.__module__.startswith(_PACKAGE):
    return kind.__name__
  return f'{kind.__module__}:{kind.__name__}'


def _module(entry: dict[str, Any]) -> nn.Module:
  """Returns the module of one stage of a description."""
  try:
    return _module_class(entry['class'])(**_tuples(entry['fields']))
  except TypeError as error:
    raise UsageError(f'stage {entry["name"]!r}: {error}') from None


def _module_class(class_name: str) -> type[nn.Module]:
  """Returns the class that a description names, without importing anything."""
  module_name, _, name = class_name.rpartition(':')
  modules = [m for n, m in sys.modules.items() if n.startswith(_PACKAGE)]
  if module_name:
    modules = [sys.modules[n] for n in (module_name,) if n in sys.modules]
  for module in modules:
    kind = getattr(module, name, None)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
      return kind
  hint = f'; import {module_name!r} before reading it' if module_name else ''
  raise UsageError(
    f'the network contains the unknown class {class_name!r}{hint}'
  )
