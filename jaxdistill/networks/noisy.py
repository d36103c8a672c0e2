"""Networks with noise behind their blocks while they train."""

from collections.abc import Sequence
import math

from flax import linen as nn
import jax

from jaxdistill.networks import staged
from jaxdistill.types import Array, Network, Stage, UsageError


class GaussianNoise(nn.Module):
  """Adds N(0, sigma**2) to each entry in training, nothing in inference.

  Attributes:
    sigma: the standard deviation.
  """

  sigma: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    if not train:
      return x
    rng = self.make_rng('dropout')
    return x + self.sigma * jax.random.normal(rng, x.shape, x.dtype)


def noisy(
  network: Network, *, sigma: float = 0.1, blocks: Sequence[str] | None = None
) -> Network:
  """A network that learns under noise, such as a teacher that forgives errors.

  Trained so, networks bear larger errors of their blocks (Figure 5 of
  Neighbourhood Distillation). The noise has no variables: what is trained fits
  the network without it.

  Args:
    network: the network.
    sigma: standard deviation of the noise, at least 0.
    blocks: stages behind which it is added; None: all of the groups that are
      named 'group...'.

  Returns:
    The network with a stage '.noise' behind each of them.

  Raises:
    UsageError: sigma is below 0, or there is no such stage.
  """
  if not 0 <= sigma < math.inf:
    raise UsageError(f'sigma: {sigma!r} is no number of at least 0')
  names = staged.stage_names(network)
  chosen = [n for n in names if n.startswith('group')]
  if blocks is not None:
    staged.check_stages(network, blocks)
    chosen = list(blocks)
  if not chosen:
    raise UsageError(f'blocks: none; the stages are {", ".join(names)}')
  stages: list[Stage] = []
  for stage in network.stages:
    stages.append(stage)
    if stage.name in chosen:
      noise = GaussianNoise(float(sigma))
      stages.append(Stage(f'{stage.name}.noise', noise))
  return Network(tuple(stages))
