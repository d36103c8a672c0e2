"""Weights of PyTorch code into our networks, and back.

ResNet, VGG, MobileNetV2 and V3, ShuffleNetV2, EfficientNet, DenseNet-121 and
ViT/DeiT in torchvision's and timm's naming; the networks for small images in
RepDistiller's. Weights do not say which epsilon their batch norms have: see
`efficientnet_b0` and `mobilenet_v3_small`.
"""

from collections.abc import Mapping
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax

from jaxdistill.networks import staged, torch_files, torch_names, torch_naming
from jaxdistill.types import Model, Network, UsageError, Variables

# Our parameter -> PyTorch's.
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
  """Variables of a network from a file of PyTorch tensors.

  Args:
    path: '.safetensors', or a file of `torch.save`, of which nothing but
      tensors is read (see `torch_files`).
    network: the architecture that the tensors belong to; the naming follows
      from their names.
    example: {'image': shape and dtype}, of the size that the weights are for.

  Returns:
    {'params': {stage: ...}, 'batch_stats': {stage: ...}} in float32.

  Raises:
    UsageError: a tensor is missing, is too much or has a wrong shape; it names
      the tensor.
  """
  tensors = _respelled(_read(path))
  shapes = jax.eval_shape(
    lambda rng: staged.init(network, rng, example), jax.random.key(0)
  )
  candidates = _names(network, shapes)
  # The naming that explains most of the file.
  names = max(
    candidates.values(), key=lambda n: len(tensors.keys() & set(n.values()))
  )
  _check_names(path, set(names.values()), set(tensors))
  flat = dict(jax.tree_util.tree_leaves_with_path(shapes))
  found = {}
  for place, name in names.items():
    shape = flat[place].shape
    value = _from_torch(tensors[name], shape)
    if value.shape != shape:
      expected = _to_torch(np.zeros(shape), name).shape
      raise UsageError(
        f'{path}: tensor {name!r} has shape {tensors[name].shape}; the network '
        f'needs {expected}'
      )
    found[place] = jnp.asarray(value, jnp.float32)
  return jax.tree_util.tree_map_with_path(lambda place, _: found[place], shapes)


def to_torch(model: Model, naming: str = '') -> dict[str, np.ndarray]:
  """PyTorch's tensors of a model, ready for `load_state_dict`.

  Args:
    model: the network and its variables.
    naming: 'torchvision', 'timm' or 'repdistiller'; default: the one that the
      architecture is at home in.

  Raises:
    UsageError: there is no naming for the network, or not this one.
  """
  candidates = _names(model.network, model.variables)
  if naming and naming not in candidates:
    raise staged.unknown('naming', naming, candidates)
  names = candidates[naming] if naming else next(iter(candidates.values()))
  values = dict(jax.tree_util.tree_leaves_with_path(model.variables))
  return {
    name: np.ascontiguousarray(_to_torch(np.asarray(values[place]), name))
    for place, name in names.items()
  }


def _read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  if not str(path).endswith('.safetensors'):
    return torch_files.read(path)
  try:
    tensors = safetensors.flax.load_file(path)
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (safetensors.SafetensorError, OSError) as error:
    raise UsageError(f'{path}: not readable as safetensors ({error})') from None
  return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _respelled(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Names as today's code spells them; counts of batches are left out."""
  found = {}
  for name, tensor in tensors.items():
    for old, new in torch_names.RESPELLED:
      name = re.sub(old, new, name)
    if not name.endswith('num_batches_tracked'):
      found[name] = tensor
  return found


def _names(network: Network, variables: Any) -> dict[str, dict[Any, str]]:
  """Naming -> {path of a variable: name of its tensor}."""
  places = [p for p, _ in jax.tree_util.tree_leaves_with_path(variables)]
  found = {}
  for naming, names in torch_names.namings(network).items():
    found[naming] = {p: _name(p, names) for p in places}
  if not found:
    raise UsageError(
      'PyTorch names are known for ResNet, wide ResNet, VGG, MobileNetV2 and '
      'V3, ShuffleNet, EfficientNet, DenseNet-121 and ViT; not for this network'
    )
  return found


def _name(place: tuple[Any, ...], names: torch_naming.Names) -> str:
  """Name of a tensor, such as 'layer1.0.conv1.weight'."""
  _, stage, part, *leaf = (key.key for key in place)
  name = names.get(stage, {}).get(part, f'{stage}.{part}')
  if not leaf:
    return name
  # in_proj_weight of attention has no dot.
  return name + ('' if name.endswith('_') else '.') + _LEAVES[leaf[0]]


def _check_names(path: Any, needed: set[str], given: set[str]) -> None:
  for what, names in (
    ('lacks tensor', needed - given),
    ('has the extra tensor', given - needed),
  ):
    if names:
      first, *rest = sorted(names)
      more = f' and {len(rest)} more' if rest else ''
      raise UsageError(f'{path}: {what} {first!r}{more}')


def _from_torch(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A tensor in our layout: channels last, kernels `[..., in, out]`."""
  if len(shape) == 4:
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
  if len(shape) == 2:
    # Also linear layers that are stored as convolutions.
    return value.reshape(value.shape[0], -1).T if value.ndim > 1 else value
  return value


def _to_torch(value: np.ndarray, name: str) -> np.ndarray:
  """The reverse of `_from_torch`."""
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  if value.ndim == 2:
    kernel = torch_names.LINEAR_AS_CONV.get(name.removesuffix('.weight'))
    value = value.T
    if kernel:
      return value.reshape(value.shape[0], -1, kernel, kernel)
  return value
