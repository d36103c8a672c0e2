"""Initial weights of the stages that a network shares with a trained one."""

from collections.abc import Sequence
import dataclasses
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
# The largest number of stages that a line names.
_MOST_STAGES = 6


def pretrained(
  *, path: str, network: Network | None = None, without: Sequence[str] = ()
) -> Scheme:
  """Returns a scheme that takes over the weights of a trained network's stages.

  A stage gets the weights and statistics of the stage of the same name if all
  arrays of both have the same shapes. All other stages, such as a head for
  other classes, keep their new weights; a line says which before training.

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

  return Pretrained(path, network, tuple(without))


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A scheme that takes over the weights of a trained network's stages.

  Attributes:
    path: see `pretrained`, like the others.
    network: the network of a file of PyTorch tensors.
    without: the names of stages that keep their new weights.
  """

  path: str
  network: Network | None
  without: tuple[str, ...]

  def __call__(self, rng: Array, variables: Variables) -> Variables:
    """Returns the variables with those of the shared stages replaced."""
    del rng
    trained = _trained(self.path, self.network, variables)
    chosen = graph.select(trained, self._shared(trained, variables))
    return graph.merge(variables, jax.tree.map(jnp.asarray, chosen))

  def note(self, variables: Variables) -> str:
    """Says in one line which stages keep their new weights.

    Args:
      variables: those of the network, or their shapes.

    Raises:
      UsageError: see `pretrained`.
    """
    new, count = self.new_stages(variables), len(variables['params'])
    more = f' and {len(new) - _MOST_STAGES} others'
    names = ', '.join(new[:_MOST_STAGES]) + more * (len(new) > _MOST_STAGES)
    kept = f'; these are new: {names}' if new else ''
    return (
      f'{count - len(new)} of {count} stages begin with the weights of '
      f'{self.path}{kept}'
    )

  def new_stages(self, variables: Variables) -> list[str]:
    """Returns the names of the stages that keep their new weights.

    Args:
      variables: those of the network, or their shapes.

    Raises:
      UsageError: see `pretrained`.
    """
    trained = _trained(self.path, self.network, variables)
    shared = self._shared(trained, variables)
    return [stage for stage in variables['params'] if stage not in shared]

  def _shared(self, trained: Variables, variables: Variables) -> set[str]:
    """Returns the names of the stages whose weights are taken over."""
    for stage in self.without:
      checks.choice('initial.without', stage, variables['params'])
    shared = {
      stage
      for stage, params in variables['params'].items()
      if _shapes(params) == _shapes(trained['params'].get(stage))
    } - {*self.without}
    if not shared:
      raise UsageError(
        f'initial.path: expected a file with stages of the names and shapes of '
        f"the network's, such as {next(iter(variables['params']))!r}, got "
        f'{", ".join(trained["params"])}'
      )
    return shared


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
