"""Initial weights of the stages that a network shares with a trained one."""

from collections.abc import Sequence
import os

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Variables
from jaxdistill.networks import graph
from jaxdistill.networks.initial import Scheme
from jaxdistill.networks.weights import files
from jaxdistill.networks.weights import pretrained as torch_weights

# PyTorch weights are read for images of this height and width.
_SIDE = 224


def pretrained(
  *, path: str, network: Network | None = None, without: Sequence[str] = ()
) -> Scheme:
  """Returns a scheme that takes over the weights of a trained network's stages.

  A stage gets the weights and statistics of the stage of the same name if all
  arrays of both have the same shapes. All other stages, such as a head for
  other classes, keep their new weights.

  Args:
    path: a file of this library, or one of PyTorch tensors.
    network: the network of a file of PyTorch tensors; None: the file is one of
      this library, which describes its network.
    without: the names of stages that keep their new weights in any case, such
      as a head for as many classes, but other ones.

  Returns:
    (rng, variables) -> variables.

  Raises:
    UsageError: there is no such file. Later, when the scheme reads the weights:
      they do not belong to the network, no stage has a counterpart, or a stage
      of `without` does not exist.
  """
  path = os.path.expanduser(path)
  if not os.path.isfile(path):
    raise UsageError(f'initial.path: no file {path!r}')

  def scheme(rng: Array, variables: Variables) -> Variables:
    del rng
    trained = _trained(path, network, variables)
    for stage in without:
      checks.choice('initial.without', stage, variables['params'])
    shared = {
      stage
      for stage, params in variables['params'].items()
      if _shapes(params) == _shapes(trained['params'].get(stage))
    } - {*without}
    if not shared:
      raise UsageError(
        f'initial.path: expected a file with stages of the names and shapes of '
        f"the network's, such as {next(iter(variables['params']))!r}, got "
        f'{", ".join(trained["params"])}'
      )
    chosen = graph.select(trained, shared)
    return graph.merge(variables, jax.tree.map(jnp.asarray, chosen))

  return scheme


def _trained(
  path: str, network: Network | None, variables: Variables
) -> Variables:
  """Returns the variables that a file holds."""
  if network is None:
    try:
      return files.load(path).variables
    except UsageError as error:
      raise UsageError(
        f'{error}; a file of PyTorch tensors needs the section initial.network'
      ) from None
  first = variables['params'].get(network.stages[0].name, {})
  channels = [x.shape[2] for x in jax.tree.leaves(first) if x.ndim == 4]
  shape = (1, _SIDE, _SIDE, channels[0] if channels else 3)
  image = jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call,unused-ignore]
  return torch_weights.load(path, network, {'image': image})


def _shapes(tree: object) -> object:
  return jax.tree.map(lambda x: x.shape, tree)
