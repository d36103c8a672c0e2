"""The seeds that one program trains: one alone, or several side by side.

Several seeds have the same program and different numbers. Their trees are
stacked along a new first dimension, a lane for each seed, and the program of
one seed is mapped over it, or unrolled. Phases and methods are written for one
seed alone.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, PyTree

# (state, totals, frozen, batches, rng, index) -> (state, totals)
Step = Callable[..., tuple[PyTree, PyTree]]


class Lanes(Protocol):
  """How the trees of the seeds are arranged in those of the program."""

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    """Returns the program's tree from those of the seeds."""

  def one(self, tree: PyTree, lane: int) -> PyTree:
    """Returns the tree of one seed from the program's."""

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    """Returns the number of the next step, or -1 where a seed has ended."""

  def over(self, steps: Sequence[Step], frozen_axes: PyTree) -> Step:
    """Returns the program's step from those of the seeds.

    Args:
      steps: the step of each seed, or a single one that all of them share.
      frozen_axes: what `frozen` returned.
    """

  def have_nan(self, tree: PyTree) -> np.ndarray:
    """Returns whether any value of a seed is NaN, `[seeds]`."""

  def frozen(self, trees: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    """Returns the program's frozen tree, and which dimension holds the seeds.

    Arrays that all seeds share, such as a teacher's, are not stacked.
    """

  def one_frozen(self, tree: PyTree, axes: PyTree, lane: int) -> PyTree:
    """Returns the frozen tree of one seed; see `frozen`."""

  def listed(self, values: Sequence[Any]) -> Any:
    """Returns what a checkpoint holds for the values of the seeds."""

  def unlisted(self, value: Any, lane: int) -> Any:
    """Returns the value of one seed from what `listed` returned."""


class Alone:
  """One seed: everything is used as it is."""

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    (tree,) = trees
    return tree

  def one(self, tree: PyTree, lane: int) -> PyTree:
    del lane
    return tree

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    del are_active
    return np.asarray(step, np.int32)

  def over(self, steps: Sequence[Step], frozen_axes: PyTree) -> Step:
    del frozen_axes
    (step,) = steps
    return step

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
  """Several seeds, stacked along a new first dimension."""

  def __init__(self, count: int):
    """Sets the number of seeds."""
    self._count = count

  def packed(self, trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

  def one(self, tree: PyTree, lane: int) -> PyTree:
    return jax.tree.map(lambda x: x[lane], tree)

  def index(self, step: int, are_active: Sequence[bool]) -> np.ndarray:
    return np.where(are_active, step, -1).astype(np.int32)

  def over(self, steps: Sequence[Step], frozen_axes: PyTree) -> Step:
    axes = (0, 0, frozen_axes, 0, 0, 0)
    guarded = [_unless_ended(step) for step in steps]
    if len(guarded) > 1:
      return _unrolled(guarded, axes)
    if unrolls():
      return _unrolled(guarded * self._count, axes)
    return jax.vmap(guarded[0], axes)

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


def unrolls() -> bool:
  """Returns whether seeds are unrolled in one program instead of mapped.

  They are unrolled on CPUs. Mapped over seeds, a convolution becomes a grouped
  convolution, because each seed has its own kernels, and that is slow there.
  """
  return jax.default_backend() == 'cpu'


def of(count: int) -> Lanes:
  """Returns how so many seeds share a program."""
  return Alone() if count == 1 else Together(count)


@jax.jit
def has_nan(tree: PyTree) -> Array:
  """Returns whether any value is NaN.

  The gradient of a finite loss may be NaN, so checking the loss is not enough.
  """
  floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x, jnp.inexact)]
  return jnp.any(jnp.array([jnp.isnan(x).any() for x in floats] or [False]))


_each_has_nan = jax.jit(jax.vmap(has_nan))


def check_shapes(phase: str, states: Sequence[PyTree]) -> None:
  """Checks that the states of several seeds can be stacked.

  Args:
    phase: the name of the phase.
    states: its state for each seed, with what is frozen.

  Raises:
    UsageError: their shapes differ.
  """
  shapes = [jax.tree.map(jnp.shape, state) for state in states]
  if any(other != shapes[0] for other in shapes[1:]):
    raise UsageError(
      f'together: expected states of the same shapes in phase {phase!r}, got '
      'other shapes for other seeds; set together=False'
    )


def _unless_ended(step: Step) -> Step:
  """Returns a step that changes nothing if its index is negative."""

  def guarded(
    state: PyTree,
    totals: PyTree,
    frozen: PyTree,
    batches: PyTree,
    rng: Array,
    index: Array,
  ) -> tuple[PyTree, PyTree]:
    old = state, totals
    new = step(state, totals, frozen, batches, rng, index)
    return jax.tree.map(functools.partial(jnp.where, index >= 0), new, old)

  return guarded


def _unrolled(steps: Sequence[Step], axes: tuple[PyTree, ...]) -> Step:
  """Returns a step that takes the steps of all seeds one after the other."""

  def step(*arguments: PyTree) -> tuple[PyTree, PyTree]:
    results = [
      one(*(_at(x, axis, lane) for x, axis in zip(arguments, axes)))
      for lane, one in enumerate(steps)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

  return step


def _at(tree: PyTree, axes: PyTree, lane: int) -> PyTree:
  """Returns the part of one seed; with the axis None, an array is shared."""
  if isinstance(axes, int):
    return jax.tree.map(lambda x: x[lane], tree)

  def part(axis: int | None, x: Array) -> Array:
    return x if axis is None else x[lane]

  return jax.tree.map(part, axes, tree, is_leaf=lambda axis: axis is None)
