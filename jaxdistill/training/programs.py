"""The compiled steps of a phase, one or several per call, and their totals."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from jaxdistill.core import random
from jaxdistill.core.types import Array, Batch, Metrics, Phase, PyTree, Static
from jaxdistill.training.distributed import sharding


def together(
  phase: Phase, step: int, ends: tuple[int, ...], steps_per_call: int
) -> int:
  """Returns how many steps the next call takes: 1 or `steps_per_call`.

  The number depends only on the step, so a resumed run makes the same calls.
  Several steps are taken together if the first one is a multiple of
  `steps_per_call`, if none of `ends` lies between them, and if one program
  serves all of them.

  Args:
    phase: the running phase.
    step: the number of steps taken so far.
    ends: intervals in steps; after each multiple of one, something is done on
      the host.
    steps_per_call: the largest number of steps in one call.
  """
  after = step + steps_per_call
  until = min(*((step // n + 1) * n for n in ends), phase.num_steps)
  if step % steps_per_call or after > until:
    return 1
  programs = {phase.static(i) for i in range(step, after)}
  return steps_per_call if len(programs) == 1 else 1


def compiled(
  phase: Phase, layout: PyTree, mesh: Mesh
) -> Callable[..., Callable[..., Any]]:
  """Returns jitted steps, with augmentation and running totals.

  Args:
    phase: the phase whose step is compiled.
    layout: the shardings of the state, see `sharding.layout`.
    mesh: the devices.

  Returns:
    (static, count) -> a function (state, totals, frozen, batches, rng, index)
    -> (state, totals), which donates the state and the totals. `index` is the
    number of the first of `count` steps. If `count` is above 1, the batches of
    the steps are stacked along a new first dimension.
  """
  shardings = (layout, sharding.whole(mesh))

  @functools.cache
  def program(static: Static, count: int) -> Callable[..., Any]:
    def one(state, totals, frozen, batches, rng, index):
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        state, metrics = _one_step(
          phase, state, frozen, batches, rng, index, static
        )
      is_finite = jnp.isfinite(metrics.get('loss', 0.0))
      is_first_bad = ~is_finite & (totals['bad'] < 0)
      bad = jnp.where(is_first_bad, index, totals['bad'])
      sums = jax.tree.map(jnp.add, totals['sums'], metrics)
      return state, {'sums': sums, 'count': totals['count'] + 1, 'bad': bad}

    def several(state, totals, frozen, batches, rng, index):
      def body(carry, inputs):
        step_batches, step_index = inputs
        return one(*carry, frozen, step_batches, rng, step_index), None

      steps = batches, index + jnp.arange(count, dtype=np.int32)
      return jax.lax.scan(body, (state, totals), steps)[0]

    return jax.jit(
      one if count == 1 else several,
      donate_argnums=(0, 1),
      out_shardings=shardings,
    )

  return program


def _one_step(
  phase: Phase,
  state: PyTree,
  frozen: PyTree,
  batches: dict[str, Batch],
  rng: Array,
  index: Any,
  static: Static,
) -> tuple[PyTree, Metrics]:
  """Augments the batches of step number `index` and takes the step."""
  rng = jax.random.fold_in(rng, index)
  augmented = {
    name: phase.streams[name].augment(random.step_key(rng, 'augment', i), batch)
    for i, (name, batch) in enumerate(batches.items())
  }
  state, metrics = phase.step(state, frozen, augmented, rng, static)
  return state, {k: v.astype(jnp.float32) for k, v in metrics.items()}


def zero_totals(
  phase: Phase,
  state: PyTree,
  frozen: PyTree,
  batches: dict[str, Batch],
  rng: Array,
) -> PyTree:
  """Returns totals before the first step.

  Returns:
    {'sums': metric -> its sum since the last record, 'count': the number of
    steps in the sums, 'bad': the first step whose loss was not finite, or -1}.
  """
  step = functools.partial(_one_step, phase, static=phase.static(0))
  _, metrics = jax.eval_shape(
    lambda *a: step(*a), state, frozen, batches, rng, np.int32(0)
  )
  sums = {k: jnp.zeros(v.shape, v.dtype) for k, v in metrics.items()}
  return {'sums': sums, 'count': jnp.int32(0), 'bad': jnp.int32(-1)}


@jax.jit
def has_nan(tree: PyTree) -> Array:
  """Returns whether any value is NaN.

  The gradient of a finite loss may be NaN, so checking the loss is not enough.
  """
  floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x, jnp.inexact)]
  return jnp.any(jnp.array([jnp.isnan(x).any() for x in floats] or [False]))


def cleared(totals: PyTree) -> PyTree:
  """Returns totals of the same structure that contain no steps."""
  zeros = jax.tree.map(jnp.zeros_like, totals)
  return {**zeros, 'bad': zeros['bad'] - 1}


def means(totals: PyTree) -> dict[str, float]:
  """Returns {metric: its mean over the steps in the totals}."""
  totals = jax.device_get(totals)
  return {k: float(v / totals['count']) for k, v in totals['sums'].items()}
