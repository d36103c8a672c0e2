"""The runs that one program trains: one alone, or several side by side.

Several runs, such as the seeds of a row, have the same program and different
numbers. Each of them has a lane. On a CPU, the program of one run is called for
each lane in turn. Elsewhere, the trees of all runs are stacked along a new
first dimension, over which the program is mapped. Phases and methods are
written for one run alone.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, PyTree

# (state, totals, frozen, batches, rng, index, numbers) -> (state, totals).
# `numbers` are those of `shared_steps`; () by default.
Step = Callable[..., tuple[PyTree, PyTree]]
# The same without `numbers`, and with the trees of all runs.
Program = Callable[..., tuple[PyTree, PyTree]]

# The key cannot change in a work directory in which a phase was trained.
_ADVICE = (
  'set together=False, and if an earlier phase has been trained, choose '
  'another work directory'
)


class Lanes(Protocol):
  """How the trees of the runs are arranged in those of the program."""

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    """Returns the program's tree from those of the runs."""

  def one(self, tree: PyTree, lane: int) -> PyTree:
    """Returns the tree of one run from the program's."""

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    """Returns the number of the next step, or -1 where a run has ended."""

  def program(
    self,
    steps: Sequence[Step],
    numbers: Sequence[PyTree],
    frozen_axes: PyTree,
    shardings: tuple[PyTree, PyTree],
  ) -> Program:
    """Returns the compiled step of all runs, which donates state and totals.

    Args:
      steps: the step of each run; several runs may share one.
      numbers: what each run gives to its step as `numbers`.
      frozen_axes: what `frozen` returned.
      shardings: those of the program's state and totals.
    """

  def have_nan(self, tree: PyTree) -> np.ndarray:
    """Returns whether any value of a run is NaN, `[runs]`."""

  def frozen(self, trees: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    """Returns the program's frozen tree, and which dimension holds the runs.

    Arrays that all runs share, such as a teacher's, are not stacked.
    """

  def one_frozen(self, tree: PyTree, axes: PyTree, lane: int) -> PyTree:
    """Returns the frozen tree of one run; see `frozen`."""

  def listed(self, values: Sequence[Any]) -> Any:
    """Returns what a checkpoint holds for the values of the runs."""

  def unlisted(self, value: Any, lane: int) -> Any:
    """Returns the value of one run from what `listed` returned."""


class Alone:
  """One run: everything is used as it is."""

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    (tree,) = trees
    return tree

  def one(self, tree: PyTree, lane: int) -> PyTree:
    del lane
    return tree

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    del are_active
    return np.asarray(step, np.int32)

  def program(
    self,
    steps: Sequence[Step],
    numbers: Sequence[PyTree],
    frozen_axes: PyTree,
    shardings: tuple[PyTree, PyTree],
  ) -> Program:
    del frozen_axes
    (step,), (own,) = steps, numbers
    compiled = _compiled(step, shardings)
    return (lambda *trees: compiled(*trees, own)) if own else compiled

  def have_nan(self, tree: PyTree) -> np.ndarray:
    return np.asarray(has_nan(tree))[None]

  def frozen(self, trees: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    (tree,) = trees
    return tree, None

  def one_frozen(self, tree: PyTree, axes: PyTree, lane: int) -> PyTree:
    del axes, lane
    return tree

  listed, unlisted = packed, one


class Together:
  """Several runs, stacked along a new first dimension."""

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

  def one(self, tree: PyTree, lane: int) -> PyTree:
    return jax.tree.map(lambda x: x[lane], tree)

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    return np.where(are_active, step, -1).astype(np.int32)

  def program(
    self,
    steps: Sequence[Step],
    numbers: Sequence[PyTree],
    frozen_axes: PyTree,
    shardings: tuple[PyTree, PyTree],
  ) -> Program:
    axes = (0, 0, frozen_axes, 0, 0, 0)
    if any(step is not steps[0] for step in steps):
      bound = map(_with_numbers, steps, numbers)
      return _compiled(_unrolled([*map(_unless_ended, bound)], axes), shardings)
    mapped = jax.vmap(_unless_ended(steps[0]), (*axes, 0))
    stacked = self.packed(numbers)
    return _compiled(lambda *trees: mapped(*trees, stacked), shardings)

  def have_nan(self, tree: PyTree) -> np.ndarray:
    return np.asarray(_each_has_nan(tree))

  def frozen(self, trees: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    def is_shared(*leaves: Any) -> bool:
      return all(leaf is leaves[0] for leaf in leaves)

    shared = jax.tree.map(is_shared, *trees)
    packed = jax.tree.map(
      lambda is_shared, *leaves: leaves[0] if is_shared else jnp.stack(leaves),
      *(shared, *trees),
    )
    return packed, jax.tree.map(lambda x: None if x else 0, shared)

  def one_frozen(self, tree: PyTree, axes: PyTree, lane: int) -> PyTree:
    return _at(tree, axes, lane)

  def listed(self, values: Sequence[Any]) -> Any:
    return {str(lane): value for lane, value in enumerate(values)}

  def unlisted(self, value: Any, lane: int) -> Any:
    return value[str(lane)]


class InTurn:
  """Several runs, each with trees of its own, which take their steps in turn.

  This is for CPUs. Mapped over runs, a convolution becomes a grouped one there,
  because each run has its own kernels, and that is slow.
  """

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    return tuple(trees)

  def one(self, tree: PyTree, lane: int) -> PyTree:
    return tree[lane]

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    return np.where(are_active, step, -1).astype(np.int32)

  def program(
    self,
    steps: Sequence[Step],
    numbers: Sequence[PyTree],
    frozen_axes: PyTree,
    shardings: tuple[PyTree, PyTree],
  ) -> Program:
    del frozen_axes
    states, totals = shardings
    compiled = {
      step: _compiled(step, (states[0], totals))
      for step in dict.fromkeys(steps)
    }

    def call(*trees: PyTree) -> tuple[PyTree, PyTree]:
      results = [
        compiled[step](*of_run, own) if of_run[-1] >= 0 else of_run[:2]
        for step, of_run, own in zip(steps, zip(*trees), numbers)
      ]
      state, totals = zip(*results)
      return state, totals

    return call

  def have_nan(self, tree: PyTree) -> np.ndarray:
    return np.array([has_nan(of_run) for of_run in tree])

  def frozen(self, trees: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    return tuple(trees), None

  def one_frozen(self, tree: PyTree, axes: PyTree, lane: int) -> PyTree:
    del axes
    return tree[lane]

  listed, unlisted = Together.listed, Together.unlisted


def are_mapped() -> bool:
  """Returns whether several runs are mapped, see `InTurn`."""
  return jax.default_backend() != 'cpu'


def of(count: int) -> Lanes:
  """Returns how so many runs share a program."""
  if count == 1:
    return Alone()
  return Together() if are_mapped() else InTurn()


def _compiled(step: Callable[..., Any], shardings: PyTree) -> Program:
  """Returns a jitted step, which donates the state and the totals."""
  return jax.jit(step, donate_argnums=(0, 1), out_shardings=shardings)


@jax.jit
def has_nan(tree: PyTree) -> Array:
  """Returns whether any value is NaN.

  The gradient of a finite loss may be NaN, so checking the loss is not enough.
  """
  floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x, jnp.inexact)]
  return jnp.any(jnp.array([jnp.isnan(x).any() for x in floats] or [False]))


_each_has_nan = jax.jit(jax.vmap(has_nan))


def check_shapes(phase: str, states: Sequence[PyTree]) -> None:
  """Checks that the states of several runs can be stacked.

  Args:
    phase: the name of the phase.
    states: its state for each run, with what is frozen.

  Raises:
    UsageError: their shapes differ.
  """
  shapes = [jax.tree.map(jnp.shape, state) for state in states]
  if any(other != shapes[0] for other in shapes[1:]):
    raise UsageError(
      f'together: expected states of the same shapes in phase {phase!r}, got '
      f'other shapes for other seeds; {_ADVICE}'
    )


def check_metrics(phase: str, totals: Sequence[PyTree]) -> None:
  """Checks that the steps of several runs return the same metrics.

  Args:
    phase: the name of the phase.
    totals: what `programs.zero_totals` returned for each run.

  Raises:
    UsageError: their names differ.
  """
  first, *others = (x['sums'].keys() for x in totals)
  for other in others:
    if other != first:
      raise UsageError(
        f'together: expected the same metrics in phase {phase!r} for all runs, '
        f'got {", ".join(first)} and {", ".join(other)}; {_ADVICE}'
      )


def _with_numbers(step: Step, numbers: PyTree) -> Step:
  """Returns a step that takes its numbers as constants."""
  return lambda *trees: step(*trees, numbers)


def _unless_ended(step: Step) -> Step:
  """Returns a step that changes nothing if its index is negative."""

  def guarded(
    state: PyTree,
    totals: PyTree,
    frozen: PyTree,
    batches: PyTree,
    rng: Array,
    index: Array,
    *numbers: PyTree,
  ) -> tuple[PyTree, PyTree]:
    old = state, totals
    new = step(state, totals, frozen, batches, rng, index, *numbers)
    return jax.tree.map(functools.partial(jnp.where, index >= 0), new, old)

  return guarded


def _unrolled(steps: Sequence[Step], axes: tuple[PyTree, ...]) -> Step:
  """Returns a step that takes the steps of all runs one after the other."""

  def step(*arguments: PyTree) -> tuple[PyTree, PyTree]:
    results = [
      one(*(_at(x, axis, lane) for x, axis in zip(arguments, axes)))
      for lane, one in enumerate(steps)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

  return step


def _at(tree: PyTree, axes: PyTree, lane: int) -> PyTree:
  """Returns the part of one run; with the axis None, an array is shared."""
  if isinstance(axes, int):
    return jax.tree.map(lambda x: x[lane], tree)

  def part(axis: int | None, x: Array) -> Array:
    return x if axis is None else x[lane]

  return jax.tree.map(part, axes, tree, is_leaf=lambda axis: axis is None)
