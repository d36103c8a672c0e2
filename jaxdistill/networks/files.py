"""Networks as JSON specs, and models as safetensors files that hold theirs."""

from collections.abc import Mapping
import json
import os
import pathlib
import sys
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import numpy as np
import safetensors
import safetensors.flax

from jaxdistill.types import Model, Network, PyTree, Stage, UsageError


def to_spec(network: Network) -> list[dict[str, Any]]:
  """The network as JSON: each stage's class and fields.

  Raises:
    UsageError: a stage is no Linen module with plain fields.
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


def from_spec(spec: list[dict[str, Any]]) -> Network:
  """The network of a spec.

  Raises:
    UsageError: a class is not there, or lacks a field. A file never makes a
      module be imported: classes outside jaxdistill must have been imported
      before.
  """
  return Network(
    tuple(
      Stage(entry['name'], _module(entry), tuple(entry['inputs']))
      for entry in spec
    )
  )


def save(
  path: str | os.PathLike,
  model: Model,
  metadata: Mapping[str, Any] | None = None,
) -> None:
  """Writes a model to a safetensors file.

  The file holds the network's spec too, unless the network is made of
  functions.

  Args:
    path: the file.
    model: the model.
    metadata: what else is to stand in the file, name -> JSON; `load_tree` gives
      it back.
  """
  plain = all(isinstance(s.module, nn.Module) for s in model.network.stages)
  spec = {'network': to_spec(model.network)} if plain else {}
  save_tree(path, model.variables, {**(metadata or {}), **spec})


def load(path: str | os.PathLike, network: Network | None = None) -> Model:
  """Reads a model that `save` wrote.

  Args:
    path: the file.
    network: the network, where the file does not hold its spec.

  Returns:
    (network, variables).

  Raises:
    UsageError: the file is missing, no safetensors, or holds no network.
  """
  tree, metadata = load_tree(path)
  if network is None:
    if 'network' not in metadata:
      raise UsageError(
        f'{path}: does not say what network its variables are of; pass it: '
        'load(path, network)'
      )
    network = from_spec(metadata['network'])
  return Model(network, tree)


def save_tree(
  path: str | os.PathLike, tree: PyTree, metadata: dict[str, Any]
) -> None:
  """Writes nested dicts of arrays, atomically, with JSON metadata beside."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  flat = traverse_util.flatten_dict(tree, sep='/')
  flat = {k: jax.numpy.asarray(v) for k, v in flat.items()}
  partial = path.with_name(path.name + '.partial')
  text = {k: json.dumps(v) for k, v in metadata.items()}
  partial.write_bytes(safetensors.flax.save(flat, metadata=text))
  os.replace(partial, path)


def load_tree(path: str | os.PathLike) -> tuple[PyTree, dict[str, Any]]:
  """Reads what `save_tree` wrote: (nested dicts of arrays, metadata)."""
  try:
    flat = safetensors.flax.load_file(path)
    with safetensors.safe_open(path, framework='np') as file:
      text = file.metadata() or {}
    metadata = {k: json.loads(v) for k, v in text.items()}
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (safetensors.SafetensorError, ValueError, OSError) as error:
    raise UsageError(f'{path}: not readable as safetensors ({error})') from None
  return traverse_util.unflatten_dict(flat, sep='/'), metadata


def count_parameters(tree: PyTree) -> int:
  """Number of values in {'params': ...}; batch statistics do not count."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree['params']))


def count_nonzero(tree: PyTree) -> int:
  """Those of `count_parameters` that are not zero."""
  return sum(int(np.count_nonzero(x)) for x in jax.tree.leaves(tree['params']))


def _fields(stage: Stage) -> dict[str, Any]:
  module = stage.module
  if not isinstance(module, nn.Module):
    raise UsageError(
      f'stage {stage.name!r} is made of functions: its network has no spec'
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
      f'stage {stage.name!r}: the fields of {type(module).__name__} are not '
      f'plain values: {fields}'
    ) from None
  return fields


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples that Linen modules want."""
  if isinstance(value, dict):
    return {k: _tuples(v) for k, v in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _class_name(module: type) -> str:
  """The class's name, behind its file's name unless it is the library's.

  So a class may move from file to file without harm to what was saved.
  """
  if module.__module__.startswith(_PACKAGE):
    return module.__name__
  return f'{module.__module__}:{module.__name__}'


def _module(entry: dict[str, Any]) -> nn.Module:
  """The module of one stage of a spec."""
  try:
    return _module_class(entry['class'])(**_tuples(entry['fields']))
  except TypeError as error:
    raise UsageError(f'stage {entry["name"]!r}: {error}') from None


def _module_class(path: str) -> type[nn.Module]:
  """The class of such a name; nothing is imported for it."""
  file, _, name = path.rpartition(':')
  modules = [m for n, m in sys.modules.items() if n.startswith(_PACKAGE)]
  if file:
    modules = [sys.modules[file]] if file in sys.modules else []
  for module in modules:
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, nn.Module):
      return found
  hint = f'; import {file!r} before reading it' if file else ''
  raise UsageError(f'the network is made of {path!r}, which is not there{hint}')


_PACKAGE = 'jaxdistill.'
