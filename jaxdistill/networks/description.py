"""Describes networks as JSON, and rebuilds them from their descriptions."""

from collections.abc import Iterable, Mapping
import json
import math
import reprlib
import types
import typing
from typing import Any, TypeVar

from flax import linen as nn

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Affine, Network, Stage

_Kind = TypeVar('_Kind', bound=type[nn.Module])
_PACKAGE = 'jaxdistill.'
# Name in descriptions -> the class; a description may name no other.
MODULES: dict[str, type[nn.Module]] = {}


def register(kind: _Kind) -> _Kind:
  """Allows descriptions to name a class of Linen modules; returns the class.

  Files of models hold descriptions, and may come from anywhere. So only the
  library's own classes, and those that you register, are built from them. You
  can use it as a decorator:

    @jd.networks.register
    class MyBlock(nn.Module):
      ...

  Args:
    kind: the class.

  Raises:
    UsageError: it is not a class of Linen modules.
  """
  if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
    raise UsageError(f'register: expected a class of Linen modules, got {kind}')
  MODULES[_class_name(kind)] = kind
  return kind


def to_description(network: Network) -> list[dict[str, Any]] | dict[str, Any]:
  """Returns a network as JSON: the class and the fields of each stage.

  It is the list of the stages, or a dict with 'stages' and 'outputs' if the
  network names its outputs.

  Args:
    network: the network. A class of the library is described by its name only,
      so that files stay valid when it moves to another module. Any other class
      is described as 'module:Name'.

  Raises:
    UsageError: a stage is not a Linen module, or has fields that JSON cannot
      hold.
  """
  stages = [
    {
      'name': stage.name,
      'inputs': list(stage.inputs),
      'class': _class_name(type(stage.module)),
      'fields': _fields(stage),
      **({'image': stage.image._asdict()} if stage.image else {}),
      **({'optional': list(stage.optional)} if stage.optional else {}),
    }
    for stage in network.stages
  ]
  if not network.outputs:
    return stages
  return {'stages': stages, 'outputs': list(network.outputs)}


def from_description(
  description: list[dict[str, Any]] | dict[str, Any],
  classes: Iterable[type[nn.Module]] = (),
) -> Network:
  """Returns the network that `to_description` described.

  A description may come from a file of unknown origin. It never makes Python
  import or call anything but classes of modules that are known to be harmless.

  Args:
    description: what `to_description` returned.
    classes: the classes that it may name besides the library's own and those
      that were registered; see `register`.

  Raises:
    UsageError: it has another form, or names a class or a field that it may
      not, or the value of a field has another type.
  """
  linen = [kind for kind in classes if issubclass(kind, nn.Module)]
  known = {**MODULES, **{_class_name(kind): kind for kind in linen}}
  stages: Any = description
  outputs: Any = ()
  if isinstance(description, dict):
    stages, outputs = (description.get(k) for k in ('stages', 'outputs'))
  if not isinstance(stages, list):
    raise UsageError('network: expected the description of its stages')
  outputs = _tuples(outputs)
  if not _fits(outputs, tuple[str, ...]):
    raise UsageError(
      f'network: expected the names of its outputs, got {outputs!r}'
    )
  return Network(tuple(_stage(entry, known) for entry in stages), outputs)


def _stage(entry: Any, known: Mapping[str, type[nn.Module]]) -> Stage:
  """Returns one stage of a description."""
  try:
    name, inputs, image = entry['name'], entry['inputs'], entry.get('image')
    affine = image and Affine(**{k: _tuples(v) for k, v in image.items()})
    # A string stays one, and is refused below instead of being split.
    inputs, optional = _tuples(inputs), _tuples(entry.get('optional', ()))
    module = _module(entry, known)
    stage = Stage(name, module, inputs, affine, optional)
  except (AttributeError, KeyError, TypeError) as error:
    raise UsageError(
      f'network: expected the description of a stage ({error}), got '
      f'{reprlib.repr(entry)}'
    ) from None
  for field, value in stage._asdict().items():
    if field != 'module' and not _fits(value, Stage.__annotations__[field]):
      raise UsageError(f'network: {value!r} is not valid as {field} of a stage')
  return stage


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


def _module(
  entry: dict[str, Any], known: Mapping[str, type[nn.Module]]
) -> nn.Module:
  """Returns the module of one stage of a description.

  Raises:
    UsageError: its class is unknown, or a field is not valid.
  """
  name, fields = entry['class'], _tuples(entry['fields'])
  kind = known.get(name) if isinstance(name, str) else None
  if kind is None:
    raise UsageError(
      f'the network contains the unknown class {name!r}; a file may name the '
      "library's own classes and those passed to jd.networks.register"
    )
  where = f'stage {entry["name"]!r}: {kind.__name__}'
  valid = {
    key: field.type
    for key, field in kind.__dataclass_fields__.items()
    if key not in ('parent', 'name')
  }
  for key, value in fields.items():
    if key not in valid:
      raise UsageError(f'{where} has no field {key!r}')
    if not _fits(value, valid[key]):
      raise UsageError(f'{where}: {value!r} is not valid as {key!r}')
  try:
    return kind(**fields)
  except (TypeError, ValueError) as error:
    raise UsageError(f'{where}: {error}') from None


def _fits(value: Any, kind: Any) -> bool:
  """Returns whether a value of JSON is of an annotated type.

  Types other than numbers, strings, tuples and unions of them accept any value.
  """
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, member) for member in arguments)
  if origin is tuple:
    if Ellipsis in arguments:
      arguments = arguments[:1] * len(value) if _is_tuple(value) else ()
    return (
      _is_tuple(value)
      and len(value) == len(arguments)
      and all(map(_fits, value, arguments))
    )
  if kind is float:
    is_number = type(value) in (int, float)
    return is_number and math.isfinite(value)
  if kind is Affine:
    return isinstance(value, Affine) and all(
      _fits(numbers, tuple[float, ...]) for numbers in value
    )
  if kind in (bool, int, str, types.NoneType):
    return type(value) is kind
  return True


def _is_tuple(value: Any) -> bool:
  return isinstance(value, tuple)
