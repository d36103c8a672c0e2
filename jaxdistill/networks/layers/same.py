"""Convolutions padded as in TensorFlow."""

import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.networks.layers import convolutions


class SameConv(convolutions.Conv):
  """A convolution with TensorFlow's padding 'SAME', of stride 1 or 2.

  With a stride of 2, the windows are centred at the odd places of a map of even
  size, and not at the even ones.
  """

  def __call__(self, x: Array) -> Array:
    if self.stride == 1:
      return super().__call__(x)
    shifts = [1 - size % 2 for size in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *((shift, 0) for shift in shifts), (0, 0)))
    rows, columns = shifts
    return super().__call__(x)[:, rows:, columns:]
