"""Network slimming: removes the channels with small batch norm scales.

Liu et al., Learning Efficient Convolutional Networks through Network Slimming,
2017, https://arxiv.org/abs/1708.06519
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill import optimizers
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.pruning import interface, surgery


def slimming(*, keep: float, skip: Sequence[str] = ()) -> interface.Pruning:
  """Removes the channels whose batch norm scales are the smallest.

  One threshold applies to the whole network, and a scale equal to it is removed
  too. A layer that would lose all its channels keeps the one with the largest
  scale. The published code fails in this case; it also removes one channel more
  from the network.

  Args:
    keep: the fraction of all channels that stay, in (0, 1].
    skip: stages or groups that are not pruned.

  Raises:
    UsageError: the fraction is not in (0, 1].
  """
  checks.number('keep', keep, above=0, at_most=1)

  def sets(model: Model) -> list[surgery.ChannelSet]:
    interface.check_skip(model.network, skip)
    chosen = [
      channels
      for channels in surgery.channel_sets(model)
      if not interface.skipped(channels.stage, skip)
    ]
    if not chosen:
      raise UsageError(
        f'pruning.skip: {tuple(skip)} names every stage that could be pruned'
      )
    return chosen

  def prune(model: Model) -> Model:
    chosen = sets(model)
    params = model.variables['params']
    sizes = [np.abs(params[s.norm[0]][s.norm[1]]['scale']) for s in chosen]
    all_sizes = np.sort(np.concatenate(sizes))
    removed = int(all_sizes.size * (1 - keep) + 1e-9)
    threshold = all_sizes[removed - 1] if removed else -np.inf
    kept = {
      (channels.stage, channels.field): surgery.largest(
        scales, max(1, int((scales > threshold).sum()))
      )
      for channels, scales in zip(chosen, sizes)
    }
    return surgery.keep_channels(model, kept)

  return interface.Pruning(sets, prune)


def sparse_scales(
  optimizer: optax.GradientTransformation, strength: float
) -> optax.GradientTransformationExtraArgs:
  """Adds the subgradient of strength * sum |scale| to the gradient.

  It applies to all leaves called 'scale', which are those of norms, except in
  the role 'adapters'.

  Args:
    optimizer: the optimizer that receives the sum.
    strength: the factor on the sum of all scales.
  """
  optimizer = optax.with_extra_args_support(optimizer)

  def add(path: tuple[Any, ...], update: jax.Array, x: jax.Array) -> jax.Array:
    names = [str(getattr(key, 'key', key)) for key in path]
    of_norm = names[-1] == 'scale' and 'adapters' not in names
    return update + strength * jnp.sign(x) if of_norm else update

  def update(updates, state, params=None, **extra):
    updates = jax.tree_util.tree_map_with_path(add, updates, params)
    return optimizer.update(updates, state, params, **extra)

  return optax.GradientTransformationExtraArgs(optimizer.init, update)


def slim(
  *, optimizer: optimizers.Optimizer, strength: float = 1e-4
) -> optimizers.Optimizer:
  """Wraps an optimizer so that training prepares the network for `slimming`.

  It adds an L1 penalty on the scales of batch norms; see `sparse_scales`.

  Args:
    optimizer: the optimizer.
    strength: the factor on the sum of all scales, at least 0. The paper uses
      1e-4 for VGG and 1e-5 for ResNet and DenseNet.

  Raises:
    UsageError: the strength is out of its range.
  """
  strength = checks.number('strength', strength, at_least=0)
  return lambda num_steps: sparse_scales(optimizer(num_steps), strength)
