"""The compiled steps of a phase, one or several in a call, and their totals."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from jaxdistill.training import sharding
from jaxdistill.types import Array, Phase, PyTree


def together(
  phase: Phase, step: int, ends: tuple[int, ...], steps_per_call: int
) -> int:
  """How many steps the next call takes, 1 or `steps_per_call`.

  It is a function of the step alone, so a resumed run makes the same calls:
  several steps begin at a multiple of `steps_per_call`, pass no end, and have
  one program.

  Args:
    phase: what runs.
    step: how many steps lie behind.
    ends: numbers of steps; something is done after each multiple.
    steps_per_call: how many at most.
  """
  after = step + steps_per_call
  until = min(*((step // n + 1) * n for n in ends), phase.num_steps)
  if step % steps_per_call or after > until:
    return 1
  kinds = {phase.static(i) for i in range(step, after)}
  return steps_per_call if len(kinds) == 1 else 1


def compiled(
  phase: Phase, layout: PyTree, mesh: Mesh
) -> Callable[..., Callable[..., Any]]:
  """Jitted steps with their augmentation and running totals.

  Args:
    phase: its step.
    layout: how the state lies on the devices.
    mesh: the devices.

  Returns:
    (static, count) -> (state, totals, frozen, batches, rng, index) -> (state,
    totals), donated; `index` is that of the first of `count` steps, whose
    batches lie one behind the other.
  """
  shardings = (layout, sharding.whole(mesh))

  @functools.cache
  def program(static, count):
    def one(state, totals, frozen, drawn, rng, index):
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        state, metrics = _one_step(
          phase, state, frozen, drawn, rng, index, static
        )
      fine = jnp.isfinite(metrics.get('loss', 0.0))
      bad = jnp.where(~fine & (totals['bad'] < 0), index, totals['bad'])
      sums = jax.tree.map(jnp.add, totals['sums'], metrics)
      return state, {'sums': sums, 'count': totals['count'] + 1, 'bad': bad}

    def several(state, totals, frozen, drawn, rng, index):
      def body(carry, at):
        return one(*carry, frozen, at[0], rng, at[1]), None

      steps = drawn, index + jnp.arange(count, dtype=np.int32)
      return jax.lax.scan(body, (state, totals), steps)[0]

    return jax.jit(
      one if count == 1 else several,
      donate_argnums=(0, 1),
      out_shardings=shardings,
    )

  return program


def _one_step(phase, state, frozen, drawn, rng, index, static):
  rng = jax.random.fold_in(rng, index)
  augmented = {
    name: phase.streams[name].augment(jax.random.fold_in(rng, i + 1), batch)
    for i, (name, batch) in enumerate(drawn.items())
  }
  state, metrics = phase.step(state, frozen, augmented, rng, static)
  return state, {k: v.astype(jnp.float32) for k, v in metrics.items()}


def zero_totals(phase, state, frozen, drawn, rng) -> PyTree:
  """Sums of the metrics since the last record, and the first bad step."""
  step = functools.partial(_one_step, phase, static=phase.static(0))
  _, metrics = jax.eval_shape(
    lambda *a: step(*a), state, frozen, drawn, rng, np.int32(0)
  )
  sums = {k: jnp.zeros(v.shape, v.dtype) for k, v in metrics.items()}
  return {'sums': sums, 'count': jnp.int32(0), 'bad': jnp.int32(-1)}


@jax.jit
def has_nan(tree: PyTree) -> Array:
  """Whether any number is none; a gradient may be NaN where the loss is not."""
  floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x, jnp.inexact)]
  return jnp.any(jnp.array([jnp.isnan(x).any() for x in floats] or [False]))


def cleared(totals: PyTree) -> PyTree:
  """Totals of no step."""
  zeros = jax.tree.map(jnp.zeros_like, totals)
  return {**zeros, 'bad': zeros['bad'] - 1}


def means(totals: PyTree) -> dict[str, float]:
  """Of each metric over the steps of the totals."""
  totals = jax.device_get(totals)
  return {k: float(v / totals['count']) for k, v in totals['sums'].items()}
