"""Weights of PyTorch code into our networks, and back.

ResNet, VGG, MobileNetV2 and V3, ShuffleNetV2, EfficientNet, DenseNet-121 and
ViT/DeiT in torchvision's and timm's naming; the networks for small images in
RepDistiller's. Tensors do not say which epsilon their batch norms have; it is
taken to be that of the code which the names are of.
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
      the tensor. Or the batch norms have another epsilon than those of the
      code that the names are of: 1e-5, in torchvision's MobileNetV3 1e-3.
      timm's names are taken for those of its models with 1e-5; its 'tf_'
      variants have the same names, 1e-3 and another padding than ours. Weights
      that do have another epsilon are loaded into a network of the usual one;
      variables serve networks of any.
  """
  tensors = _respelled(path, _read(path))
  shapes = jax.eval_shape(
    lambda rng: staged.init(network, rng, example), jax.random.key(0)
  )
  candidates = _names(network, shapes)
  # The naming that explains most of the file.
  naming = max(
    candidates, key=lambda n: len(tensors.keys() & set(candidates[n].values()))
  )
  names = candidates[naming]
  _check_names(path, set(names.values()), set(tensors))
  flat = dict(jax.tree_util.tree_leaves_with_path(shapes))
  for place, name in names.items():
    expected = _torch_shape(network, name, flat[place].shape)
    if tensors[name].shape != expected:
      raise UsageError(
        f'{path}: tensor {name!r} has shape {tensors[name].shape}; the network '
        f'needs {expected}'
      )
  _check_epsilon(path, network, naming)
  return jax.tree_util.tree_map_with_path(
    lambda place, own: jnp.asarray(
      _from_torch(tensors[names[place]], own.shape), jnp.float32
    ),
    shapes,
  )


def to_torch(model: Model, naming: str = '') -> dict[str, np.ndarray]:
  """PyTorch's tensors of a model, as NumPy arrays.

    module.load_state_dict({k: torch.tensor(v) for k, v in found.items()})

  fills a PyTorch module, which needs the same epsilon in its batch norms;
  `safetensors.numpy.save_file(found, path)` makes a file.

  Args:
    model: the network and its variables.
    naming: 'torchvision', 'timm' or 'repdistiller'; default: the one that the
      architecture is at home in.

  Returns:
    {name: array}.

  Raises:
    UsageError: there is no naming for the network, or not this one, or its
      linear layers are convolutions of a size that the network's maps are not.
  """
  network = model.network
  candidates = _names(network, model.variables)
  if naming and naming not in candidates:
    raise staged.unknown('naming', naming, candidates)
  names = candidates[naming] if naming else next(iter(candidates.values()))
  found = {}
  for place, value in jax.tree_util.tree_leaves_with_path(model.variables):
    name, value = names[place], np.asarray(value)
    shape = _torch_shape(network, name, value.shape)
    found[name] = np.ascontiguousarray(_to_torch(value).reshape(shape))
  return found


def _read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  if not str(path).endswith('.safetensors'):
    return torch_files.read(path)
  try:
    tensors = safetensors.flax.load_file(path)
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (safetensors.SafetensorError, OSError) as error:
    raise UsageError(
      f'{path}: not readable as safetensors ({str(error)!r})'
    ) from None
  return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _respelled(
  path: Any, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Names as today's code spells them; counts of batches are left out."""
  found: dict[str, np.ndarray] = {}
  for spelled, tensor in tensors.items():
    name = spelled
    for old, new in torch_names.RESPELLED:
      name = re.sub(old, new, name)
    if name in found:
      raise UsageError(f'{path}: holds {name!r} twice, also as {spelled!r}')
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


def _check_epsilon(path: Any, network: Network, naming: str) -> None:
  needed = torch_names.epsilon(network, naming)
  for stage in network.stages:
    own = getattr(stage.module, 'epsilon', needed)
    if own != needed:
      raise UsageError(
        f'{path}: {naming} has epsilon {needed} in the batch norms of this '
        f'network, which has {own}; make it with epsilon={needed}'
      )


def _torch_shape(
  network: Network, name: str, shape: tuple[int, ...]
) -> tuple[int, ...]:
  """Shape of the PyTorch tensor for one of ours."""
  if len(shape) == 4:
    height, width, inputs, outputs = shape
    return outputs, inputs, height, width
  if len(shape) != 2:
    return shape
  inputs, outputs = shape
  kernel = torch_names.LINEAR_AS_CONV.get(name.removesuffix('.weight'))
  if kernel is None:
    return outputs, inputs
  channels = inputs // kernel**2
  # After the maps, as many channels as the last block has.
  blocks = [s.module for s in network.stages if '.' in s.name]
  if kernel > 1 and inputs != kernel**2 * blocks[-1].width:
    raise UsageError(
      f'{name!r} is a convolution of {kernel}x{kernel}; before it the network '
      'has maps of another size'
    )
  return outputs, channels, kernel, kernel


def _from_torch(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A tensor in our layout: channels last, kernels `[..., in, out]`."""
  if len(shape) == 4:
    return value.transpose(2, 3, 1, 0)
  if len(shape) == 2:
    # Also linear layers that are stored as convolutions.
    return value.reshape(value.shape[0], -1).T
  return value


def _to_torch(value: np.ndarray) -> np.ndarray:
  """The reverse of `_from_torch`, with linear layers as matrices."""
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  return value.T if value.ndim == 2 else value
