"""A phase that trains on weighted summands, and learns their weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill import bilevel, optimizers
from jaxdistill.data import arrays, batches
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
  Recipe,
  Stream,
  UsageError,
  Variables,
)

ORDERS = ('keep', 'algorithm1')
# (variables by role, batch, rng) -> ((loss of labels [], summands [L]),
# (updates by role, metrics)).
Training = Callable[
  [dict[str, Variables], Batch, Array],
  tuple[tuple[Array, Array], tuple[dict[str, Variables], Metrics]],
]


class Knots(NamedTuple):
  """Means over the steps of each epoch.

  Attributes:
    taken: how many, int32 `[K]`.
    steps: their indices, `[K]`.
    raw: `[K, L]`.
    weights: `[K, L]`.
  """

  taken: Array
  steps: Array
  raw: Array
  weights: Array


class SearchState(NamedTuple):
  """State of a search.

  Attributes:
    step: how many steps were taken, int32.
    variables: by role, of all that train.
    optimizer: the state of their optimiser.
    raw: weights of the summands before normalisation, `[L]`.
    raw_optimizer: the state of theirs.
    knots: the weights that were used.
  """

  step: Array
  variables: dict[str, Variables]
  optimizer: optax.OptState
  raw: Array
  raw_optimizer: optax.OptState
  knots: Knots


class Rules(NamedTuple):
  """How the weights are learnt.

  Attributes:
    hypergradient: see `bilevel.look_ahead`.
    order: 'keep': the step with the weights so far is the look-ahead, and
      stays; 'algorithm1': it is thrown away and taken again with the new ones.
    normalize: raw `[L]` -> weights `[L]`.
    optimizer: of the raw weights, which begin at 1.
  """

  hypergradient: str
  order: str
  normalize: Callable[[Array], Array]
  optimizer: optax.GradientTransformation


def split(
  recipe: Recipe, validation: float
) -> tuple[Recipe, dict[str, Stream]]:
  """The recipe of a part of the examples, and the streams of both parts.

  Args:
    recipe: of all.
    validation: share of the examples that are held out.

  Raises:
    UsageError: it is no share, or of so few examples none.
  """
  if not 0 < validation < 1:
    raise UsageError(f'validation: {validation} is no share between 0 and 1')
  size, stream = len(recipe.examples['label']), recipe.stream
  first, second = (0.0, 1 - validation), (1 - validation, 1.0)
  rows = arrays.part_rows(size, first)
  held_out = size - len(rows)
  if not held_out:
    raise UsageError(f'validation: {validation} of {size} examples is none')
  part = recipe._replace(
    steps_per_epoch=batches.steps_per_epoch(len(rows), stream.batch_size),
    stream=stream._replace(part=first),
    examples={k: v[rows] for k, v in recipe.examples.items()},
  )
  other = stream._replace(
    part=second, batch_size=min(stream.batch_size, held_out)
  )
  return part, {'train': part.stream, 'validation': other}


def search_phase(
  name: str,
  training: Training,
  validation: Callable[[dict[str, Variables], Batch, Array], Array],
  optimizer: optax.GradientTransformation,
  rules: Rules,
  *,
  num_summands: int,
  num_steps: int,
  steps_per_knot: int,
  streams: Mapping[str, Stream],
  networks: Mapping[str, Network],
  student: str,
  helpers: tuple[Network, Mapping[str, Any]],
  finish: Callable[[Knots, Carry], Carry],
  report: Callable[[Carry], dict[str, Any]],
) -> Phase:
  """Minimises label + sum_p weight_p summand_p, and learns the weights.

  Only the step itself changes batch statistics.

  Args:
    name: of the phase.
    training: the summands.
    validation: what the weights minimise.
    optimizer: of the parameters.
    rules: of the weights.
    num_summands: L.
    num_steps: how many.
    steps_per_knot: over how many the weights are averaged.
    streams: 'train' and 'validation'.
    networks: role -> network, of every role whose variables are read; all but
      the student's are constant.
    student: the role that trains, whole.
    helpers: see `steps.gradient_phase`.
    finish: (knots that were reached, carry with the trained student) -> carry.
    report: what `finish` made -> {file name: JSON}.
  """
  roles = (student, 'helpers')

  def init(rng: Array, carry: Carry) -> tuple[SearchState, PyTree]:
    variables = {
      student: carry[student].variables,
      'helpers': staged.init(helpers[0], rng, helpers[1]),
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
      own = {
        k: staged.merge(state.variables[k], {'params': params[k]})
        for k in roles
      }
      return {**frozen, **own}

    rng_validation = jax.random.fold_in(rng, 1)
    objective = bilevel.Objective(
      lambda p: training(variables_of(p), batches['train'], rng),
      lambda p: validation(
        variables_of(p), batches['validation'], rng_validation
      ),
      rules.normalize,
    )
    ahead = bilevel.look_ahead(
      objective,
      optimizer,
      state.optimizer,
      {k: state.variables[k]['params'] for k in roles},
      state.raw,
      hypergradient=rules.hypergradient,
    )
    change, raw_state = rules.optimizer.update(
      ahead.gradient, state.raw_optimizer, state.raw
    )
    raw = optax.apply_updates(state.raw, change)
    used, params, after = state.raw, ahead.params, ahead.optimizer
    if rules.order == 'algorithm1':
      used, (params, after) = raw, ahead.take(raw)
    updates, metrics = ahead.aux
    variables = {
      k: staged.merge(
        state.variables[k], {**updates.get(k, {}), 'params': params[k]}
      )
      for k in roles
    }
    weights = rules.normalize(used)
    place = state.step // steps_per_knot
    knots = _add(state.knots, place, state.step, used, weights)
    new = SearchState(state.step + 1, variables, after, raw, raw_state, knots)
    return new, {
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
    views={
      student: lambda state, frozen: Model(
        networks[student], state.variables[student]
      )
    },
    stop=lambda state: optimizers.ended(state.optimizer),
    report=lambda state, carry: report(carry),
  )


def _add(
  knots: Knots, place: Array, step: Array, raw: Array, weights: Array
) -> Knots:
  """Takes one step into the means of a knot."""
  count = knots.taken[place] + 1

  def mean(means: Array, value: Array) -> Array:
    return means.at[place].add((value - means[place]) / count)

  return Knots(
    knots.taken.at[place].set(count),
    mean(knots.steps, step.astype(jnp.float32)),
    mean(knots.raw, raw),
    mean(knots.weights, weights),
  )
