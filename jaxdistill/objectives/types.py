"""The types of objectives: a pair of networks, and a term of its loss."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import jax

from jaxdistill.core.types import (
  Array,
  Batch,
  Features,
  Model,
  Network,
  Recipe,
  Stage,
)
from jaxdistill.networks import graph

# Name of a feature -> its shape `[B, ...]` and dtype.
Shapes = Mapping[str, jax.ShapeDtypeStruct]


class Pair(NamedTuple):
  """A student and a teacher, the shapes of their features, and the recipe.

  Attributes:
    student: the student's network.
    teacher: the teacher's network.
    student_shapes: the shapes of the student's features on one batch, in the
      order in which they are computed.
    teacher_shapes: the shapes of the teacher's features, likewise.
    recipe: how the student is trained. An objective may read the shapes of a
      batch and the labels of the training examples from it.
  """

  student: Network
  teacher: Network
  student_shapes: Shapes
  teacher_shapes: Shapes
  recipe: Recipe


class TermLoss(Protocol):
  """The loss of a term on one batch, without its weight."""

  def __call__(
    self, features: Features, batch: Batch, models: Mapping[str, Model], /
  ) -> Array:
    """Returns one loss per example, `[B]`, or a scalar.

    Args:
      features: the outputs of all stages and groups on the batch: the student's
        as 'student/NAME', the teacher's as 'teacher/NAME', and those of the
        adapters under their own names.
      batch: the augmented batch: 'image', 'index' and the targets, such as
        'label'.
      models: role -> model, with the student's current variables. A loss that
        runs a network itself, such as the teacher's head, finds it here.
    """


class Term(NamedTuple):
  """One summand of the student's loss.

  Attributes:
    loss: (features, batch, models) -> one loss per example `[B]` or a scalar.
    weight: the factor of the loss.
    adapters: stages that are trained together with the student and dropped
      afterwards. They read the features of both networks under the names that
      `loss` uses, and the arrays of the batch as 'batch/NAME'.
    warmup: the fraction of the training during which the weight rises linearly
      from 0.
  """

  loss: TermLoss
  weight: float = 1.0
  adapters: tuple[Stage, ...] = ()
  warmup: float = 0.0


class Objective(Protocol):
  """Builds a term for a pair of networks, once their shapes are known."""

  def __call__(self, pair: Pair, /) -> Term:
    """Returns the term.

    Args:
      pair: the two networks and the shapes of their features.

    Raises:
      UsageError: the objective does not fit these networks.
    """


def pair_of(student: Network, teacher: Network, recipe: Recipe) -> Pair:
  """Makes the pair of two networks; computes shapes, but no features."""
  image = {'image': recipe.example['image']}
  return Pair(
    student,
    teacher,
    graph.shapes(student, image),
    graph.shapes(teacher, image),
    recipe,
  )


def adapter_inputs(pair: Pair) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of everything that adapters may read, by name."""
  return {
    **{f'student/{k}': v for k, v in pair.student_shapes.items()},
    **{f'teacher/{k}': v for k, v in pair.teacher_shapes.items()},
    **{f'batch/{k}': v for k, v in pair.recipe.example.items()},
  }
