"""Networks that resize their images first."""

from flax import linen as nn
import jax

from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description


@description.register
class Resize(nn.Module):
  """Resizes images to a square, `[B, H, W, C]` -> `[B, size, size, C]`.

  The interpolation is bilinear, and blurs before it shrinks.

  Attributes:
    size: the new height and width.
  """

  size: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    shape = (len(x), self.size, self.size, x.shape[-1])
    return jax.image.resize(x, shape, 'bilinear')


def resized(network: Network, size: int) -> Network:
  """Returns a network that resizes its images before anything else.

  Args:
    network: the network, of which no stage is called 'resize'.
    size: the height and width to which images are resized.

  Returns:
    The network with a first stage 'resize', which has no variables.
  """
  stages = [
    stage._replace(
      inputs=tuple('resize' if n == 'image' else n for n in stage.inputs),
      image=None,
    )
    for stage in network.stages
  ]
  # What is done to images is the same in all stages that read them.
  first = Stage('resize', Resize(size), image=network.stages[0].image)
  return network._replace(stages=(first, *stages))
