"""Single weights made zero and kept zero, whatever trains the network.

Han et al., Learning both Weights and Connections for Efficient Neural Networks,
2015, https://arxiv.org/abs/1506.02626; Zhu and Gupta, To prune, or not to
prune, 2017, https://arxiv.org/abs/1710.01878

What is pruned are the leaves 'kernel' of a tree of parameters: all of the
convolutions, and dense layers but for those of the last stage.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import optimizers
from jaxdistill.networks import arguments, staged
from jaxdistill.pruning import sparsity
from jaxdistill.pruning.kinds import Pruning, check_skip
from jaxdistill.types import Array, Model, PyTree, UsageError

SCOPES = ('global', 'layer')


class KeepZerosState(NamedTuple):
  """State of `keep_zeros`.

  Attributes:
    masks: like the parameters; False where a weight stays zero. One True
      stands for a leaf that is not pruned.
    inner: of the optimiser.
  """

  masks: PyTree
  inner: optax.OptState


class GradualState(NamedTuple):
  """State of `gradual_magnitude`.

  Attributes:
    step: how many were taken, int32.
    masks: as in `KeepZerosState`.
    dense: the kernels as they would be without a mask; one zero stands for a
      leaf that is not pruned.
    inner: of the optimiser.
  """

  step: Array
  masks: PyTree
  dense: PyTree
  inner: optax.OptState


def magnitude(
  *, keep: float, scope: str = 'global', skip: Sequence[str] = ()
) -> Pruning:
  """The smallest weights become zero, once.

  Train on with `keep_zeros`, or they grow again.

  Args:
    keep: share of the weights that stays, in (0, 1].
    scope: 'global': one threshold for all kernels, of which each keeps at
      least its largest weight; 'layer': the same share of each.
    skip: stages or groups that stay as they are.
  """
  sparsity.check_keep('pruning.keep', keep)
  _check_scope(scope)

  def check(model: Model) -> None:
    check_skip(model.network, skip)
    if not any(jax.tree.leaves(flags(model))):
      raise UsageError('pruning: the network has no kernel to prune')

  def flags(model: Model) -> PyTree:
    last = staged.output(model.network)
    return _prunable(model.variables['params'], skip, last)

  def prune(model: Model) -> Model:
    check(model)
    params = model.variables['params']
    masks = _masks(params, flags(model), 1.0 - keep, scope)
    return model._replace(
      variables={**model.variables, 'params': _masked(params, masks)}
    )

  return Pruning(check, prune)


def keep_zeros(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Weights that are zero at the beginning stay zero.

  The mask is that of the kernels' zeros in `init`, held in the state, so no
  loss needs to know it. A kernel that is zero throughout is new, not pruned,
  and trains. Momentum and weight decay of the optimiser do not move the zeros.
  """
  optimizer = optax.with_extra_args_support(optimizer)

  def init(params: optax.Params) -> KeepZerosState:
    masks = jax.tree.map(
      lambda x, kernel: (
        (x != 0) | (x == 0).all() if kernel else jnp.array(True)
      ),
      params,
      _prunable(params),
    )
    return KeepZerosState(masks, optimizer.init(params))

  def update(updates, state, params=None, **extra):
    updates = _masked(updates, state.masks)
    updates, inner = optimizer.update(updates, state.inner, params, **extra)
    return _masked(updates, state.masks), KeepZerosState(state.masks, inner)

  return optax.GradientTransformationExtraArgs(init, update)


