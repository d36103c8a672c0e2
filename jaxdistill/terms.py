"""Summands of a joint loss: a loss, the features it pairs, its helpers.

A term is made for one pair of networks: `kd(...)` gives a function of the pair
that looks at its shapes and returns a `Term`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdistill import losses
from jaxdistill.networks import staged
from jaxdistill.types import Array, Batch, Features, Model, Network, Stage


class Pair(NamedTuple):
  """Two networks and the shapes of all their features on one batch."""

  student: Network
  teacher: Network
  student_shapes: Mapping[str, Any]
  teacher_shapes: Mapping[str, Any]


class Term(NamedTuple):
  """One summand of a joint loss.

  Attributes:
    loss: (features, batch, models) -> `[B]` or a scalar. Features are named
      'student/...', 'teacher/...', and those of the helpers; models has the
      roles 'student' and 'teacher'.
    weight: factor.
    helpers: stages trained beside the student, which read such features.
    warmup: share of the run in which the weight rises from 0 in a line.
  """

  loss: Callable[[Features, Batch, dict[str, Model]], Array]
  weight: float = 1.0
  helpers: tuple[Stage, ...] = ()
  warmup: float = 0.0


TermFactory = Callable[[Pair], Term]


def pair_of(
  student: Network, teacher: Network, example: Mapping[str, Any]
) -> Pair:
  """The pair of two networks on a batch {'image': `[B, H, W, C]`}."""
  image = {'image': example['image']}
  return Pair(
    student,
    teacher,
    staged.shapes(student, image),
    staged.shapes(teacher, image),
  )


def answers(pair: Pair) -> tuple[str, str]:
  """Names of the two networks' answers among a term's features."""
  return (
    f'student/{staged.output(pair.student)}',
    f'teacher/{staged.output(pair.teacher)}',
  )


def soft_target(
  *, weight: float = 0.9, temperature: float = 4.0
) -> TermFactory:
  """The teacher's softened classes; see `losses.soft_target_loss`.

  Args:
    weight: factor.
    temperature: `T`.
  """

  def make(pair: Pair) -> Term:
    student, teacher = answers(pair)

    def loss(
      features: Features, batch: Batch, models: dict[str, Model]
    ) -> Array:
      del batch, models
      return losses.soft_target_loss(
        features[student], features[teacher], temperature=temperature
      )

    return Term(loss, weight)

  return make
