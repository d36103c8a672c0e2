"""How many weights become zero, and which: pure functions of arrays.

Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for
model compression, 2017, https://arxiv.org/abs/1710.01878; Han et al., Learning
both Weights and Connections for Efficient Neural Networks, 2015,
https://arxiv.org/abs/1506.02626
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.types import Array


def cubic_sparsity(
  step: Array | int, *, final: float, steps: int, initial: float = 0.0
) -> Array:
  """Returns the fraction of zeros after some steps of gradual pruning.

    final + (initial - final) * (1 - min(step / steps, 1))**3

  Args:
    step: the number of steps taken, from 0.
    final: the fraction from step `steps` on, in [0, 1).
    steps: the number of steps over which it rises, at least 1.
    initial: the fraction at step 0, in [0, 1).

  Returns:
    A float32 array of the shape of `step`.

  Raises:
    UsageError: an argument is out of its range.

  References:
    Zhu and Gupta, To prune, or not to prune, 2017,
    https://arxiv.org/abs/1710.01878, equation 1.
  """
  checks.number('final', final, at_least=0, below=1)
  checks.number('initial', initial, at_least=0, below=1)
  steps = checks.integer('steps', steps)
  left = 1 - jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0, 1)
  return final + (initial - final) * left**3


def magnitude_mask(kernel: Array, sparsity: Array | float) -> Array:
  """Returns a mask that is False at the smallest magnitudes of a kernel.

  Args:
    kernel: weights of any shape.
    sparsity: the fraction that is False, rounded to whole weights; at least one
      weight stays True. Among equal magnitudes, the later ones stay.

  Returns:
    A bool array of the shape of `kernel`.
  """
  count = _count(kernel.size, sparsity)
  return (_ranks(jnp.abs(kernel).reshape(-1)) >= count).reshape(kernel.shape)


def global_magnitude_masks(
  kernels: Sequence[Array], sparsity: Array | float
) -> list[Array]:
  """Returns masks that are False at the smallest magnitudes of all kernels.

  Args:
    kernels: weights of any shapes.
    sparsity: the fraction of all weights that is False, rounded to whole
      weights. The largest weight of each kernel always stays True, because a
      layer of zeros would cut the network in two.

  Returns:
    A bool array for each kernel.
  """
  flat = [jnp.abs(kernel).reshape(-1) for kernel in kernels]
  magnitudes = jnp.concatenate(flat)
  kept = _ranks(magnitudes) >= _count(magnitudes.size, sparsity)
  masks, start = [], 0
  for kernel, sizes in zip(kernels, flat):
    mask = kept[start : start + sizes.size].at[sizes.argmax()].set(True)
    masks.append(mask.reshape(kernel.shape))
    start += sizes.size
  return masks


def _ranks(values: Array) -> Array:
  """Returns the rank of each value `[N]` in ascending order."""
  order = jnp.argsort(values)
  places = jnp.arange(values.size)
  return jnp.zeros_like(places).at[order].set(places, unique_indices=True)


def _count(size: int, sparsity: Array | float) -> Array:
  """Returns how many of `size` weights are zero, which is never all of them."""
  count = jnp.round(jnp.asarray(sparsity, jnp.float32) * size)
  return jnp.clip(count.astype(jnp.int32), 0, size - 1)
