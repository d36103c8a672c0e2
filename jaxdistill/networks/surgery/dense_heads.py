"""Networks with a class for each pixel, made from classifiers of images."""

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, graph, layers


@description.register
class FcnHead(nn.Module):
  """3x3 convolution, batch norm and ReLU, then a 1x1 convolution in float32.

  Attributes:
    num_classes: channels of the output.
    width: channels between the convolutions; 0: a quarter of the input's.
    dropout: the rate of the dropout before the last convolution.
  """

  num_classes: int
  width: int = 0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    width = self.width or max(1, x.shape[-1] // 4)
    x = layers.conv(width, dtype=x.dtype, name='conv')(x)
    x = nn.relu(layers.batch_norm(train, dtype=x.dtype, name='norm')(x))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return layers.conv(self.num_classes, 1, use_bias=True, name='logits')(
      x.astype(jnp.float32)
    )


def fcn(
  network: Network,
  *,
  num_classes: int,
  width: int = 0,
  dropout: float = 0.1,
  auxiliary: bool = False,
) -> Network:
  """Returns a network for segmentation: a head on the last map of a classifier.

  The logits `[B, h, w, num_classes]` have the resolution of that map, which is
  high enough if the classifier has dilations in place of strides.

  Args:
    network: a classifier that pools its last map. Everything from the pooling
      on is dropped.
    num_classes: the number of classes; 1 for a map of depths.
    width: channels inside the head; 0: a quarter of those of the map.
    dropout: the rate of the dropout in the head.
    auxiliary: whether a second head, 'aux', reads the group before the last
      one; see `tasks.segmentation`.

  Returns:
    A network with the stage 'head' after the groups of `network`.

  Raises:
    UsageError: the network does not pool its last map, or a number is out of
      its range.

  References:
    Long et al., Fully Convolutional Networks for Semantic Segmentation, 2014,
    https://arxiv.org/abs/1411.4038
  """
  checks.integer('num_classes', num_classes)
  checks.integer('width', width, at_least=0)
  checks.number('dropout', dropout, at_least=0, below=1)
  is_pool = [isinstance(s.module, layers.Pool) for s in network.stages]
  maps = Network(network.stages[: (*is_pool, True).index(True)])
  groups = list(graph.groups(maps))
  if not any(is_pool) or len(groups) < 2:
    raise UsageError(
      'network: expected a classifier with groups of maps and a stage that '
      f'pools the last one, got {", ".join(graph.stage_names(network))}'
    )
  head = FcnHead(num_classes, width, dropout)
  if not auxiliary:
    return Network((*maps.stages, Stage('head', head)), ('head',))
  aux = Stage('aux', head, (groups[-2],))
  last = Stage('head', head, (groups[-1],))
  return Network((*maps.stages, aux, last), ('head', 'aux'))
