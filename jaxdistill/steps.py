"""A loss function, an optimiser and what trains, made into a phase."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import optimizers
from jaxdistill.networks import staged
from jaxdistill.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Model,
  Network,
  Phase,
  PyTree,
  Stream,
  Variables,
)

# (variables by role, batches, rng, progress) -> (loss, (updates, metrics)).
# `progress` is the share of the phase's steps that lie behind, in [0, 1).
# `updates` holds, by role, the collections other than 'params' that changed.
LossFunction = Callable[
  [dict[str, Variables], dict[str, Batch], Array, Array],
  tuple[Array, tuple[dict[str, Variables], Metrics]],
]


class GradientState(NamedTuple):
  """State of a gradient phase.

  Attributes:
    step: how many steps were taken, int32.
    variables: by role, of all that train.
    optimizer: the state of the optimiser.
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
  helpers: tuple[Network, Mapping[str, Any]] | None = None,
) -> Phase:
  """Minimises a loss by its gradient.

  Args:
    name: of the phase.
    loss_fn: see `LossFunction`.
    optimizer: told the loss as `value`, for plateau rules.
    num_steps: how many.
    streams: name -> batches.
    networks: role -> network, of every role whose variables the loss reads;
      the carry holds the models.
    trainable: role -> the stages that train; None: all. Nothing else moves,
      neither parameters nor statistics.
    helpers: a network that exists for this phase alone, in the role 'helpers',
      and the shapes of the features it reads. It trains whole and is dropped.

  Returns:
    The phase; its views are the trained roles.
  """
  trained = {
    role: _stages(networks[role], trainable[role]) for role in trainable
  }
  constant = [role for role in networks if role not in trainable]
  if helpers is not None:
    trained['helpers'] = staged.stage_names(helpers[0])

  def init(rng: Array, carry: Carry) -> tuple[GradientState, PyTree]:
    variables = {role: carry[role].variables for role in trainable}
    if helpers is not None:
      variables['helpers'] = {
        'params': {},
        **staged.init(helpers[0], rng, helpers[1]),
      }
    # A step may donate the state: the carry keeps its own arrays.
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
    static: Any,
  ) -> tuple[GradientState, Metrics]:
    del static
    progress = state.step / num_steps

    def loss_of(params):
      variables = {
        role: staged.merge(state.variables[role], {'params': params[role]})
        for role in trained
      }
      return loss_fn({**frozen, **variables}, batches, rng, progress)

    params = _trained_params(state.variables, trained)
    (loss, (updates, metrics)), gradient = jax.value_and_grad(
      loss_of, has_aux=True
    )(params)
    change, optimizer_state = optax.with_extra_args_support(optimizer).update(
      gradient, state.optimizer, params, value=loss
    )
    params = optax.apply_updates(params, change)
    variables = {
      role: staged.merge(
        state.variables[role],
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
    new = GradientState(state.step + 1, variables, optimizer_state)
    return new, {**metrics, 'loss': loss}

  def finish(state: GradientState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    models = {
      role: Model(networks[role], state.variables[role]) for role in trainable
    }
    return {**carry, **models}

  def view(role: str) -> Callable[[GradientState, PyTree], Model]:
    return lambda state, frozen: Model(networks[role], state.variables[role])

  return Phase(
    name=name,
    num_steps=num_steps,
    streams=streams,
    init=init,
    step=step,
    finish=finish,
    views={role: view(role) for role in trainable},
    stop=lambda state: optimizers.ended(state.optimizer),
  )


class StatisticsState(NamedTuple):
  """State of a statistics phase: steps taken, and the model's variables."""

  step: Array
  variables: Variables


def statistics_phase(
  name: str,
  network: Network,
  stages: Sequence[str],
  *,
  role: str,
  num_steps: int,
  stream: Stream | None,
  forward: Callable[..., Variables] | None = None,
  constant: Sequence[str] = (),
) -> Phase:
  """Estimates the batch statistics of some stages anew, and nothing else.

  They become the means of those of `num_steps` batches, with the parameters as
  they are.

  Args:
    name: of the phase.
    network: of the role.
    stages: whose statistics.
    role: the model in the carry.
    num_steps: how many batches.
    stream: the batches; None: `forward` draws its own.
    forward: (variables, frozen, batches, rng) -> what a pass in which the
      stages train has changed; `frozen` holds the variables of the roles in
      `constant`. None: the pass from the image, where stages before them are in
      inference mode, and stages behind them do not run.
    constant: roles whose variables `forward` reads.
  """
  staged.check_stages(network, stages)
  names = staged.stage_names(network)
  needed = names[: 1 + max((names.index(stage) for stage in stages), default=0)]

  def from_image(
    variables: Variables,
    frozen: PyTree,
    batches: Mapping[str, Batch],
    rng: Array,
  ) -> Variables:
    del frozen
    _, updates = staged.run(
      network,
      variables,
      {'image': batches['train']['image']},
      only=needed,
      train=stages,
      rngs={'dropout': rng},
    )
    return updates

  passed = forward or from_image

  def init(rng: Array, carry: Carry) -> tuple[StatisticsState, PyTree]:
    del rng
    frozen = {k: carry[k].variables for k in constant}
    variables = carry[role].variables
    return StatisticsState(jnp.zeros((), jnp.int32), variables), frozen

  def step(state, frozen, batches, rng, static):
    del static
    rest = {k: v for k, v in state.variables.items() if k != 'batch_stats'}
    kept = state.variables.get('batch_stats', {})

    def running(statistics: dict[str, PyTree]) -> dict[str, PyTree]:
      variables = {**rest, 'batch_stats': {**kept, **statistics}}
      return passed(variables, frozen, batches, rng).get('batch_stats', {})

    # new = m * old + (1 - m) * batch: from old = 0, with the slope m.
    old = {
      k: jax.tree.map(jnp.zeros_like, kept[k]) for k in stages if k in kept
    }
    ones = jax.tree.map(jnp.ones_like, old)
    new, slope = jax.jvp(running, (old,), (ones,))

    def average(mean: Array, new: Array, slope: Array) -> Array:
      return mean + (new / (1 - slope) - mean) / (state.step + 1)

    means = jax.tree.map(average, {k: kept[k] for k in old}, new, slope)
    variables = staged.merge(state.variables, {'batch_stats': means})
    return StatisticsState(state.step + 1, variables), {}

  def finish(state: StatisticsState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    return {**carry, role: Model(network, state.variables)}

  streams = {} if stream is None else {'train': stream}
  return Phase(name, num_steps, streams, init, step, finish)


def setup_phase(
  name: str, models: Callable[[Array, Carry], dict[str, Model]]
) -> Phase:
  """A phase without a step, which puts models into the carry.

  Args:
    name: of the phase.
    models: (rng, carry) -> role -> model; networks do not depend on the rng.
  """
  networks: dict[str, Network] = {}

  def init(rng: Array, carry: Carry) -> tuple[dict[str, Variables], PyTree]:
    made = models(rng, carry)
    networks.update({role: model.network for role, model in made.items()})
    return {role: model.variables for role, model in made.items()}, ()

  def step(state, frozen, batches, rng, static):
    del frozen, batches, rng, static
    return state, {}

  def finish(
    state: dict[str, Variables], frozen: PyTree, carry: Carry
  ) -> Carry:
    del frozen
    made = {k: Model(networks[k], v) for k, v in state.items()}
    return {**carry, **made}

  return Phase(name, 0, {}, init, step, finish)


def _stages(network: Network, names: Sequence[str] | None) -> tuple[str, ...]:
  if names is None:
    return staged.stage_names(network)
  staged.check_stages(network, names)
  return tuple(names)


def _trained_params(
  variables: dict[str, Variables], trained: Mapping[str, Sequence[str]]
) -> dict[str, PyTree]:
  return {
    role: {k: v for k, v in variables[role]['params'].items() if k in names}
    for role, names in trained.items()
  }