def gradual_magnitude(
  optimizer: optax.GradientTransformation,
  *,
  final: float,
  steps: int,
  every: int = 100,
  scope: str = 'layer',
  skip: Sequence[str] = (),
  last: str = 'head',
) -> optax.GradientTransformationExtraArgs:
  """Makes ever more weights zero while it trains, by `cubic_sparsity`.

  The mask is refreshed every so many steps and then constant. A masked weight
  is zero, gets no gradient, and keeps the value it had aside: at a refresh it
  comes back if that is among the largest again.

  Args:
    optimizer: what trains the rest.
    final: share of zeros at the end, in [0, 1).
    steps: over which the share rises from 0.
    every: steps between two refreshes; the last is at `steps`.
    scope: 'global' or 'layer', see `magnitude`.
    skip: stages or groups that stay dense; of names that are not there nothing
      is said, as a phase may train other stages.
    last: the stage of the answer, whose dense layers are not pruned.
  """
  sparsity.check_share('final', final)
  steps, every = (
    arguments.whole('steps', steps),
    arguments.whole('every', every),
  )
  _check_scope(scope)
  optimizer = optax.with_extra_args_support(optimizer)

  def init(params: optax.Params) -> GradualState:
    flags = _prunable(params, skip, last)
    masks = jax.tree.map(
      lambda x, kernel: jnp.ones(x.shape if kernel else (), bool), params, flags
    )
    dense = jax.tree.map(
      lambda x, kernel: x if kernel else jnp.zeros((), x.dtype), params, flags
    )
    inner = optimizer.init(params)
    return GradualState(jnp.zeros((), jnp.int32), masks, dense, inner)

  def update(updates, state, params=None, **extra):
    flags = _prunable(params, skip, last)
    updates = _masked(updates, state.masks)
    updates, inner = optimizer.update(updates, state.inner, params, **extra)
    updates = _masked(updates, state.masks)
    moved = optax.apply_updates(params, updates)
    dense = _where(state.masks, moved, state.dense, flags)
    step = state.step + 1
    share = sparsity.cubic_sparsity(step, final=final, steps=steps)
    # Ranking all weights takes as long as a step of a small network.
    masks = jax.lax.cond(
      ((step % every == 0) & (step < steps)) | (step == steps),
      lambda: _masks(dense, flags, share, scope),
      lambda: state.masks,
    )
    # Weights that stay move by the very update; others go to zero or back.
    jumps = jax.tree.map(
      lambda mask, full, x: jnp.where(mask, full, 0) - x, masks, dense, params
    )
    stay = jax.tree.map(jnp.logical_and, masks, state.masks)
    updates = _where(stay, updates, jumps, flags, updates)
    return updates, GradualState(step, masks, dense, inner)

  return optax.GradientTransformationExtraArgs(init, update)


def sparse(*, optimizer: optimizers.Optimizer) -> optimizers.Optimizer:
  """`keep_zeros` of an optimiser, for training on after `magnitude`."""
  return lambda num_steps: keep_zeros(optimizer(num_steps))


def gradual(
  *,
  optimizer: optimizers.Optimizer,
  final: float,
  until: float = 0.5,
  every: int = 100,
  scope: str = 'layer',
  skip: Sequence[str] = (),
) -> optimizers.Optimizer:
  """`gradual_magnitude` of an optimiser.

  Args:
    optimizer: what trains the rest.
    final: share of zeros at the end, in [0, 1).
    until: share of the run in which it rises.
    every: steps between two refreshes.
    scope: 'global' or 'layer'.
    skip: stages or groups that stay dense.
  """
  sparsity.check_share('optimizer.final', final)
  sparsity.check_keep('optimizer.until', until)

  def make(num_steps: int) -> optax.GradientTransformation:
    return gradual_magnitude(
      optimizer(num_steps),
      final=final,
      steps=max(1, round(until * num_steps)),
      every=every,
      scope=scope,
      skip=skip,
    )

  return make


def _check_scope(scope: Any) -> None:
  if scope not in SCOPES:
    raise staged.unknown('scope', scope, SCOPES)


def _prunable(
  params: PyTree, skip: Sequence[str] = (), last: str = 'head'
) -> PyTree:
  """Which leaves are pruned; roles, stages and modules are keys above them."""

  def prunable(path: tuple[Any, ...], x: Array) -> bool:
    names = [str(getattr(key, 'key', key)) for key in path]
    groups = {name.partition('.')[0] for name in names}
    if names[-1] != 'kernel' or {*skip} & ({*names} | groups):
      return False
    # Helpers are dropped at the end; the last stage is the classifier.
    return 'helpers' not in names and (x.ndim == 4 or last not in names)

  return jax.tree_util.tree_map_with_path(prunable, params)


def _masks(
  params: PyTree, flags: PyTree, share: Array | float, scope: str
) -> PyTree:
  """The masks of some leaves of a tree; one True for each other leaf."""
  leaves, structure = jax.tree.flatten(params)
  chosen = jax.tree.leaves(flags)
  kernels = [x for x, kernel in zip(leaves, chosen) if kernel]
  if scope == 'global' and kernels:
    made = iter(sparsity.global_magnitude_masks(kernels, share))
  else:
    made = iter([sparsity.magnitude_mask(x, share) for x in kernels])
  masks = [next(made) if kernel else jnp.array(True) for kernel in chosen]
  return jax.tree.unflatten(structure, masks)


def _where(
  masks: PyTree,
  yes: PyTree,
  no: PyTree,
  flags: PyTree,
  otherwise: PyTree | None = None,
) -> PyTree:
  """Of kernels, `yes` where the mask is True; other leaves are `otherwise`."""
  return jax.tree.map(
    lambda kernel, mask, a, b, c: jnp.where(mask, a, b) if kernel else c,
    *(flags, masks, yes, no, no if otherwise is None else otherwise),
  )


def _masked(tree: PyTree, masks: PyTree) -> PyTree:
  return jax.tree.map(lambda x, mask: jnp.where(mask, x, 0), tree, masks)
