"""Sets single weights to zero and keeps them there during any training.

Han et al., Learning both Weights and Connections for Efficient Neural Networks,
2015, https://arxiv.org/abs/1506.02626; Zhu and Gupta, To prune, or not to
prune, 2017, https://arxiv.org/abs/1710.01878

The leaves called 'kernel' of a tree of parameters are pruned: those of all
convolutions, and those of all dense layers outside the last stage.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import optimizers
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Model, PyTree
from jaxdistill.networks import graph
from jaxdistill.pruning import sparsity
from jaxdistill.pruning.interface import Pruning, check_skip

SCOPES = ('global', 'layer')


class KeepZerosState(NamedTuple):
  """The state of `keep_zeros`.

  Attributes:
    masks: a tree like the parameters, False where a weight stays zero. A single
      True represents a leaf that is not pruned.
    inner: the state of the wrapped optimizer.
  """

  masks: PyTree
  inner: optax.OptState


class GradualState(NamedTuple):
  """The state of `gradual_magnitude`.

  Attributes:
    step: the number of steps taken, int32.
    masks: as in `KeepZerosState`.
    dense: the kernels as they would be without a mask. A single zero represents
      a leaf that is not pruned.
    inner: the state of the wrapped optimizer.
  """

  step: Array
  masks: PyTree
  dense: PyTree
  inner: optax.OptState


def magnitude(
  *, keep: float, scope: str = 'global', skip: Sequence[str] = ()
) -> Pruning:
  """Sets the weights of smallest magnitude to zero, once.

  Training that follows must use `sparse` (or `keep_zeros`), otherwise the zeros
  become non-zero again.

  Args:
    keep: the fraction of the weights that stay, in (0, 1].
    scope: 'global' uses one threshold for all kernels, but each kernel keeps at
      least its largest weight; 'layer' prunes the same fraction of each kernel.
    skip: stages or groups that are not pruned.

  Raises:
    UsageError: an argument is out of its range.
  """
  checks.number('keep', keep, above=0, at_most=1)
  checks.choice('scope', scope, SCOPES)

  def check(model: Model) -> None:
    check_skip(model.network, skip)
    if not any(jax.tree.leaves(flags(model))):
      raise UsageError('pruning: the network has no kernels to prune')

  def flags(model: Model) -> PyTree:
    last = graph.main_output(model.network)
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
  """Wraps an optimizer so that weights that are zero at the start stay zero.

  The state holds a mask of the kernels' zeros, taken when the state is
  initialised, so that losses need not know about it. A kernel that consists of
  zeros only is taken for a new kernel, not a pruned one, and trains. Neither
  momentum nor weight decay of the optimizer moves the zeros.

  Args:
    optimizer: the optimizer.
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
  """Wraps an optimizer so that more and more weights become zero.

  The fraction of zeros follows `cubic_sparsity`. The mask is refreshed every
  `every` steps up to step `steps`, and constant in between and afterwards. A
  masked weight is zero and gets no gradient, but the value it had is kept
  aside: at a refresh the weight returns if this value is again among the
  largest.

  Args:
    optimizer: the optimizer of the other weights.
    final: the fraction of zeros at the end, in [0, 1).
    steps: the number of steps over which the fraction rises from 0.
    every: the number of steps between two refreshes; the last is at `steps`.
    scope: 'global' or 'layer', see `magnitude`.
    skip: stages or groups that stay dense. Names that do not exist are allowed,
      because a phase may train other stages.
    last: the last stage, whose dense layers are not pruned.

  Raises:
    UsageError: an argument is out of its range.
  """
  checks.number('final', final, at_least=0, below=1)
  steps, every = (
    checks.integer('steps', steps),
    checks.integer('every', every),
  )
  checks.choice('scope', scope, SCOPES)
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
    # Ranking all weights takes as long as a step of a small network, so it is
    # not done in every step.
    masks = jax.lax.cond(
      ((step % every == 0) & (step < steps)) | (step == steps),
      lambda: _masks(dense, flags, share, scope),
      lambda: state.masks,
    )
    # Weights that stay unmasked move by exactly the optimizer's update; others
    # jump to zero or back to their value.
    jumps = jax.tree.map(
      lambda mask, full, x: jnp.where(mask, full, 0) - x, masks, dense, params
    )
    stay = jax.tree.map(jnp.logical_and, masks, state.masks)
    updates = _where(stay, updates, jumps, flags, updates)
    return updates, GradualState(step, masks, dense, inner)

  return optax.GradientTransformationExtraArgs(init, update)


def sparse(*, optimizer: optimizers.Optimizer) -> optimizers.Optimizer:
  """Wraps an optimizer so that weights that are zero at the start stay zero.

  Use it for training after `magnitude`; see `keep_zeros`.

  Args:
    optimizer: the optimizer.
  """
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
  """Wraps an optimizer so that more and more weights become zero.

  See `gradual_magnitude`.

  Args:
    optimizer: the optimizer of the other weights.
    final: the fraction of zeros at the end, in [0, 1).
    until: the fraction of the run after which the zeros no longer increase, in
      (0, 1].
    every: the number of steps between two refreshes of the mask.
    scope: 'global' or 'layer', see `magnitude`.
    skip: stages or groups that stay dense.

  Raises:
    UsageError: an argument is out of its range.
  """
  checks.number('final', final, at_least=0, below=1)
  checks.number('until', until, above=0, at_most=1)

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


def _prunable(
  params: PyTree, skip: Sequence[str] = (), last: str = 'head'
) -> PyTree:
  """Says for each leaf whether it is pruned.

  The keys above a leaf are roles, stages and modules.
  """

  def prunable(path: tuple[Any, ...], x: Array) -> bool:
    names = [str(getattr(key, 'key', key)) for key in path]
    groups = {name.partition('.')[0] for name in names}
    if names[-1] != 'kernel' or {*skip} & ({*names} | groups):
      return False
    # Adapters are dropped at the end, and the last stage is the classifier.
    return 'adapters' not in names and (x.ndim == 4 or last not in names)

  return jax.tree_util.tree_map_with_path(prunable, params)


def _masks(
  params: PyTree, flags: PyTree, share: Array | float, scope: str
) -> PyTree:
  """Computes the masks of the flagged leaves; other leaves get one True."""
  leaves, structure = jax.tree.flatten(params)
  is_kernel = jax.tree.leaves(flags)
  kernels = [x for x, kernel in zip(leaves, is_kernel) if kernel]
  if scope == 'global' and kernels:
    kernel_masks = iter(sparsity.global_magnitude_masks(kernels, share))
  else:
    kernel_masks = iter([sparsity.magnitude_mask(x, share) for x in kernels])
  masks = [
    next(kernel_masks) if kernel else jnp.array(True) for kernel in is_kernel
  ]
  return jax.tree.unflatten(structure, masks)


def _where(
  masks: PyTree,
  yes: PyTree,
  no: PyTree,
  flags: PyTree,
  otherwise: PyTree | None = None,
) -> PyTree:
  """Selects from `yes` and `no` by the masks of kernels.

  Other leaves are taken from `otherwise`, or from `no` if that is None.
  """
  return jax.tree.map(
    lambda kernel, mask, a, b, c: jnp.where(mask, a, b) if kernel else c,
    *(flags, masks, yes, no, no if otherwise is None else otherwise),
  )


def _masked(tree: PyTree, masks: PyTree) -> PyTree:
  """Sets a tree to zero wherever its mask is False."""
  return jax.tree.map(lambda x, mask: jnp.where(mask, x, 0), tree, masks)
