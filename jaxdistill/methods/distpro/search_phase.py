"""The phase that trains on weighted summands and learns their weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill import optimizers
from jaxdistill.core import checks, random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Model,
  Network,
  Phase,
  PyTree,
  Recipe,
  Stream,
  Variables,
)
from jaxdistill.data.loading import batches
from jaxdistill.data.sources import parts
from jaxdistill.networks import graph
from jaxdistill.phases import bilevel

ORDERS = ('keep', 'algorithm1')


class Training(Protocol):
  """The training loss of a search, before its summands are weighted."""

  def __call__(
    self,
    variables: dict[str, Variables],
    batch: Batch,
    rng: Array,
    progress: Array,
    /,
  ) -> tuple[tuple[Array, Array], tuple[dict[str, Variables], Metrics]]:
    """Computes the losses on a batch.

    Args:
      variables: role -> variables.
      batch: the training batch.
      rng: the random key of the step.
      progress: the fraction of the phase's steps taken so far, in [0, 1).

    Returns:
      ((loss without the summands `[]`, summands `[L]`), (role -> the
      collections that changed, metrics)).
    """


class Validation(Protocol):
  """The loss that the weights minimise."""

  def __call__(
    self, variables: dict[str, Variables], batch: Batch, rng: Array, /
  ) -> Array:
    """Computes the loss on a batch, `[]`.

    Args:
      variables: role -> variables.
      batch: the validation batch.
      rng: a random key.
    """


class Knots(NamedTuple):
  """Means over the steps of each of K parts of the search.

  Attributes:
    taken: the number of steps taken in each part, int32 `[K]`.
    steps: the means of the steps' indices, `[K]`.
    raw: the means of the raw weights, `[K, L]`.
    weights: the means of the weights, `[K, L]`.
  """

  taken: Array
  steps: Array
  raw: Array
  weights: Array


class SearchState(NamedTuple):
  """The state of a search.

  Attributes:
    step: the number of steps taken, int32.
    variables: role -> variables, of everything that trains.
    optimizer: the state of the optimizer of these.
    raw: the weights of the summands before normalisation, `[L]`.
    raw_optimizer: the state of the optimizer of the raw weights.
    knots: means of the weights that were used.
  """

  step: Array
  variables: dict[str, Variables]
  optimizer: optax.OptState
  raw: Array
  raw_optimizer: optax.OptState
  knots: Knots


class Rules(NamedTuple):
  """How the weights are learned.

  Attributes:
    hypergradient: see `bilevel.look_ahead`.
    order: 'keep' or 'algorithm1', see `method.distpro_search`.
    normalize: raw weights `[L]` -> weights `[L]`.
    optimizer: the optimizer of the raw weights, which start at 1.
    factor: the factor on the weighted sum in the training loss.
  """

  hypergradient: str
  order: str
  normalize: Callable[[Array], Array]
  optimizer: optax.GradientTransformation
  factor: float = 1.0


def split(
  recipe: Recipe, validation: float
) -> tuple[Recipe, dict[str, Stream]]:
  """Splits the training examples into a training and a validation part.

  Args:
    recipe: the recipe for all examples.
    validation: the fraction of the examples in the validation part.

  Returns:
    (the recipe for the training part, {'train': stream, 'validation': stream}).

  Raises:
    UsageError: the fraction is not in (0, 1), or the validation part is empty.
  """
  checks.number('validation', validation, above=0, below=1)
  size, stream = len(recipe.examples['index']), recipe.stream
  first, second = (0.0, 1 - validation), (1 - validation, 1.0)
  rows = parts.part_rows(size, first)
  held_out = size - len(rows)
  if not held_out:
    raise UsageError(
      f'validation: expected a fraction of {size} examples that holds at least '
      f'one, got {validation}'
    )
  part = recipe._replace(
    steps_per_epoch=batches.steps_per_epoch(len(rows), stream.batch_size),
    stream=stream._replace(part=first),
    examples={k: v[rows] for k, v in recipe.examples.items()},
  )
  validation_stream = stream._replace(
    part=second, batch_size=min(stream.batch_size, held_out)
  )
  return part, {'train': part.stream, 'validation': validation_stream}


def search_phase(
  name: str,
  training: Training,
  validation: Validation,
  optimizer: optax.GradientTransformation,
  rules: Rules,
  *,
  num_summands: int,
  num_steps: int,
  steps_per_knot: int,
  streams: Mapping[str, Stream],
  networks: Mapping[str, Network],
  student: str,
  adapters: tuple[Network, Mapping[str, Any]],
  finish: Callable[[Knots, Carry], Carry],
  report: Callable[[Carry], dict[str, Any]],
) -> Phase:
  """Builds a phase that minimises a weighted sum and learns the weights.

    loss + factor * sum_p weight_p summand_p

  Only the step of the parameters changes batch statistics.

  Args:
    name: the name of the phase.
    training: the loss, and the summands that are added to it.
    validation: the loss that the weights minimise.
    optimizer: the optimizer of the parameters.
    rules: how the weights are learned.
    num_summands: L.
    num_steps: the number of steps.
    steps_per_knot: the number of steps over which weights are averaged.
    streams: 'train' and 'validation'.
    networks: role -> network, for every role whose variables are read. All but
      the student are constant.
    student: the role of the network that trains.
    adapters: see `phases.gradient_phase`.
    finish: (knots that were reached, carry with the trained student) -> carry.
    report: the carry that `finish` returned -> {file name: JSON}.
  """
  roles = (student, 'adapters')

  def init(rng: Array, carry: Carry) -> tuple[SearchState, PyTree]:
    variables = {
      student: carry[student].variables,
      'adapters': graph.init(adapters[0], rng, adapters[1]),
    }
    variables = jax.tree.map(jnp.copy, variables)
    raw = jnp.ones(num_summands)
    knots = -(-num_steps // steps_per_knot)
    zeros = jnp.zeros((knots, num_summands))
    state = SearchState(
      jnp.zeros((), jnp.int32),
      variables,
      optimizer.init({k: variables[k]['params'] for k in roles}),
      raw,
      rules.optimizer.init(raw),
      Knots(jnp.zeros(knots, jnp.int32), jnp.zeros(knots), zeros, zeros),
    )
    constant = {k: carry[k].variables for k in networks if k != student}
    return state, constant

  def step(
    state: SearchState,
    frozen: dict[str, Variables],
    batches: dict[str, Batch],
    rng: Array,
    static: Any,
  ) -> tuple[SearchState, Metrics]:
    del static

    def variables_of(params: PyTree) -> dict[str, Variables]:
      trained = {
        k: graph.merge(state.variables[k], {'params': params[k]}) for k in roles
      }
      return {**frozen, **trained}

    progress = state.step / num_steps
    rng_validation = random.step_key(rng, 'validation')
    problem = bilevel.Problem(
      lambda p: training(variables_of(p), batches['train'], rng, progress),
      lambda p: validation(
        variables_of(p), batches['validation'], rng_validation
      ),
      lambda raw: rules.factor * rules.normalize(raw),
    )
    ahead = bilevel.look_ahead(
      problem,
      optimizer,
      state.optimizer,
      {k: state.variables[k]['params'] for k in roles},
      state.raw,
      hypergradient=rules.hypergradient,
    )
    change, raw_state = optimizers.update(
      rules.optimizer,
      ahead.gradient,
      state.raw_optimizer,
      state.raw,
      value=ahead.validation,
    )
    raw = optax.apply_updates(state.raw, change)
    used, params = state.raw, ahead.params
    optimizer_state = ahead.optimizer
    if rules.order == 'algorithm1':
      used, (params, optimizer_state) = raw, ahead.take(raw)
    updates, metrics = ahead.aux
    variables = {
      k: graph.merge(
        state.variables[k], {**updates.get(k, {}), 'params': params[k]}
      )
      for k in roles
    }
    weights = rules.normalize(used)
    knot = state.step // steps_per_knot
    knots = _add(state.knots, knot, state.step, used, weights)
    new_state = SearchState(
      state.step + 1, variables, optimizer_state, raw, raw_state, knots
    )
    return new_state, {
      **metrics,
      'loss': ahead.loss,
      'pathways': weights @ ahead.summands,
      'validation_loss': ahead.validation,
    }

  def finished(state: SearchState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    model = Model(networks[student], state.variables[student])
    reached = np.asarray(state.knots.taken) > 0
    knots = jax.tree.map(lambda x: np.asarray(x)[reached], state.knots)
    return finish(knots, {**carry, student: model})

  return Phase(
    name=name,
    num_steps=num_steps,
    streams=streams,
    init=init,
    step=step,
    finish=finished,
    eval_models={
      student: lambda state, frozen: Model(
        networks[student], state.variables[student]
      )
    },
    stop=lambda state: optimizers.ended(state.optimizer),
    report=lambda state, carry: report(carry),
  )


def _add(
  knots: Knots, index: Array, step: Array, raw: Array, weights: Array
) -> Knots:
  """Includes one step in the means of a knot."""
  count = knots.taken[index] + 1

  def mean(means: Array, value: Array) -> Array:
    return means.at[index].add((value - means[index]) / count)

  return Knots(
    knots.taken.at[index].set(count),
    mean(knots.steps, step.astype(jnp.float32)),
    mean(knots.raw, raw),
    mean(knots.weights, weights),
  )
