"""Any method, with the model kept at some steps on the way."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.pruning import sparsity
from jaxdistill.types import (
  Array,
  Carry,
  Method,
  Model,
  Phase,
  PyTree,
  UsageError,
  Variables,
)


class SnapshotState(NamedTuple):
  """State of a phase that keeps snapshots.

  Attributes:
    step: how many were taken, int32.
    phase: the state of the phase itself.
    kept: the variables at each of the steps, the first ones until then.
  """

  step: Array
  phase: PyTree
  kept: tuple[Variables, ...]


def snapshots(
  *, method: Method, at: Sequence[float], student: str = 'student'
) -> Method:
  """A method whose model is also kept as it was at some shares of its phases.

  They become the roles 'snapshot1', 'snapshot2', ... of the carry, of the last
  phase that shows the student. Nothing else changes, to the bit.

  Args:
    method: trains the student; a section in a config.
    at: shares of the steps, in (0, 1], such as the ends of the rates' steps.
    student: the role that is kept.

  Raises:
    UsageError: a share is not in (0, 1], or there is none.
  """
  if not at:
    raise UsageError('at: wanted at least one share in (0, 1]')
  for share in at:
    sparsity.check_keep('at', share)

  def kept(make: Callable[[Carry], Phase]) -> Callable[[Carry], Phase]:
    def build(carry: Carry) -> Phase:
      phase = make(carry)
      return _keeping(phase, at, student) if student in phase.views else phase

    return build

  return tuple(kept(make) for make in method)


def _keeping(phase: Phase, at: Sequence[float], student: str) -> Phase:
  steps = [max(1, round(share * phase.num_steps)) for share in at]

  def init(rng: Array, carry: Carry) -> tuple[SnapshotState, PyTree]:
    state, frozen = phase.init(rng, carry)
    first = phase.views[student](state, frozen).variables
    kept = tuple(jax.tree.map(jnp.copy, first) for _ in steps)
    return SnapshotState(jnp.zeros((), jnp.int32), state, kept), frozen

  def step(state, frozen, batches, rng, static):
    inner, metrics = phase.step(state.phase, frozen, batches, rng, static)
    now = phase.views[student](inner, frozen).variables
    count = state.step + 1
    kept = tuple(
      jax.tree.map(
        lambda new, old, s=s: jnp.where(count == s, new, old), now, old
      )
      for s, old in zip(steps, state.kept)
    )
    return SnapshotState(count, inner, kept), metrics

  def finish(state: SnapshotState, frozen: PyTree, carry: Carry) -> Carry:
    ended = phase.views[student](state.phase, frozen)
    found = {
      # A phase that stopped before has not come further.
      f'snapshot{i + 1}': Model(
        ended.network, kept if state.step >= s else ended.variables
      )
      for i, (s, kept) in enumerate(zip(steps, state.kept))
    }
    return {**phase.finish(state.phase, frozen, carry), **found}

  def view(inner):
    return lambda state, frozen: inner(state.phase, frozen)

  return phase._replace(
    init=init,
    step=step,
    finish=finish,
    views={role: view(inner) for role, inner in phase.views.items()},
    stop=lambda state: phase.stop(state.phase),
    report=lambda state, carry: phase.report(state.phase, carry),
  )
