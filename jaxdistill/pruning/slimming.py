"""Network slimming: scales of batch norms shrink, and small ones go.

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
from jaxdistill.networks import arguments
from jaxdistill.pruning import channels as surgery
from jaxdistill.pruning import kinds, sparsity
from jaxdistill.types import Model, UsageError


def slimming(*, keep: float, skip: Sequence[str] = ()) -> kinds.Pruning:
  """The channels of the smallest scales of all batch norms are taken out.

  One threshold for the whole network, a scale that is equal to it goes too. A
  layer that would lose all channels keeps the one of the largest scale; the
  published code fails there, and takes one channel more from the network.

  Args:
    keep: share of the channels that stays, in (0, 1].
    skip: stages or groups that stay as they are.

  Raises:
    UsageError: the share is not in (0, 1].
  """
  sparsity.check_keep('pruning.keep', keep)

  def sets(model: Model) -> list[surgery.ChannelSet]:
    kinds.check_skip(model.network, skip)
    found = surgery.channel_sets(model)
    chosen = [s for s in found if not kinds.skipped(s.stage, skip)]
    if not chosen:
      raise UsageError(
        f'pruning.skip: {tuple(skip)} names every stage that could be pruned'
      )
    return chosen

  def prune(model: Model) -> Model:
    found = sets(model)
    params = model.variables['params']
    sizes = [np.abs(params[s.norm[0]][s.norm[1]]['scale']) for s in found]
    every = np.sort(np.concatenate(sizes))
    removed = int(every.size * (1 - keep) + 1e-9)
    threshold = every[removed - 1] if removed else -np.inf
    kept = {
      (own.stage, own.field): surgery.largest(
        scales, max(1, int((scales > threshold).sum()))
      )
      for own, scales in zip(found, sizes)
    }
    return surgery.keep_channels(model, kept)

  return kinds.Pruning(sets, prune)


def sparse_scales(
  optimizer: optax.GradientTransformation, strength: float
) -> optax.GradientTransformationExtraArgs:
  """Adds the subgradient of strength * sum |scale| to that of the loss.

  Of all leaves 'scale', which are those of norms, outside 'helpers'.
  """
  optimizer = optax.with_extra_args_support(optimizer)

  def add(path: tuple[Any, ...], update: jax.Array, x: jax.Array) -> jax.Array:
    names = [str(getattr(key, 'key', key)) for key in path]
    of_norm = names[-1] == 'scale' and 'helpers' not in names
    return update + strength * jnp.sign(x) if of_norm else update

  def update(updates, state, params=None, **extra):
    updates = jax.tree_util.tree_map_with_path(add, updates, params)
    return optimizer.update(updates, state, params, **extra)

  return optax.GradientTransformationExtraArgs(optimizer.init, update)


def slim(
  *, optimizer: optimizers.Optimizer, strength: float = 1e-4
) -> optimizers.Optimizer:
  """`sparse_scales` of an optimiser, for training before `slimming`.

  Args:
    optimizer: what trains.
    strength: factor on the sum of all scales; published: 1e-4 for VGG, 1e-5
      for ResNet and DenseNet.

  Raises:
    UsageError: the strength is no number of at least 0.
  """
  strength = arguments.real('optimizer.strength', strength, 0.0)
  return lambda num_steps: sparse_scales(optimizer(num_steps), strength)
