"""A classifier by the angles between a vector and one vector for each class."""

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import numerics
from jaxdistill.networks import description
from jaxdistill.networks.layers import basic


@description.register
class CosineClassifier(nn.Module):
  """Scaled cosines `[B, C]` -> logits `[B, num_classes]`, in float32.

  The logit of a class is `scale` times the cosine of the input and the weights
  of the class. The feature '.scale', `[B, 1]`, is this factor.

  Attributes:
    num_classes: the number of classes.
    scale: the factor.
  """

  num_classes: int
  scale: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    x = x.astype(jnp.float32)
    shape = (x.shape[-1], self.num_classes)
    kernel = self.param('kernel', basic.torch_uniform(x.shape[-1]), shape)
    cosines = numerics.contract(
      'bc,cn->bn',
      numerics.normalize(x),
      numerics.normalize(kernel, axis=0),
    )
    return {
      '': self.scale * cosines,
      '.scale': jnp.full_like(x[:, :1], self.scale),
    }


# Modules that end a classifier; the last axis of their variables is that of the
# classes.
CLASSIFIERS = (basic.Classifier, CosineClassifier)
