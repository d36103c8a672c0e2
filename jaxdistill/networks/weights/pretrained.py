"""Reads weights of PyTorch code into networks, and writes them back.

The tensors may have the names of torchvision or timm (ResNet, VGG, MobileNetV2
and V3, ShuffleNetV2, EfficientNet, DenseNet-121, ConvNeXt and ViT), those of
Hugging Face (ViT, DINOv2, DINOv3, CLIP, SigLIP and ConvNeXt), those of
efficientnet_pytorch (EfficientNet-Lite), or those of RepDistiller (networks for
small images). A file does not say which epsilon its
batch norms have; it is assumed to be that of the code from which the names
come.
"""

from collections.abc import Mapping
import itertools
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Variables
from jaxdistill.networks import graph
from jaxdistill.networks.weights import torch_files, torch_names, torch_naming

# Name of a parameter in Flax -> its name in PyTorch.
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}


def load(
  path: str | os.PathLike, network: Network, example: Mapping[str, Any]
) -> Variables:
  """Returns the variables of a network from a file of PyTorch tensors.

  Args:
    path: a '.safetensors' file, or one that `torch.save` wrote, of which only
      tensors are read (see `torch_files`).
    network: the architecture that the tensors belong to. Which naming they
      follow is recognised from their names.
    example: {'image': shape and dtype}, of the size of images for which the
      weights are made.

  Returns:
    {'params': {stage: ...}, 'batch_stats': {stage: ...}} in float32.

  Raises:
    UsageError: a tensor is missing, superfluous or of another shape; the
      message names it. Or the batch norms of `network` have another epsilon
      than those of the code from which the names come, which is 1e-3 in
      torchvision's MobileNetV3 and in EfficientNet-Lite, and 1e-5 everywhere
      else. timm's names are assumed to be those of its models with 1e-5; its
      'tf_' variants, except EfficientNet-Lite, have the same names, but 1e-3
      and a different padding. If the weights do belong to another epsilon, load
      them into a network with the usual one: the variables fit networks of any
      epsilon.
  """
  tensors = _respelled(path, _without_prefix(_read(path)))
  shapes = graph.variable_shapes(network, example)
  candidates = _names(network, shapes)
  # The naming that has most names in common with the file.
  naming = max(
    candidates,
    key=lambda n: len(
      tensors.keys() & {*itertools.chain(*candidates[n].values())}
    ),
  )
  names = candidates[naming]
  flat = dict(jax.tree_util.tree_leaves_with_path(shapes))
  expected = {
    name: shape
    for place, parts in names.items()
    for name, shape in _torch_shapes(network, parts, flat[place].shape).items()
  }
  _check_shapes(path, expected, {k: v.shape for k, v in tensors.items()})
  _check_epsilon(path, network, naming)

  def variable(place: tuple[Any, ...], leaf: Any) -> jax.Array:
    parts = [tensors[name] for name in names[place]]
    value = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return jnp.asarray(_from_torch(value, leaf.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(variable, shapes)


def num_outputs(
  path: str | os.PathLike, network: Network, example: Mapping[str, Any]
) -> int:
  """Returns how many outputs the weights of a file are for.

  Args:
    path: see `load`.
    network: the architecture, with any number of classes.
    example: see `load`.

  Raises:
    UsageError: the file has no bias of the network's last stage.
  """
  tensors = _respelled(path, _without_prefix(_read(path)))
  shapes = graph.variable_shapes(network, example)
  head = network.stages[-1].name
  names = {
    name
    for naming in _names(network, shapes).values()
    for place, parts in naming.items()
    for name in parts
    if place[1].key == head and place[-1].key == 'bias'
  }
  present = sorted(names & tensors.keys())
  if not present:
    raise UsageError(
      f'{path}: lacks tensor {min(names, default="bias")!r} of the stage '
      f'{head!r}, so that it does not say how many outputs it has; is it the '
      'file of another network?'
    )
  return len(tensors[present[0]])


def to_torch(model: Model, naming: str = '') -> dict[str, np.ndarray]:
  """Returns the tensors of a model for PyTorch, as NumPy arrays.

    module.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})

  loads them into a PyTorch module, which needs the same epsilon in its batch
  norms, and `safetensors.numpy.save_file(tensors, path)` writes a file.

  Args:
    model: the network and its variables.
    naming: 'torchvision', 'timm', 'huggingface', 'huggingface_dinov3',
      'efficientnet_pytorch', 'csail' or 'repdistiller'; '' chooses the one from
      which the architecture comes.

  Returns:
    {name: array}.

  Raises:
    UsageError: the network has no naming, or not this one; or the naming stores
      a linear layer as a convolution whose size differs from that of the
      network's maps.
  """
  network = model.network
  candidates = _names(network, model.variables)
  naming = naming or next(iter(candidates))
  names = candidates[checks.choice('naming', naming, candidates)]
  tensors = {}
  for place, value in jax.tree_util.tree_leaves_with_path(model.variables):
    parts = _torch_shapes(network, names[place], value.shape)
    values = np.split(_to_torch(np.asarray(value)), len(parts))
    for (name, shape), part in zip(parts.items(), values):
      tensors[name] = np.ascontiguousarray(part.reshape(shape))
  return tensors


def _read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  if not str(path).endswith('.safetensors'):
    return torch_files.read(path)
  try:
    tensors = safetensors.flax.load_file(path)
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (safetensors.SafetensorError, OSError) as error:
    raise UsageError(
      f'{path}: expected a safetensors file ({str(error)!r})'
    ) from None
  return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _without_prefix(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Returns the tensors without the dotted prefix that all names share.

  Wrappers add such prefixes: 'module.', '_orig_mod.', 'model.', 'backbone.'.
  Tensors that are no part of the network are left out.
  """
  tensors = {
    k: v for k, v in tensors.items() if not torch_names.IGNORED.search(k)
  }
  paths = [name.split('.') for name in tensors]
  depth = 0
  while len({tuple(path[: depth + 1]) for path in paths}) == 1 and all(
    len(path) > depth + 1 for path in paths
  ):
    depth += 1
  return {
    '.'.join(path[depth:]): tensor
    for path, tensor in zip(paths, tensors.values())
  }


def _respelled(
  path: Any, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns the tensors under today's names."""
  respelled: dict[str, np.ndarray] = {}
  for spelled, tensor in tensors.items():
    name = spelled
    for old, new in torch_names.RESPELLED:
      name = re.sub(old, new, name)
    if name in respelled:
      raise UsageError(f'{path}: holds {name!r} twice, also as {spelled!r}')
    respelled[name] = tensor
  return respelled


def _names(
  network: Network, variables: Any
) -> dict[str, dict[Any, tuple[str, ...]]]:
  """Returns naming -> {path of a variable: names of its tensors}."""
  places = [p for p, _ in jax.tree_util.tree_leaves_with_path(variables)]
  namings = {
    naming: {p: _tensor_names(p, names) for p in places}
    for naming, names in torch_names.namings(network).items()
  }
  if not namings:
    raise UsageError(
      'network: expected a ResNet, wide ResNet, VGG, MobileNetV2 or V3, '
      'ShuffleNet, EfficientNet, DenseNet-121, ConvNeXt or ViT, whose PyTorch '
      'names are known'
    )
  return namings


def _tensor_names(
  place: tuple[Any, ...], names: torch_naming.Names
) -> tuple[str, ...]:
  """Returns the names of a variable's tensors: ('layer1.0.conv1.weight',)."""
  _, stage, part, *leaf = (key.key for key in place)
  name = names.get(stage, {}).get(part, f'{stage}.{part}')
  parts = name if isinstance(name, tuple) else (name,)
  if not leaf:
    return parts
  # in_proj_weight of attention has no dot.
  return tuple(
    part + ('' if part.endswith('_') else '.') + _LEAVES[leaf[0]]
    for part in parts
  )


def _check_shapes(
  path: Any,
  expected: Mapping[str, tuple[int, ...]],
  received: Mapping[str, tuple[int, ...]],
) -> None:
  """Raises a UsageError if tensors are missing, superfluous or misshapen.

  Args:
    path: the file.
    expected: name -> shape of the network's tensors.
    received: name -> shape of the file's tensors.
  """
  faults = []
  for fault, shapes, others in (
    ('lacks tensor', expected, received),
    ('has the extra tensor', received, expected),
  ):
    names = sorted(shapes.keys() - others.keys())
    if names:
      more = f' and {len(names) - 1} more' if len(names) > 1 else ''
      faults.append(f'{fault} {names[0]!r} of shape {shapes[names[0]]}{more}')
  if faults:
    raise UsageError(f'{path}: {", and ".join(faults)}')
  for name, shape in expected.items():
    if received[name] != shape:
      raise UsageError(
        f'{path}: expected shape {shape} for tensor {name!r}, got '
        f'{received[name]}'
      )


def _check_epsilon(path: Any, network: Network, naming: str) -> None:
  """Raises a UsageError if the network's epsilon is not that of the naming."""
  expected = torch_names.epsilon(network, naming)
  for stage in network.stages:
    # Modules with a momentum have batch norms; others may have layer norms.
    has_batch_norms = hasattr(stage.module, 'momentum')
    epsilon = stage.module.epsilon if has_batch_norms else expected
    if epsilon != expected:
      raise UsageError(
        f'{path}: expected epsilon {expected} in the batch norms, as in '
        f'{naming}, got {epsilon}; make the network with epsilon={expected}'
      )


def _torch_shapes(
  network: Network, names: tuple[str, ...], shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
  """Returns name -> shape of the PyTorch tensors of a variable."""
  first, *others = _torch_shape(network, names[0], shape)
  return {name: (first // len(names), *others) for name in names}


def _torch_shape(
  network: Network, name: str, shape: tuple[int, ...]
) -> tuple[int, ...]:
  """Returns the shape of the PyTorch tensor of a variable."""
  if len(shape) == 4:
    height, width, inputs, outputs = shape
    return outputs, inputs, height, width
  for end, torch_shape in torch_names.SHAPES.items():
    if name.endswith(end):
      return torch_shape(shape)
  if len(shape) != 2:
    return shape
  inputs, outputs = shape
  kernel = torch_names.LINEAR_AS_CONV.get(name.removesuffix('.weight'))
  if kernel is None:
    return outputs, inputs
  channels = inputs // kernel**2
  # A linear layer after the maps reads the channels of the last block.
  blocks = [s.module for s in network.stages if '.' in s.name]
  if kernel > 1 and inputs != kernel**2 * blocks[-1].width:
    raise UsageError(
      f'{name!r} is a convolution of {kernel}x{kernel}, but the maps before it '
      'have another size'
    )
  return outputs, channels, kernel, kernel


def _from_torch(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a tensor in Flax's layout: kernels are `[..., in, out]`."""
  if len(shape) == 4:
    return value.transpose(2, 3, 1, 0)
  if len(shape) == 2:
    # This includes linear layers that are stored as convolutions.
    return value.reshape(value.shape[0], -1).T
  return value.reshape(shape)


def _to_torch(value: np.ndarray) -> np.ndarray:
  """Reverses `_from_torch`, with linear layers as matrices."""
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  return value.T if value.ndim == 2 else value
