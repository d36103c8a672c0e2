"""The compiled steps of a phase, one or several per call, and their totals."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Method,
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


# static -> the function of one step without totals:
# (state, frozen, batches, rng, index) -> (state, metrics).
SingleSteps = Callable[[Static], Callable[..., tuple[PyTree, Metrics]]]


class Program(NamedTuple):
  """The steps of a phase, which phases that differ in numbers share.

  Attributes:
    steps: (static, count) -> the function of `count` steps with totals, see
      `lanes.Step`, and the numbers of this phase that it takes.
    totals: those of one run before the first step, see `zero_totals`.
  """

  steps: Callable[[Static, int], tuple[lanes_lib.Step, shared_steps.Numbers]]
  totals: PyTree


class Programs:
  """The programs of methods, which seeds and rows share.

  A phase is a set of functions that are made for one carry. Other runs can use
  them if they do not depend on the values in the carry. They certainly do not
  if the phase can be built from shapes alone and then traced.

  Methods that differ only in numbers share programs, too, which take these
  numbers as arguments. The methods are known from the beginning, so that the
  program of a method is the same whichever of them is trained first.
  """

  def __init__(self, methods: Iterable[Method] = ()) -> None:
    """Begins without programs.

    Args:
      methods: those that may differ only in numbers.
    """
    self._methods = list(methods)
    # The shapes with which phases begin, and the programs of these phases; None
    # if a phase needs the values in its carry.
    self._known: list[tuple[Any, dict[PhaseBuilder, Program | None]]] = []

  def of_runs(
    self,
    builders: Sequence[PhaseBuilder],
    carries: Sequence[Carry],
    inputs: Sequence[PyTree],
    mesh: Mesh,
  ) -> list[Program] | None:
    """Returns the programs of runs, which earlier runs may have made.

    Returns None if a phase needs the values in its carry.

    Args:
      builders: what builds the phase of each run.
      carries: what the phase before handed on, for each run.
      inputs: the arguments (state, frozen, batches, rng) of the step of the
        first run. Those of the others have the same shapes.
      mesh: the devices.
    """
    shapes, *others = (_shapes(dict(carry)) for carry in carries)
    if any(other != shapes for other in others):
      return None
    programs = []
    for build in builders:
      program = self._alike(build, shapes, inputs, mesh)[build]
      if program is None:
        return None
      programs.append(program)
    return programs

  def _alike(
    self,
    build: PhaseBuilder,
    shapes: '_Shapes',
    inputs: Sequence[PyTree],
    mesh: Mesh,
  ) -> dict[PhaseBuilder, Program | None]:
    """Returns the programs of a phase and of its alternatives."""
    begun = shapes, jax.tree.flatten(inputs)
    for other, programs in self._known:
      if build in programs and other == begun:
        return programs
    programs = dict.fromkeys(self._alternatives(build))
    programs |= self._make(build, shapes, inputs, mesh)
    self._known.append((begun, programs))
    return programs

  def _make(
    self,
    build: PhaseBuilder,
    shapes: '_Shapes',
    inputs: Sequence[PyTree],
    mesh: Mesh,
  ) -> dict[PhaseBuilder, Program]:
    """Makes the programs of the phases that can be built without values."""
    totals: dict[PhaseBuilder, PyTree] = {}

    def singles() -> Iterator[Callable[..., Any]]:
      for other in self._alternatives(build):
        try:
          phase = other(jax.tree.unflatten(*shapes))
          traced = trace(phase, inputs, mesh)
        except Exception:  # without the values, a phase may fail in any way
          continue
        # Of a phase with several programs, only the first one has been traced,
        # and the others might still depend on values.
        if phase.static is Phase._field_defaults['static']:
          totals[other] = traced.totals
          yield traced.single(phase.static(0))

    pairs = shared_steps.shared(singles(), (*inputs, np.int32(0)))
    return dict(zip(totals, _programs(lambda static: pairs, totals.values())))

  def _alternatives(self, build: PhaseBuilder) -> list[PhaseBuilder]:
    """Returns a phase and those at the same place of the other methods."""
    places = {m.index(build) for m in self._methods if build in m}
    phases = [m[i] for m in self._methods for i in places if i < len(m)]
    return list(dict.fromkeys(phases or [build]))


def placed_shape(x: Any) -> Any:
  """Returns what tracing needs to know of an array, without its values."""
  if not isinstance(x, (jax.Array, np.ndarray)):
    return x
  place = getattr(x, 'sharding', None)
  is_weak = getattr(x, 'weak_type', False)  # keys have no such attribute
  return jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=place, weak_type=is_weak
  )


# The structure of a tree, and its leaves with shapes in place of arrays.
_Shapes = tuple[jax.tree_util.PyTreeDef, list[Any]]


def _shapes(tree: PyTree) -> _Shapes:
  def shape(x: Any) -> Any:
    is_array = isinstance(x, (jax.Array, np.ndarray))
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if is_array else x

  leaves, structure = jax.tree.flatten(tree)
  return structure, list(map(shape, leaves))


class Traced(NamedTuple):
  """A phase whose step has been traced.

  Attributes:
    single: its steps without totals, each of which is traced once.
    totals: see `zero_totals`.
  """

  single: SingleSteps
  totals: PyTree


def trace(phase: Phase, inputs: Sequence[PyTree], mesh: Mesh) -> Traced:
  """Traces the first step of a phase.

  Args:
    phase: the phase.
    inputs: the arguments (state, frozen, batches, rng) of its step.
    mesh: the devices.
  """
  single = single_steps(phase, mesh)
  return Traced(single, zero_totals(single(phase.static(0)), *inputs))


def shared(
  phases: Sequence[Traced], inputs: Sequence[PyTree] = ()
) -> list[Program]:
  """Returns the programs of phases; steps that differ in numbers become one.

  Args:
    phases: the phases.
    inputs: see `trace`; only needed if there are several phases.
  """

  @functools.cache
  def pairs(static: Static) -> Sequence[_Pair]:
    singles = [phase.single(static) for phase in phases]
    if len(singles) == 1:
      return [(single, ()) for single in singles]
    return shared_steps.shared(singles, (*inputs, np.int32(0)))

  return _programs(pairs, [phase.totals for phase in phases])


# A step without totals, and the numbers that it takes.
_Pair = tuple[Callable[..., Any], shared_steps.Numbers]


def _programs(
  pairs: Callable[[Static], Sequence[_Pair]], totals: Iterable[PyTree]
) -> list[Program]:
  """Returns the programs of phases from their steps and totals."""
  with_totals = functools.cache(_with_totals)

  def program(i: int, of_phase: PyTree) -> Program:
    def steps(static: Static, count: int) -> Any:
      single, numbers = pairs(static)[i]
      return with_totals(single, count), numbers

    return Program(steps, of_phase)

  return list(itertools.starmap(program, enumerate(totals)))


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
  runs: Sequence[Program],
  layout: PyTree,
  mesh: Mesh,
  lanes: lanes_lib.Lanes | None = None,
  frozen_axes: PyTree = None,
) -> Callable[[Static, int], lanes_lib.Program]:
  """Returns jitted steps, with augmentation and running totals.

  A step that is compiled once serves all runs that have it.

  Args:
    runs: the program of each run.
    layout: the shardings of the state, see `sharding.layout`.
    mesh: the devices.
    lanes: how the runs share the program; None: there is one run.
    frozen_axes: see `Lanes.frozen`.

  Returns:
    (static, count) -> a function (state, totals, frozen, batches, rng, index)
    -> (state, totals), which donates the state and the totals. `index` is the
    number of the first of `count` steps. If `count` is above 1, the batches of
    the steps are stacked along a new first dimension.
  """
  shardings = (layout, sharding.whole(mesh))
  lanes = lanes or lanes_lib.Alone()

  @functools.cache
  def program(static: Static, count: int) -> lanes_lib.Program:
    steps, numbers = zip(*(run.steps(static, count) for run in runs))
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
