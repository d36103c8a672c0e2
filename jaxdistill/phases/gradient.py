"""A phase that minimises a loss by its gradient."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdistill import optimizers
from jaxdistill.core import checks
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Model,
  Network,
  Phase,
  PyTree,
  Static,
  Stream,
  Variables,
)
from jaxdistill.networks import graph


class LossFunction(Protocol):
  """The loss that a gradient phase minimises."""

  def __call__(
    self,
    variables: dict[str, Variables],
    batches: dict[str, Batch],
    rng: Array,
    progress: Array,
    /,
  ) -> tuple[Array, tuple[dict[str, Variables], Metrics]]:
    """Computes the loss of one step.

    Args:
      variables: role -> the variables of its network, trained or constant.
      batches: name of the stream -> batch.
      rng: the random key of the step.
      progress: the fraction of the phase's steps taken so far, in [0, 1).

    Returns:
      (loss, (updates, metrics)): a scalar; by role, the collections other than
      'params' that the forward pass changed, such as 'batch_stats'; and scalars
      for the log.
    """


class GradientState(NamedTuple):
  """The state of a gradient phase.

  Attributes:
    step: the number of steps taken, int32.
    variables: role -> variables, of every network that trains.
    optimizer: the state of the optimizer.
  """

  step: Array
  variables: dict[str, Variables]
  optimizer: optax.OptState


def gradient_phase(
  name: str,
  loss_fn: LossFunction,
  optimizer: optax.GradientTransformation,
  *,
  num_steps: int,
  streams: Mapping[str, Stream],
  networks: Mapping[str, Network],
  trainable: Mapping[str, Sequence[str] | None],
  adapters: tuple[Network, Mapping[str, Any]] | None = None,
) -> Phase:
  """Builds a phase that minimises a loss by its gradient.

  Args:
    name: the name of the phase, a valid file name.
    loss_fn: the loss; see `LossFunction`.
    optimizer: the optimizer. It receives the loss as `value`, which schedules
      that watch for a plateau need.
    num_steps: the number of steps.
    streams: name -> the batches it draws.
    networks: role -> network, for every role whose variables the loss reads;
      the carry must hold a model in each of these roles.
    trainable: role -> the stages that train, or None for all of them. Neither
      the parameters nor the statistics of any other stage change.
    adapters: a network that exists only during this phase, in the role
      'adapters', and the shapes of the features that it reads. All of it
      trains, and it is dropped when the phase ends.

  Returns:
    The phase. It shows every trained role for evaluation.

  Raises:
    UsageError: `trainable` names a stage that a network does not have, or
      there are more steps than 32 bits can count.
  """
  checks.integer(
    f'the steps of {name!r}', num_steps, at_least=0, at_most=2**31 - 1
  )
  trained = {
    role: _stages(networks[role], trainable[role]) for role in trainable
  }
  constant = [role for role in networks if role not in trainable]
  if adapters is not None:
    trained['adapters'] = graph.stage_names(adapters[0])

  def init(rng: Array, carry: Carry) -> tuple[GradientState, PyTree]:
    variables = {role: carry[role].variables for role in trainable}
    if adapters is not None:
      variables['adapters'] = {
        'params': {},
        **graph.init(adapters[0], rng, adapters[1]),
      }
    # A step may donate the state's buffers, so the carry keeps arrays of its
    # own.
    variables = jax.tree.map(jnp.copy, variables)
    state = GradientState(
      jnp.zeros((), jnp.int32),
      variables,
      optimizer.init(_trained_params(variables, trained)),
    )
    return state, {role: carry[role].variables for role in constant}

  def step(
    state: GradientState,
    frozen: dict[str, Variables],
    batches: dict[str, Batch],
    rng: Array,
    static: Static,
  ) -> tuple[GradientState, Metrics]:
    del static
    progress = state.step / num_steps

    def loss_of(
      params: dict[str, PyTree],
    ) -> tuple[Array, tuple[dict[str, Variables], Metrics]]:
      variables = {
        role: graph.merge(state.variables[role], {'params': params[role]})
        for role in trained
      }
      return loss_fn({**frozen, **variables}, batches, rng, progress)

    params = _trained_params(state.variables, trained)
    (loss, (updates, metrics)), gradient = jax.value_and_grad(
      loss_of, has_aux=True
    )(params)
    change, optimizer_state = optimizers.update(
      optimizer, gradient, state.optimizer, params, value=loss
    )
    params = optax.apply_updates(params, change)
    variables = _after_step(state.variables, updates, params, trained)
    new_state = GradientState(state.step + 1, variables, optimizer_state)
    return new_state, {**metrics, 'loss': loss}

  def finish(state: GradientState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    models = {
      role: Model(networks[role], state.variables[role]) for role in trainable
    }
    return {**carry, **models}

  def model_of(role: str) -> Callable[[GradientState, PyTree], Model]:
    return lambda state, frozen: Model(networks[role], state.variables[role])

  return Phase(
    name=name,
    num_steps=num_steps,
    streams=streams,
    init=init,
    step=step,
    finish=finish,
    eval_models={role: model_of(role) for role in trainable},
    stop=lambda state: optimizers.ended(state.optimizer),
  )


def _stages(network: Network, names: Sequence[str] | None) -> tuple[str, ...]:
  """Returns the named stages, or all of them for None."""
  if names is None:
    return graph.stage_names(network)
  graph.check_stages(network, names)
  return tuple(names)


def _trained_params(
  variables: Mapping[str, Variables], trained: Mapping[str, Sequence[str]]
) -> dict[str, PyTree]:
  """Selects the parameters of the stages that train, by role."""
  return {
    role: {k: v for k, v in variables[role]['params'].items() if k in names}
    for role, names in trained.items()
  }


def _after_step(
  variables: Mapping[str, Variables],
  updates: Mapping[str, Variables],
  params: Mapping[str, PyTree],
  trained: Mapping[str, Sequence[str]],
) -> dict[str, Variables]:
  """Merges new parameters and statistics of the trained stages, by role."""
  return {
    role: graph.merge(
      variables[role],
      {
        **{
          collection: {k: v for k, v in tree.items() if k in names}
          for collection, tree in updates.get(role, {}).items()
        },
        'params': params[role],
      },
    )
    for role, names in trained.items()
  }
