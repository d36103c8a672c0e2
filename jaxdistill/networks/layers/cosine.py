"""A classifier that compares the direction of a vector with one per class."""

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.losses import numerics
from jaxdistill.networks import description
from jaxdistill.networks.layers import basic


@description.register
class CosineClassifier(nn.Module):
  """Vectors `[B, C]` -> scaled cosines `[B, num_classes]`, in float32.

  The logit of a class is `scale` times the cosine of the input and the weights
  of the class. The feature '.scale', `[B, 1]`, is `scale` for each image.

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


# The modules that can end a classifier. The last axis of their variables is
# that of the classes.
CLASSIFIERS = (basic.Classifier, CosineClassifier)
