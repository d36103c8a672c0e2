"""The compiled steps of a phase, one or several per call, and their totals."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Phase,
  PhaseBuilder,
  PyTree,
  Static,
)
from jaxdistill.training import lanes as lanes_lib
from jaxdistill.training import shared_steps
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


def steps_per_call() -> int:
  """Returns how many steps a call takes by default, see `FitOptions`."""
  return 1 if jax.default_backend() == 'cpu' else 10


# (static, count) -> a function (state, totals, frozen, batches, rng, index) ->
# (state, totals), which donates the state and the totals.
Steps = Callable[[Static, int], Callable[..., Any]]
# static -> the function of one step without totals:
# (state, frozen, batches, rng, index) -> (state, metrics).
SingleSteps = Callable[[Static], Callable[..., tuple[PyTree, Metrics]]]
# The steps of a phase, and the totals of one seed before the first of them.
Program = tuple[Steps, PyTree]


class Programs:
  """The programs of a method, which all seeds of a row share.

  A phase is a set of functions that are made for one carry. Other seeds can use
  them if they do not depend on the values in the carry. They certainly do not
  if the phase can be built from shapes alone and then traced.
  """

  def __init__(self) -> None:
    """Begins without programs."""
    self._entries: dict[int, tuple[Carry, Program]] = {}

  def program(
    self,
    build: PhaseBuilder,
    order: int,
    carries: Sequence[Carry],
    make: Callable[[Sequence[Phase]], Program],
    own: Callable[[], Program],
  ) -> Program:
    """Returns the program of a phase, which may be that of earlier seeds.

    Args:
      build: builds the phase.
      order: its position in the method.
      carries: what the phase before handed on, for each seed.
      make: makes a program from one phase that serves all seeds.
      own: makes a program from the separate phases of these seeds.
    """
    shapes, *others = map(_shapes, carries)
    if any(other != shapes for other in others):
      return own()
    # After a group of seeds, a group of the same size rarely follows.
    kept = None if others else self._entries.get(order)
    if kept is not None and kept[0] == shapes:
      return kept[1]
    try:
      phase = build(shapes)
      # Of a phase with several programs, only the first one is traced here, and
      # the others might still depend on values.
      if phase.static is not Phase._field_defaults['static']:
        return own()
      program = make([phase])
    except Exception:  # without the values, a phase may fail in any way
      return own()
    if not others:
      self._entries[order] = shapes, program
    return program


def _shapes(carry: Carry) -> Carry:
  """Returns a carry with shapes in place of arrays."""

  def shape(x: Any) -> Any:
    is_array = isinstance(x, (jax.Array, np.ndarray))
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if is_array else x

  shapes: Carry = jax.tree.map(shape, dict(carry))
  return shapes


def single_steps(phase: Phase, mesh: Mesh) -> SingleSteps:
  """Returns the steps of a phase without totals, each of which is traced once.

  `zero_totals` and `compiled` both need the trace.

  Args:
    phase: the phase.
    mesh: the devices.
  """

  @functools.cache
  def step(static: Static) -> Callable[..., tuple[PyTree, Metrics]]:
    def one(state, frozen, batches, rng, index):
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return _one_step(phase, state, frozen, batches, rng, index, static)

    return jax.jit(one, inline=True)

  return step


def compiled(
  phases: Sequence[SingleSteps],
  layout: PyTree,
  mesh: Mesh,
  lanes: lanes_lib.Lanes | None = None,
  frozen_axes: PyTree = None,
  inputs: Sequence[PyTree] = (),
) -> Steps:
  """Returns jitted steps, with augmentation and running totals.

  Args:
    phases: the steps of each run; steps that differ only in numbers become one.
    layout: the shardings of the state, see `sharding.layout`.
    mesh: the devices.
    lanes: how the runs share the program; None: there is one run.
    frozen_axes: see `Lanes.frozen`.
    inputs: the arguments of the step of one run without totals; only needed if
      the phases differ.

  Returns:
    (static, count) -> a function (state, totals, frozen, batches, rng, index)
    -> (state, totals), which donates the state and the totals. `index` is the
    number of the first of `count` steps. If `count` is above 1, the batches of
    the steps are stacked along a new first dimension.
  """
  shardings = (layout, sharding.whole(mesh))
  lanes = lanes or lanes_lib.Alone()

  @functools.cache
  def program(static: Static, count: int) -> Callable[..., Any]:
    singles = [single(static) for single in phases]
    numbers: list[PyTree] = [()] * len(singles)
    if any(single is not singles[0] for single in singles):
      pairs = shared_steps.shared(singles, inputs)
      singles, numbers = map(list, zip(*pairs))
    with_totals = functools.cache(lambda single: _with_totals(single, count))
    steps = list(map(with_totals, singles))
    return lanes.program(steps, numbers, frozen_axes, shardings)

  return program


def _with_totals(
  single: Callable[..., tuple[PyTree, Metrics]], count: int
) -> lanes_lib.Step:
  """Returns a function that takes `count` steps of one seed with its totals."""

  def one(state, totals, frozen, batches, rng, index, numbers=()):
    state, metrics = single(state, frozen, batches, rng, index, *numbers)
    is_finite = jnp.isfinite(metrics.get('loss', 0.0))
    is_first_bad = ~is_finite & (totals['bad'] < 0)
    bad = jnp.where(is_first_bad, index, totals['bad'])
    sums = jax.tree.map(jnp.add, totals['sums'], metrics)
    return state, {'sums': sums, 'count': totals['count'] + 1, 'bad': bad}

  def several(state, totals, frozen, batches, rng, index, numbers=()):
    def body(carry, inputs):
      step_batches, step_index = inputs
      return one(*carry, frozen, step_batches, rng, step_index, numbers), None

    steps = batches, index + jnp.arange(count, dtype=np.int32)
    return jax.lax.scan(body, (state, totals), steps)[0]

  return one if count == 1 else several


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
  single: Callable[..., tuple[PyTree, Metrics]],
  state: PyTree,
  frozen: PyTree,
  batches: dict[str, Batch],
  rng: Array,
) -> PyTree:
  """Returns the totals before the first step.

  Returns:
    {'sums': metric -> its sum since the last record, 'count': the number of
    steps in the sums, 'bad': the first step whose loss was not finite, or -1}.
  """
  _, metrics = jax.eval_shape(single, state, frozen, batches, rng, np.int32(0))
  sums = {k: jnp.zeros(v.shape, v.dtype) for k, v in metrics.items()}
  return {'sums': sums, 'count': jnp.int32(0), 'bad': jnp.int32(-1)}


def means(totals: PyTree) -> dict[str, float]:
  """Returns {metric: its mean over the steps in the totals}."""
  totals = jax.device_get(totals)
  return {k: float(v / totals['count']) for k, v in totals['sums'].items()}
