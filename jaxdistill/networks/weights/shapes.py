"""Checks that the variables of a file fit a network."""

import itertools
import os
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, PyTree
from jaxdistill.networks import graph

# Heights and widths of images with which networks are tried.
_SIZES = (32, 64, 224, 8)


def check(path: str | os.PathLike, network: Network, tree: PyTree) -> None:
  """Checks the shapes of all variables that do not depend on the image size.

  Nothing is checked if the network cannot be tried without its images.

  Args:
    path: the file, for the message.
    network: the network.
    tree: the variables of the file, {collection: {stage: ...}}.

  Raises:
    UsageError: an array is missing, superfluous or of another shape.
  """
  actual = _by_name(tree)
  possible = filter(None, (_shapes(network, tree, size) for size in _SIZES))
  tried = list(itertools.islice(possible, 2))
  if len(tried) < 2:
    return
  for name in [*tried[0], *actual]:
    expected = {shapes.get(name) for shapes in tried}
    if actual.get(name) not in expected and len(expected) == 1:
      raise UsageError(
        f'{path}: {name}: expected {expected.pop() or "no such array"} for the '
        f'network that was passed, got {actual.get(name) or "no such array"}'
      )


def _by_name(variables: Any) -> dict[str, tuple[int, ...]]:
  """Returns {'params/stem/...': shape}, parameters first, stage by stage."""
  flat = traverse_util.flatten_dict(variables, sep='/')
  names = sorted(flat, key=lambda name: not name.startswith('params/'))
  return {name: tuple(flat[name].shape) for name in names}


def _shapes(
  network: Network, tree: PyTree, size: int
) -> dict[str, tuple[int, ...]]:
  """Returns the shapes for images of a size; {} if the network refuses it."""
  stem = tree.get('params', {}).get(network.stages[0].name, {})
  kernels = [x.shape for x in jax.tree.leaves(stem) if x.ndim == 4]
  channels = kernels[0][2] if kernels else 3
  image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  try:
    return _by_name(graph.variable_shapes(network, {'image': image}))
  except Exception:  # whatever a user's module raises for another size
    return {}
