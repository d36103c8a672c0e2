"""Two networks, divided into groups of stages by breakpoints."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from flax import linen as nn
import jax

from jaxdistill import objectives
from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  FeaturePairs,
  Features,
  Model,
  Network,
  Stage,
  Variables,
)
from jaxdistill.networks import description, graph
from jaxdistill.networks.surgery import edits
from jaxdistill.objectives import cuts, pairs


@description.register
class NoiseMask(nn.Module):
  """Adds noise to a teacher's feature where a mask lets it pass.

    teacher + (1 - mask) * noise

  Equation (4) of Masked Layer Distillation. No gradient flows to the noise.

  Attributes:
    shape: the shape of one image's feature, which is that of the mask.
    value: the initial value of the whole mask; 1 lets no noise pass.
  """

  shape: tuple[int, ...]
  value: float = 0.5

  @nn.compact
  def __call__(self, teacher: Array, noise: Array, train: bool) -> Array:
    del train
    mask = self.param('mask', nn.initializers.constant(self.value), self.shape)
    noise = jax.lax.stop_gradient(noise)
    return (teacher + (1 - mask)[None] * noise).astype(teacher.dtype)


class Parts(NamedTuple):
  """Two networks, divided into groups by breakpoints.

  Attributes:
    student: the network that trains.
    teacher: the network that it learns from.
    groups: the student's and the teacher's stages between two breakpoints.
    copied: the groups whose student stages are copies of the teacher's and do
      not train.
    masks: a network with one stage for each breakpoint, named like the
      student's feature there.
    student_role: the role of the student in the carry.
    teacher_role: the role of the teacher in the carry.
    stochastic: whether the student's groups draw dropout and the like.
  """

  student: Network
  teacher: Network
  groups: tuple[cuts.Segment, ...]
  copied: tuple[cuts.Segment, ...]
  masks: Network
  student_role: str
  teacher_role: str
  stochastic: bool

  @property
  def trained(self) -> tuple[str, ...]:
    """Names the student's stages that train, up to the last breakpoint."""
    groups = [group for group in self.groups if group not in self.copied]
    return tuple(name for group in groups for name in group.student)

  def run_student(
    self,
    variables: Variables,
    inputs: Features,
    group: cuts.Segment,
    *,
    train: Collection[str],
    rng: Array,
  ) -> tuple[Features, Variables]:
    """Runs the student's stages of a group.

    Args:
      variables: the variables of the student.
      inputs: the features that the group reads.
      group: the group.
      train: the stages that are in training mode.
      rng: a random key for stochastic stages.

    Returns:
      (features, updates), see `networks.run`.
    """
    key = {'dropout': random.step_key(rng, 'dropout')}
    return graph.run(
      self.student,
      variables,
      inputs,
      only=group.student,
      train=train,
      rngs=key if self.stochastic else None,
    )


def parts_of(
  pair: objectives.Pair,
  cut: FeaturePairs,
  roles: Mapping[str, str],
  mask_value: float,
  *,
  inherit: bool = False,
  stochastic: bool = False,
) -> Parts:
  """Divides two networks at breakpoints.

  Args:
    pair: the networks.
    cut: the breakpoints, pairs (student feature, teacher feature).
    roles: 'student' and 'teacher' -> their roles in the carry.
    mask_value: the initial value of all masks.
    inherit: whether groups whose stages have the same names and modules are
      copied.
    stochastic: see `Parts`.

  Raises:
    UsageError: see `cuts.segments`.
  """
  groups = cuts.segments(pair, cut)
  copied = tuple(
    group
    for group in groups
    if inherit
    and group.student == group.teacher
    and graph.same_modules(
      pair.student, group.student, pair.teacher, group.teacher
    )
  )
  masks = tuple(
    Stage(
      student_feature,
      NoiseMask(pair.teacher_shapes[teacher_feature].shape[1:], mask_value),
      (f'teacher/{teacher_feature}', f'noise/{student_feature}'),
    )
    for student_feature, teacher_feature in cut
  )
  return Parts(
    pair.student,
    pair.teacher,
    groups,
    copied,
    Network(masks),
    roles['student'],
    roles['teacher'],
    stochastic,
  )


def with_head(
  parts: Parts, variables: Variables, source: Variables
) -> Variables:
  """Copies the teacher's head into the student's variables.

  The head is everything after the last breakpoint. If the two heads have
  different numbers of stages, stages are paired from the end, up to the first
  pair whose modules differ.

  Args:
    parts: the networks and their groups.
    variables: the variables of the student.
    source: the variables of the teacher.

  Returns:
    The variables of the student.
  """
  student_head, teacher_head = (
    network.stages[
      len(network.stages) - len(pairs.stages_after(network, end)) :
    ]
    for network, end in zip(parts[:2], parts.groups[-1].stop)
  )
  stage_pairs = list(zip(reversed(student_head), reversed(teacher_head)))
  if len(student_head) != len(teacher_head):
    equal = [s.module == t.module for s, t in stage_pairs]
    stage_pairs = stage_pairs[: [*equal, False].index(False)]
  names = {t.name: s.name for s, t in stage_pairs}
  # The teacher's head, with its stages named like the student's.
  head = Network(tuple(t._replace(name=s.name) for s, t in stage_pairs))
  renamed = {
    collection: {names[k]: v for k, v in tree.items() if k in names}
    for collection, tree in source.items()
  }
  return edits.inherit(Network(student_head), variables, Model(head, renamed))
