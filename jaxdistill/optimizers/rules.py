"""Optimizers: how parameters follow the gradient and the learning rate."""

import jax
import jax.numpy as jnp
import optax

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Optimizer, PyTree
from jaxdistill.optimizers.schedules import Schedule


def update(
  optimizer: optax.GradientTransformation,
  gradient: PyTree,
  state: optax.OptState,
  params: PyTree,
  *,
  value: Array,
) -> tuple[PyTree, optax.OptState]:
  """Computes the change of the parameters, with any kind of schedule.

  Args:
    optimizer: the optimizer.
    gradient: the gradient of the loss.
    state: the state of the optimizer.
    params: the parameters.
    value: the loss, which a plateau rule watches, `[]`.

  Returns:
    (the change of the parameters, the new state of the optimizer).
  """
  change, new_state = optax.with_extra_args_support(optimizer).update(
    gradient, state, params, value=value
  )
  return change, new_state


def sgd(
  schedule: Schedule,
  *,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 5e-4,
  l1_penalty: float = 0.0,
  clip: float | None = None,
) -> Optimizer:
  """Stochastic gradient descent, with weight decay on every parameter.

    J(theta) = L_train + lambda ||theta||_p^p,  p = 1 or 2

  Equation (3) of Orthogonality: `l1_penalty` is lambda for p = 1, and half of
  `weight_decay` is lambda for p = 2.

  Args:
    schedule: the learning rate.
    momentum: the momentum, in [0, 1); 0 means no momentum.
    nesterov: whether it is Nesterov's momentum.
    weight_decay: the factor with which each parameter is added to its gradient,
      as in PyTorch's SGD.
    l1_penalty: the factor with which the sign of each parameter is added to its
      gradient. It pulls every weight towards zero by the same amount, whatever
      its size, so that many weights end near zero. They do not become zero
      exactly; `pruning.magnitude` removes them afterwards.
    clip: the largest global norm of the gradient, before weight decay and
      penalty; None means no clipping.

  Raises:
    UsageError: a number is out of its range.
  """
  checks.number('momentum', momentum, at_least=0, below=1)
  _check_decay(weight_decay, clip, l1_penalty)

  def make(num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
      _clip(clip),
      _penalties(weight_decay, l1_penalty),
      optax.sgd(schedule.rate(num_steps), momentum or None, nesterov),
      schedule.watch,
    )

  return make


def lars(
  schedule: Schedule,
  *,
  trust: float = 0.1,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  l1_penalty: float = 0.0,
) -> Optimizer:
  """LARS: scales each kernel's gradient to `trust` times the kernel's norm.

  One learning rate therefore suits kernels of any size. Biases and the
  parameters of norms learn as with `sgd`.

  Args:
    schedule: the learning rate.
    trust: the norm of the scaled gradient divided by that of the kernel, above
      0.
    momentum: Nesterov's momentum, in [0, 1); 0 means no momentum.
    weight_decay: the factor with which each parameter is added to its gradient
      before the gradient is scaled.
    l1_penalty: see `sgd`; also added before the gradient is scaled.

  Raises:
    UsageError: a number is out of its range.

  References:
    You et al., Large Batch Training of Convolutional Networks, 2017,
    https://arxiv.org/abs/1708.03888
  """
  checks.number('trust', trust, above=0)
  checks.number('momentum', momentum, at_least=0, below=1)
  _check_decay(weight_decay, None, l1_penalty)

  def kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda x: x.ndim > 1, params)

  def make(num_steps: int) -> optax.GradientTransformation:
    scaled = optax.scale_by_trust_ratio(trust_coefficient=trust)
    return optax.chain(
      _penalties(weight_decay, l1_penalty),
      optax.masked(scaled, kernels),
      optax.sgd(schedule.rate(num_steps), momentum or None, nesterov=True),
      schedule.watch,
    )

  return make


def adamw(
  schedule: Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  weight_decay: float = 0.05,
  l1_penalty: float = 0.0,
  clip: float | None = None,
) -> Optimizer:
  """AdamW: Adam with decoupled weight decay.

  Args:
    schedule: the learning rate.
    b1: the decay rate of the first moment, in [0, 1).
    b2: the decay rate of the second moment, in [0, 1).
    weight_decay: the factor on the parameters, multiplied by the learning rate.
    l1_penalty: the factor on the signs of the parameters, multiplied by the
      learning rate; see `sgd`. Like weight decay, it is not scaled by Adam.
    clip: the largest global norm of the gradient; None means no clipping.

  Raises:
    UsageError: a number is out of its range.
  """
  for name, value in (('b1', b1), ('b2', b2)):
    checks.number(name, value, at_least=0, below=1)
  _check_decay(weight_decay, clip, l1_penalty)

  def make(num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
      _clip(clip),
      optax.chain(
        optax.scale_by_adam(b1, b2),
        _penalties(weight_decay, l1_penalty),
        optax.scale_by_learning_rate(schedule.rate(num_steps)),
      ),
      schedule.watch,
    )

  return make


def _check_decay(
  weight_decay: float, clip: float | None, l1_penalty: float
) -> None:
  """Checks the arguments that most optimizers share."""
  checks.number('weight_decay', weight_decay, at_least=0, at_most=1e3)
  checks.number('l1_penalty', l1_penalty, at_least=0, at_most=1e3)
  if clip is not None:
    checks.number('clip', clip, above=0)


def _clip(norm: float | None) -> optax.GradientTransformation:
  return optax.identity() if norm is None else optax.clip_by_global_norm(norm)


def _penalties(
  weight_decay: float, l1_penalty: float
) -> optax.GradientTransformation:
  """Adds the gradients of the penalties on the parameters."""
  decay = optax.add_decayed_weights(weight_decay)
  if not l1_penalty:
    return decay

  def pulled(update: Array, x: Array) -> Array:
    return update + l1_penalty * jnp.sign(x)

  pull = optax.stateless(lambda u, params: jax.tree.map(pulled, u, params))
  return optax.chain(decay, pull)
