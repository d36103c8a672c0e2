"""Batch normalisation as one scale and one shift, which is fast on a CPU."""

from typing import Any

from flax import linen as nn
from jax import lax
import jax.numpy as jnp

from jaxdistill.core.types import Array


class ScaleShift(nn.Module):
  """A batch norm that computes x * a + b with one a and b for each channel.

  Its parameters and statistics are those of `nn.BatchNorm`. XLA reads the map
  fewer times to compute it and its gradient. The variance is that of x minus
  the running mean, in one pass. It is exact even if the mean of a channel is
  much larger than its spread, once the running mean has come near the mean.

  Attributes:
    use_running_average: whether it normalises with the running statistics
      instead of those of the batch.
    epsilon: what is added to the variance.
    momentum: the momentum of the running statistics.
    scale_init: the initialiser of the scale; the bias starts at zero.
    dtype: the type of the result; statistics and factors stay in float32.
  """

  use_running_average: bool
  epsilon: float
  momentum: float
  scale_init: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape, axes = (x.shape[-1],), tuple(range(x.ndim - 1))
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', self.scale_init, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
    mean, var = running_mean.value, running_var.value
    if not self.use_running_average:
      centred = x - jnp.expand_dims(mean, axes)
      shift = centred.mean(axes)
      var = jnp.maximum((centred * centred).mean(axes) - shift * shift, 0)
      mean += shift
      if not self.is_initializing():
        for running, value in ((running_mean, mean), (running_var, var)):
          kept = self.momentum * running.value
          running.value = kept + (1 - self.momentum) * value
    a = scale * lax.rsqrt(var + self.epsilon)
    b = bias - mean * a
    y = x * jnp.expand_dims(a, axes) + jnp.expand_dims(b, axes)
    return y.astype(self.dtype)
