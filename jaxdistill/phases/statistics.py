"""A phase that re-estimates batch statistics and changes nothing else."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxdistill.core import checks, random
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


class StatisticsState(NamedTuple):
  """The state of a statistics phase.

  Attributes:
    step: the number of steps taken, int32.
    variables: the variables of the model.
  """

  step: Array
  variables: Variables


class Forward(Protocol):
  """The forward pass of a statistics phase."""

  def __call__(
    self,
    variables: Variables,
    frozen: dict[str, Variables],
    batches: Mapping[str, Batch],
    rng: Array,
    /,
  ) -> Variables:
    """Runs a pass in which the chosen stages are in training mode.

    Args:
      variables: the variables of the model.
      frozen: role -> variables, of the roles in `constant`.
      batches: {'train': batch}, or {} without a stream.
      rng: the random key of the step.

    Returns:
      The collections that the pass changed, among them 'batch_stats'.
    """


def statistics_phase(
  name: str,
  network: Network,
  stages: Sequence[str],
  *,
  role: str,
  num_steps: int,
  stream: Stream | None,
  forward: Forward | None = None,
  constant: Sequence[str] = (),
  stochastic: bool = True,
) -> Phase:
  """Builds a phase that re-estimates the batch statistics of some stages.

  The new statistics are the means of the statistics of `num_steps` batches,
  while the parameters stay as they are.

  Args:
    name: the name of the phase, a valid file name.
    network: the network of the role.
    stages: the stages whose statistics are estimated.
    role: the role of the model in the carry.
    num_steps: the number of batches.
    stream: the batches; None if `forward` draws its own inputs.
    forward: the pass, see `Forward`. None: a pass from the image, in which the
      stages before the chosen ones are in inference mode and the stages after
      them do not run.
    constant: the roles whose variables `forward` reads.
    stochastic: whether the default pass draws dropout and the like.

  Raises:
    UsageError: the network does not have one of the stages, or the number of
      batches is negative or more than 32 bits can count.
  """
  checks.integer(
    f'the batches of {name!r}', num_steps, at_least=0, at_most=2**31 - 1
  )
  graph.check_stages(network, stages)
  changed_by = forward or _from_image(network, stages, stochastic)

  def init(
    rng: Array, carry: Carry
  ) -> tuple[StatisticsState, dict[str, Variables]]:
    del rng
    frozen = {k: carry[k].variables for k in constant}
    variables = carry[role].variables
    return StatisticsState(jnp.zeros((), jnp.int32), variables), frozen

  def step(
    state: StatisticsState,
    frozen: dict[str, Variables],
    batches: dict[str, Batch],
    rng: Array,
    static: Static,
  ) -> tuple[StatisticsState, Metrics]:
    del static
    other_collections = {
      k: v for k, v in state.variables.items() if k != 'batch_stats'
    }
    means = state.variables.get('batch_stats', {})

    def running(statistics: dict[str, PyTree]) -> dict[str, PyTree]:
      variables = {
        **other_collections,
        'batch_stats': {**means, **statistics},
      }
      return changed_by(variables, frozen, batches, rng).get('batch_stats', {})

    # A norm computes new = m * old + (1 - m) * batch. With old = 0, the
    # derivative of new in old is m, from which the batch's own value follows.
    old = {
      k: jax.tree.map(jnp.zeros_like, means[k]) for k in stages if k in means
    }
    ones = jax.tree.map(jnp.ones_like, old)
    new, slope = jax.jvp(running, (old,), (ones,))

    def average(mean: Array, new: Array, slope: Array) -> Array:
      # A frozen norm keeps the old value, so its slope is 1.
      is_frozen = slope == 1
      batch = jnp.where(
        is_frozen, mean, new / jnp.where(is_frozen, 1, 1 - slope)
      )
      averaged: Array = mean + (batch - mean) / (state.step + 1)
      return averaged

    averages = jax.tree.map(average, {k: means[k] for k in old}, new, slope)
    variables = graph.merge(state.variables, {'batch_stats': averages})
    return StatisticsState(state.step + 1, variables), {}

  def finish(state: StatisticsState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    return {**carry, role: Model(network, state.variables)}

  streams = {} if stream is None else {'train': stream}
  return Phase(name, num_steps, streams, init, step, finish)


def _from_image(
  network: Network, stages: Sequence[str], stochastic: bool
) -> Forward:
  """Returns the pass from the image to the last of some stages."""
  names = graph.stage_names(network)
  last = max((names.index(stage) for stage in stages), default=0)
  needed = names[: 1 + last]

  def forward(
    variables: Variables,
    frozen: dict[str, Variables],
    batches: Mapping[str, Batch],
    rng: Array,
  ) -> Variables:
    del frozen
    key = {'dropout': random.step_key(rng, 'dropout')}
    _, updates = graph.run(
      network,
      variables,
      {'image': batches['train']['image']},
      only=needed,
      train=stages,
      rngs=key if stochastic else None,
    )
    return updates

  return forward
