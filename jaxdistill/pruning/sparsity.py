"""How many weights are zero, and which: pure functions of arrays.

Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for
model compression, 2017, https://arxiv.org/abs/1710.01878; Han et al., Learning
both Weights and Connections for Efficient Neural Networks, 2015,
https://arxiv.org/abs/1506.02626
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxdistill.networks import arguments
from jaxdistill.types import Array, UsageError


def cubic_sparsity(
  step: Array | int, *, final: float, steps: int, initial: float = 0.0
) -> Array:
  """Share of zeros after some steps of gradual pruning.

    final + (initial - final) * (1 - min(step / steps, 1))**3

  Args:
    step: steps behind, from 0.
    final: share at the end and after it, in [0, 1).
    steps: the steps over which it rises.
    initial: share at step 0.

  Returns:
    A float32 of the shape of `step`.

  Raises:
    UsageError: a share outside [0, 1), or no step.

  References:
    Zhu and Gupta, To prune, or not to prune, 2017,
    https://arxiv.org/abs/1710.01878, equation 1.
  """
  check_share('final', final)
  check_share('initial', initial)
  steps = arguments.whole('steps', steps)
  left = 1 - jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0, 1)
  return final + (initial - final) * left**3


def magnitude_mask(kernel: Array, sparsity: Array | float) -> Array:
  """False at the smallest magnitudes of a kernel, True elsewhere.

  Args:
    kernel: weights of any shape.
    sparsity: share of them that is False, rounded to whole weights; at least
      one stays True. Of equal magnitudes the later ones stay.

  Returns:
    A bool array of the shape of `kernel`.
  """
  count = _count(kernel.size, sparsity)
  return (_ranks(jnp.abs(kernel).reshape(-1)) >= count).reshape(kernel.shape)


def global_magnitude_masks(
  kernels: Sequence[Array], sparsity: Array | float
) -> list[Array]:
  """False at the smallest magnitudes of all kernels together.

  Args:
    kernels: weights of any shapes.
    sparsity: share of all weights that is False, rounded to whole weights. The
      largest weight of each kernel stays True, whatever the others are: a
      layer of zeros alone would cut the network.

  Returns:
    A bool array for each kernel.
  """
  flat = [jnp.abs(kernel).reshape(-1) for kernel in kernels]
  every = jnp.concatenate(flat)
  kept = _ranks(every) >= _count(every.size, sparsity)
  masks, start = [], 0
  for kernel, own in zip(kernels, flat):
    mask = kept[start : start + own.size].at[own.argmax()].set(True)
    masks.append(mask.reshape(kernel.shape))
    start += own.size
  return masks


def check_share(name: str, value: Any) -> None:
  """Raises UsageError where a share of zeros is not in [0, 1)."""
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 <= value < 1:
    raise UsageError(f'{name}: {value!r} is no share in [0, 1)')


def check_keep(name: str, value: Any) -> None:
  """Raises UsageError where a share that stays is not in (0, 1]."""
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 < value <= 1:
    raise UsageError(f'{name}: {value!r} is no share in (0, 1]')


def _ranks(values: Array) -> Array:
  """The place of each value `[N]` in ascending order."""
  order = jnp.argsort(values)
  places = jnp.arange(values.size)
  return jnp.zeros_like(places).at[order].set(places, unique_indices=True)


def _count(size: int, sparsity: Array | float) -> Array:
  """How many of `size` weights are zero; never all."""
  wanted = jnp.round(jnp.asarray(sparsity, jnp.float32) * size)
  return jnp.clip(wanted.astype(jnp.int32), 0, size - 1)
