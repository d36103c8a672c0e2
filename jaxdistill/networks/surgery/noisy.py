"""Adds noise after the blocks of a network while it trains."""

from collections.abc import Sequence

from flax import linen as nn
import jax

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, graph


@description.register
class GaussianNoise(nn.Module):
  """Adds noise from N(0, sigma**2) to each value in training.

  Attributes:
    sigma: the standard deviation.
  """

  sigma: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    if not (train and self.has_rng('dropout')):
      return x
    rng = self.make_rng('dropout')
    return x + self.sigma * jax.random.normal(rng, x.shape, x.dtype)


def noisy(
  network: Network, *, sigma: float = 0.1, blocks: Sequence[str] | None = None
) -> Network:
  """Returns a network with noise after its blocks while it trains.

  A network that is trained with noise tolerates larger errors of its blocks
  (Figure 5 of Neighbourhood Distillation), which suits a teacher. The noise has
  no variables, so the trained variables fit the network without noise too.

  Args:
    network: the network.
    sigma: the standard deviation of the noise, at least 0.
    blocks: the stages after which noise is added; None: all stages of the
      groups whose names begin with 'group'.

  Returns:
    The network with a stage '{block}.noise' after each of them.

  Raises:
    UsageError: sigma is negative or not finite, or there is no such stage.
  """
  sigma = checks.number('sigma', sigma, at_least=0)
  names = graph.stage_names(network)
  chosen = [n for n in names if n.startswith('group')]
  if blocks is not None:
    graph.check_stages(network, blocks)
    chosen = list(blocks)
  if not chosen:
    raise UsageError(
      f'blocks: expected some of the stages {", ".join(names)}, got none'
    )
  stages: list[Stage] = []
  for stage in network.stages:
    stages.append(stage)
    if stage.name in chosen:
      stages.append(Stage(f'{stage.name}.noise', GaussianNoise(sigma)))
  return network._replace(stages=tuple(stages))
