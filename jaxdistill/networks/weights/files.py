"""Saves and loads models as safetensors files."""

from collections.abc import Mapping
import json
import os
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import safetensors
import safetensors.flax

from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, PyTree
from jaxdistill.networks import description
from jaxdistill.networks.weights import shapes


def save(
  path: str | os.PathLike,
  model: Model,
  metadata: Mapping[str, Any] | None = None,
) -> None:
  """Writes a model to a safetensors file.

  The file also holds the description of the network, unless the network was
  adopted from functions or an NNX module.

  Args:
    path: the file.
    model: the model.
    metadata: name -> JSON that is stored as well; `load_tree` returns it.
  """
  writing.write(path, to_bytes(model, metadata))


def to_bytes(model: Model, metadata: Mapping[str, Any] | None = None) -> bytes:
  """Returns the content of the file that `save` writes.

  Args:
    model: see `save`.
    metadata: see `save`.
  """
  plain = all(isinstance(s.module, nn.Module) for s in model.network.stages)
  described = (
    {'network': description.to_description(model.network)} if plain else {}
  )
  return _tree_bytes(model.variables, {**(metadata or {}), **described})


def load(path: str | os.PathLike, network: Network | None = None) -> Model:
  """Returns a model that `save` wrote.

  Args:
    path: the file.
    network: the network; needed only if the file does not hold its description.

  Returns:
    (network, variables).

  Raises:
    UsageError: the file is missing, is not a safetensors file, or holds no
      description while `network` is None; its description is not valid, see
      `description.from_description`; or its arrays are not those of the
      network that was passed.
  """
  return load_with_metadata(path, network)[0]


def load_with_metadata(
  path: str | os.PathLike, network: Network | None = None
) -> tuple[Model, dict[str, Any]]:
  """Returns (model, metadata) of a file; see `load`."""
  tree, metadata = load_tree(path)
  if network is None:
    if 'network' not in metadata:
      raise UsageError(
        f'{path}: holds no description of its network; pass the network: '
        'load(path, network)'
      )
    try:
      described = description.from_description(metadata['network'])
    except UsageError as error:
      raise UsageError(f'{path}: {error}') from None
    _check_stages(path, described, tree)
    return Model(described, tree), metadata
  _check_stages(path, network, tree)
  shapes.check(path, network, tree)
  return Model(network, tree), metadata


def stored(
  path: str | os.PathLike, *, num_classes: int | None = None
) -> Network:
  """Returns the network that a file of `save` describes, without weights.

  Args:
    path: the file.
    num_classes: the number of classes of the network, if its last stage is a
      classifier of this library; None: as in the file.

  Raises:
    UsageError: there is no such file, or it holds no description.
  """
  try:
    with safetensors.safe_open(path, framework='np') as file:
      text = (file.metadata() or {}).get('network', 'null')
    network = description.from_description(json.loads(text))
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (safetensors.SafetensorError, ValueError, OSError) as error:
    raise UsageError(
      f'{path}: expected a safetensors file with the description of a network '
      f'({error})'
    ) from None
  *stages, head = network.stages
  if num_classes is not None and hasattr(head.module, 'num_classes'):
    head = head._replace(module=head.module.clone(num_classes=num_classes))
  return network._replace(stages=(*stages, head))


def _check_stages(
  path: str | os.PathLike, network: Network, tree: PyTree
) -> None:
  """Raises UsageError if a file has variables of stages that do not exist."""
  names = [stage.name for stage in network.stages]
  for collection in tree.values():
    for name in collection:
      if name not in names:
        raise UsageError(
          f'{path}: expected variables of the network that was passed, got '
          f'those of a stage {name!r} (its stages: {", ".join(names)})'
        )


def save_tree(
  path: str | os.PathLike, tree: PyTree, metadata: dict[str, Any]
) -> None:
  """Writes nested dicts of arrays with JSON metadata to a file.

  The file is written completely or not at all; see `core.writing.write`.
  """
  writing.write(path, _tree_bytes(tree, metadata))


def _tree_bytes(tree: PyTree, metadata: Mapping[str, Any]) -> bytes:
  flat = traverse_util.flatten_dict(tree, sep='/')
  flat = {k: jax.numpy.asarray(v) for k, v in flat.items()}
  text = {k: json.dumps(v) for k, v in metadata.items()}
  content: bytes = safetensors.flax.save(flat, metadata=text)
  return content


def load_tree(path: str | os.PathLike) -> tuple[PyTree, dict[str, Any]]:
  """Returns what `save_tree` wrote: (nested dicts of arrays, metadata)."""
  try:
    flat = safetensors.flax.load_file(path)
    with safetensors.safe_open(path, framework='np') as file:
      text = file.metadata() or {}
    metadata = {k: json.loads(v) for k, v in text.items()}
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (
    safetensors.SafetensorError,
    ValueError,
    OSError,
    RecursionError,  # JSON that is nested too deeply
  ) as error:
    raise UsageError(f'{path}: expected a safetensors file ({error})') from None
  return traverse_util.unflatten_dict(flat, sep='/'), metadata
