"""Pathways of DistPro: which features are compared, through which transforms.

A space chooses the pathways between two networks from their shapes. The paper
uses 27 pathways on CIFAR, all pairs of three levels with three transforms each,
which is `all_pairs()`, and 15 on ImageNet, which is `same_or_deeper()`. The
authors' code has 10, which is `same_or_deeper(stem=True, pool=False)`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxdistill import losses as losses_lib
from jaxdistill import objectives
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Features, Network, Stage, Variables
from jaxdistill.methods.distpro import transforms
from jaxdistill.methods.distpro.process import Pathway
from jaxdistill.networks import graph
from jaxdistill.objectives import maps, pairs

Names = Sequence[str] | None


class Space(Protocol):
  """Chooses the pathways between two networks."""

  def __call__(self, pair: objectives.Pair, /) -> tuple[Pathway, ...]:
    """Returns the pathways.

    Args:
      pair: the networks and the shapes of their features.
    """


class Pathways(NamedTuple):
  """The pathways between two networks, with their transforms.

  Attributes:
    paths: L pathways.
    adapters: the transforms, one stage for each pathway, in order.
  """

  paths: tuple[Pathway, ...]
  adapters: Network


def all_pairs(
  *,
  transforms: Sequence[str] = ('T1', 'T2', 'T3'),
  stem: bool = False,
  pool: bool = False,
  student: Names = None,
  teacher: Names = None,
) -> Space:
  """The space of pathways from every student level to every teacher level.

  Levels are the groups of maps before their last activation. If one network has
  more groups, its first ones are left out.

  Args:
    transforms: names in `transforms.TRANSFORMS`.
    stem: whether the stem is one more level, the first.
    pool: whether the pooled vector is one more level, the last.
    student: the names of the student's features, in order, which replace its
      levels.
    teacher: the same for the teacher.

  Raises:
    UsageError: a transform does not exist. When the space is applied: the
      networks do not have such levels.
  """
  _check_transforms(transforms)

  def space(pair: objectives.Pair) -> tuple[Pathway, ...]:
    student_levels, teacher_levels = _levels(pair, stem, pool, student, teacher)
    return tuple(
      Pathway(s, t, k, j, i)
      for i, t in enumerate(teacher_levels, 1)
      for j, s in enumerate(student_levels, 1)
      for k in transforms
    )

  return space


def same_or_deeper(
  *,
  transforms: Sequence[str] = ('T4',),
  stem: bool = False,
  pool: bool = True,
  student: Names = None,
  teacher: Names = None,
) -> Space:
  """The space of pathways to each teacher level from the same or deeper levels.

  These are the pathways of ReviewKD.

  Args:
    transforms: names in `transforms.TRANSFORMS`.
    stem: see `all_pairs`.
    pool: see `all_pairs`.
    student: see `all_pairs`.
    teacher: see `all_pairs`.

  Raises:
    UsageError: see `all_pairs`.
  """
  all_paths = all_pairs(
    transforms=transforms,
    stem=stem,
    pool=pool,
    student=student,
    teacher=teacher,
  )

  def space(pair: objectives.Pair) -> tuple[Pathway, ...]:
    return tuple(
      p for p in all_paths(pair) if p.student_level >= p.teacher_level
    )

  return space


def build(pair: objectives.Pair, space: Space) -> Pathways:
  """Builds the transforms of a space's pathways for the networks' shapes.

  Args:
    pair: the networks.
    space: chooses the pathways.

  Raises:
    UsageError: a feature or transform does not exist, or the space is empty.
  """
  paths = space(pair)
  if not paths:
    raise UsageError('space: expected at least one pathway, got none')
  stages = []
  for number, path in enumerate(paths):
    pairs.check(pair, ((path.student, path.teacher),))
    _check_transforms((path.transform,))
    shape = pairs.map_shape(pair.teacher_shapes, path.teacher)
    module = transforms.TRANSFORMS[path.transform](shape)
    stages.append(Stage(_name(number), module, (f'student/{path.student}',)))
  return Pathways(paths, Network(tuple(stages)))


def losses(
  pathways: Pathways,
  variables: Variables,
  features: Features,
  *,
  active: Sequence[int] | None = None,
  rngs: Mapping[str, Array] | None = None,
) -> tuple[Array, Variables]:
  """Computes the loss of each pathway and the transforms' new statistics.

    delta(M_ijk(F_j^s), F_i^t) of Equation (2) of DistPro

  All outputs that go to one feature of the teacher are compared with it in one
  vectorised call.

  Args:
    pathways: the pathways, with their transforms in training mode.
    variables: the variables of the transforms.
    features: 'student/...' and 'teacher/...', `[B, ...]`.
    active: the indices of the pathways that are computed; None means all.
    rngs: see `networks.run`.

  Returns:
    (the mean over the batch of `losses.hierarchical_context_loss` for each
    pathway, `[L]`, 0 for those that are not computed; the collections that
    changed).
  """
  chosen = range(len(pathways.paths)) if active is None else active
  outputs, updates = graph.run(
    pathways.adapters,
    variables,
    features,
    only=[_name(number) for number in chosen],
    train=True,
    rngs=rngs,
  )
  values = [jnp.zeros(())] * len(pathways.paths)
  for teacher in dict.fromkeys(pathways.paths[n].teacher for n in chosen):
    members = [n for n in chosen if pathways.paths[n].teacher == teacher]
    target = maps.as_map(features[f'teacher/{teacher}'])
    stack = jnp.stack([outputs[_name(n)] for n in members])

    def distance(output: Array, target: Array = target) -> Array:
      return losses_lib.hierarchical_context_loss(output, target).mean()

    for n, value in zip(members, jax.vmap(distance)(stack)):
      values[n] = value
  return jnp.stack(values), updates


def _name(number: int) -> str:
  """Returns the stage name of a pathway's transform."""
  return f'pathway{number}'


def _levels(
  pair: objectives.Pair, stem: bool, pool: bool, student: Names, teacher: Names
) -> tuple[list[str], list[str]]:
  """Returns the student's and the teacher's features, the shallowest first."""
  levels = []
  for k, (chosen, network, shapes, role) in enumerate(
    (
      (student, pair.student, pair.student_shapes, 'student'),
      (teacher, pair.teacher, pair.teacher_shapes, 'teacher'),
    )
  ):
    if chosen is not None:
      levels.append(list(chosen))
      continue
    if not pairs.middle_groups(network, shapes):
      raise UsageError(
        f'space.{role}: the {role} has no groups of maps; give the names of '
        f'its features, in order, from {", ".join(shapes)}'
      )
    names = [entry[k] for entry in pairs.middle_pairs(pair, None, pre=True)]
    if stem:
      first = pairs.map_groups(network, shapes)[0]
      names.insert(0, pairs.pre_activation(shapes, first))
    if pool:
      names.append(pairs.pooled_feature(network, role))
    levels.append(names)
  return levels[0], levels[1]


def _check_transforms(names: Sequence[str]) -> None:
  """Raises UsageError if `names` is not a list of transforms."""
  if isinstance(names, str) or not names:
    raise UsageError(f'transforms: expected a list of names, got {names!r}')
  for name in names:
    checks.choice('transform', name, transforms.TRANSFORMS)
