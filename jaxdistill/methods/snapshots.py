"""Any method, with copies of the student kept at chosen steps.

A student that is compared with others at several points of its training needs
to be trained only once this way.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Carry,
  Method,
  Model,
  Phase,
  PhaseBuilder,
  PyTree,
  Variables,
)


class SnapshotState(NamedTuple):
  """The state of a phase that keeps snapshots.

  Attributes:
    step: the number of steps taken, int32.
    phase: the state of the phase itself.
    kept: the variables at each of the chosen steps; before such a step, the
      initial variables.
  """

  step: Array
  phase: PyTree
  kept: tuple[Variables, ...]


def snapshots(
  *, method: Method, at: Sequence[float], student: str = 'student'
) -> Method:
  """Trains with any method and keeps copies of the student along the way.

  The copies become the roles 'snapshot1', 'snapshot2', ... of the carry. They
  are taken in each phase that shows the student for evaluation, and those of
  the last such phase remain. The training itself is unchanged to the bit.

  Args:
    method: trains the student; a section in a config.
    at: fractions of a phase's steps, in (0, 1], for example where the learning
      rate changes.
    student: the role of the model that is copied.

  Raises:
    UsageError: a fraction is out of its range, or there are no fractions.
  """
  if not at:
    raise UsageError('at: expected at least one number in (0, 1], got none')
  for fraction in at:
    checks.number('at', fraction, above=0, at_most=1)

  def with_snapshots(
    phase_of: PhaseBuilder,
  ) -> PhaseBuilder:
    @functools.wraps(phase_of)
    def build(carry: Carry) -> Phase:
      phase = phase_of(carry)
      if student not in phase.eval_models:
        return phase
      return _with_snapshots(phase, at, student)

    return build

  return tuple(with_snapshots(phase_of) for phase_of in method)


def _with_snapshots(phase: Phase, at: Sequence[float], student: str) -> Phase:
  """Wraps a phase so that it keeps copies of the student."""
  steps = [max(1, round(fraction * phase.num_steps)) for fraction in at]

  def init(rng: Array, carry: Carry) -> tuple[SnapshotState, PyTree]:
    state, frozen = phase.init(rng, carry)
    initial = phase.eval_models[student](state, frozen).variables
    kept = tuple(jax.tree.map(jnp.copy, initial) for _ in steps)
    return SnapshotState(jnp.zeros((), jnp.int32), state, kept), frozen

  def step(state, frozen, batches, rng, static):
    inner, metrics = phase.step(state.phase, frozen, batches, rng, static)
    current = phase.eval_models[student](inner, frozen).variables
    count = state.step + 1
    kept = tuple(
      jax.tree.map(
        lambda new, old, at_step=at_step: jnp.where(count == at_step, new, old),
        current,
        earlier,
      )
      for at_step, earlier in zip(steps, state.kept)
    )
    return SnapshotState(count, inner, kept), metrics

  def finish(state: SnapshotState, frozen: PyTree, carry: Carry) -> Carry:
    last = phase.eval_models[student](state.phase, frozen)
    copies = {
      # A phase that stopped early never reached the step: its last model is
      # taken instead.
      f'snapshot{i + 1}': Model(
        last.network, kept if state.step >= at_step else last.variables
      )
      for i, (at_step, kept) in enumerate(zip(steps, state.kept))
    }
    return {**phase.finish(state.phase, frozen, carry), **copies}

  def of_inner(model_of):
    return lambda state, frozen: model_of(state.phase, frozen)

  return phase._replace(
    init=init,
    step=step,
    finish=finish,
    eval_models={
      role: of_inner(model_of) for role, model_of in phase.eval_models.items()
    },
    stop=lambda state: phase.stop(state.phase),
    report=lambda state, carry: phase.report(state.phase, carry),
  )
