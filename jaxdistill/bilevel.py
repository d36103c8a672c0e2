"""Gradients of a validation loss in the weights of a training loss's summands.

  min over A of V(theta + U(grad_theta L(theta, A)))
  L(theta, A) = label(theta) + sum_p alpha_p(A) l_p(theta)

theta are the parameters, A raw weights, alpha their normalisation, U what an
optimiser makes of a gradient. With v the gradient of V at the next parameters,
w the vjp of U in v, and J the Jacobian of alpha, the gradient in A is J^T r
with r_p = <grad_theta l_p(theta), w>. The sign and the rate, momentum,
Nesterov's factor or clipping are in w.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.types import Array, PyTree, UsageError

HYPERGRADIENTS = ('exact', 'finite_difference', 'unrolled')


class Objective(NamedTuple):
  """A bi-level problem at one step.

  Attributes:
    training: theta -> ((label loss [], summands [L]), what else it finds).
    validation: theta -> loss [].
    normalize: A [L] -> alpha [L].
  """

  training: Callable[[PyTree], tuple[tuple[Array, Array], Any]]
  validation: Callable[[PyTree], Array]
  normalize: Callable[[Array], Array]


class LookAhead(NamedTuple):
  """A step of theta, and what it says of A.

  Attributes:
    params: theta after the step.
    optimizer: its state after the step.
    gradient: of the validation loss at `params` in A, `[L]`.
    validation: that loss.
    loss: L(theta, A) before the step.
    summands: l(theta) before the step, `[L]`.
    aux: what else `training` found.
    take: A -> (params, optimizer): the step with other weights, at the price of
      one backward pass.
  """

  params: PyTree
  optimizer: optax.OptState
  gradient: Array
  validation: Array
  loss: Array
  summands: Array
  aux: Any
  take: Callable[[Array], tuple[PyTree, optax.OptState]]


def look_ahead(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  state: optax.OptState,
  params: PyTree,
  raw: Array,
  *,
  hypergradient: str = 'exact',
  length: float = 0.01,
) -> LookAhead:
  """Takes a step, and differentiates the validation loss behind it in A.

  Equation (4) of DistPro by `exact`: the training loss is linearised once, its
  transpose is the gradient of the step, and r is its value at w. Its cost
  beside the step is one gradient of the validation loss and one forward-mode
  pass.

  Args:
    objective: the problem.
    optimizer: of theta.
    state: its state.
    params: theta.
    raw: A, `[L]`.
    hypergradient: 'exact'; 'finite_difference', `difference`; or 'unrolled',
      reverse mode through the step, which costs most memory.
    length: see `difference`.

  Raises:
    UsageError: there is no such hypergradient.
  """
  if hypergradient not in HYPERGRADIENTS:
    raise UsageError(
      f'unknown hypergradient {hypergradient!r}; valid: '
      f'{", ".join(HYPERGRADIENTS)}'
    )
  (label, summands), linear, aux = jax.linearize(
    objective.training, params, has_aux=True
  )
  transpose = jax.linear_transpose(linear, params)
  alpha, pull_alpha = jax.vjp(objective.normalize, raw)
  loss = label + alpha @ summands

  def update(gradient: PyTree) -> tuple[PyTree, optax.OptState]:
    return optax.with_extra_args_support(optimizer).update(
      gradient, state, params, value=loss
    )

  def take(raw: Array) -> tuple[PyTree, optax.OptState]:
    weights = objective.normalize(raw).astype(summands.dtype)
    (gradient,) = transpose((jnp.ones_like(label), weights))
    change, after = update(gradient)
    return optax.apply_updates(params, change), after

  if hypergradient == 'unrolled':
    found = _unrolled(objective, optimizer, state, params, raw)
  else:
    (gradient,) = transpose((jnp.ones_like(label), alpha))
    change, pull, after = jax.vjp(update, gradient, has_aux=True)
    ahead = optax.apply_updates(params, change)
    validation, v = jax.value_and_grad(objective.validation)(ahead)
    w = jax.tree.map(_without_dead, pull(v)[0], gradient)
    if hypergradient == 'exact':
      _, r = linear(w)
    else:
      r = difference(
        lambda p: objective.training(p)[0][1], params, w, length=length
      )
    found = ahead, after, validation, pull_alpha(r)[0]
  ahead, after, validation, slope = found
  return LookAhead(ahead, after, slope, validation, loss, summands, aux, take)


def descend(
  losses: Sequence[Callable[[PyTree], Array]],
  optimizer: optax.GradientTransformation,
  state: optax.OptState,
  params: PyTree,
) -> tuple[PyTree, optax.OptState]:
  """Takes a step on each of some losses in turn, to be differentiated through.

  Through the root in Adam only where no gradient is zero.

  Args:
    losses: theta -> loss [].
    optimizer: of theta.
    state: its state.
    params: theta.

  Returns:
    (theta, the optimiser's state) after the steps.
  """
  for loss in losses:
    value, gradient = jax.value_and_grad(loss)(params)
    change, state = optax.with_extra_args_support(optimizer).update(
      gradient, state, params, value=jax.lax.stop_gradient(value)
    )
    params = optax.apply_updates(params, change)
  return params, state


def difference(
  function: Callable[[PyTree], Array],
  params: PyTree,
  direction: PyTree,
  *,
  length: float = 0.01,
) -> Array:
  """The derivative of a function in a direction w, by two of its values.

    (l(theta + eps w) - l(theta - eps w)) / (2 eps),  eps = length / ||w||_2

  Equation (5) of DistPro. There w is the gradient of the validation loss, and
  the factor -xi of Equation (4) of DistPro is lost, so that descending it moves
  the weights the wrong way; here w holds the factor, and those of momentum and
  the like.

  Args:
    function: theta -> `[L]`.
    params: theta.
    direction: w, like theta.
    length: of the way to either side; the default is the authors' code's, and
      too long for small networks: on the WRN of the tests it is off by up to
      37 %, where 1e-4 agrees to 1 % in float64.

  Returns:
    `[L]`; 0 where w is 0.
  """
  norm = optax.tree.norm(direction)
  step = length / jnp.where(norm > 0, norm, 1.0)

  def moved(sign: float) -> Array:
    def add(p: Array, d: Array) -> Array:
      return p + (sign * step * d).astype(p.dtype)

    return function(jax.tree.map(add, params, direction))

  return (moved(1.0) - moved(-1.0)) / (2 * step)


def _without_dead(w: Array, gradient: Array) -> Array:
  """Zero where a gradient is zero and its vjp through an optimiser is none.

  The root in Adam has an infinite slope there; no summand has a gradient there
  either.
  """
  return jnp.where((gradient == 0) & jnp.isnan(w), 0, w)


def _unrolled(objective, optimizer, state, params, raw):
  """The step and the gradient by differentiating the step itself."""

  def behind(raw: Array) -> tuple[Array, Any]:
    def total(params: PyTree) -> Array:
      (label, summands), _ = objective.training(params)
      return label + objective.normalize(raw) @ summands

    ahead, after = descend([total], optimizer, state, params)
    return objective.validation(ahead), (ahead, after)

  (validation, (ahead, after)), slope = jax.value_and_grad(
    behind, has_aux=True
  )(raw)
  return ahead, after, validation, slope
