"""Pathways of DistPro: which features are compared, through which transforms.

A space chooses the pathways of two networks from their shapes. The paper's: 27
on CIFAR, every pair of three levels by three transforms, is `all_pairs()`; 15
on ImageNet is `same_or_deeper()`; the 10 of the authors' code are
`same_or_deeper(stem=True, pool=False)`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill import losses as losses_lib
from jaxdistill.networks import staged
from jaxdistill.process import Pathway
from jaxdistill.terms import pairs, transforms
from jaxdistill.types import (
  Array,
  Features,
  Network,
  Stage,
  UsageError,
  Variables,
)

Space = Callable[[pairs.Pair], tuple[Pathway, ...]]
Names = Sequence[str] | None


class Pathways(NamedTuple):
  """The pathways of two networks.

  Attributes:
    paths: L of them.
    helpers: their transforms, one stage each, in order.
  """

  paths: tuple[Pathway, ...]
  helpers: Network


def all_pairs(
  *,
  transforms: Sequence[str] = ('T1', 'T2', 'T3'),
  stem: bool = False,
  pool: bool = False,
  student: Names = None,
  teacher: Names = None,
) -> Space:
  """Every level of the student to every level of the teacher.

  Args:
    transforms: names in `terms.transforms.TRANSFORMS`.
    stem: whether the stem is the first level; the others are the groups of
      maps, the deepest with the deepest, as many as both have, before their
      last activation.
    pool: whether the pooled vector is the last level.
    student: names of its features in order, in place of all that.
    teacher: the same.

  Raises:
    UsageError: there is no such transform; of the space, for networks that have
      no such levels.
  """
  _check_transforms(transforms)

  def space(pair: pairs.Pair) -> tuple[Pathway, ...]:
    ours, theirs = _levels(pair, stem, pool, student, teacher)
    return tuple(
      Pathway(s, t, k, j, i)
      for i, t in enumerate(theirs, 1)
      for j, s in enumerate(ours, 1)
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
  """Each level of the teacher to the student's same and deeper ones.

  The pathways of ReviewKD. Arguments as `all_pairs`.
  """
  whole = all_pairs(
    transforms=transforms,
    stem=stem,
    pool=pool,
    student=student,
    teacher=teacher,
  )

  def space(pair: pairs.Pair) -> tuple[Pathway, ...]:
    return tuple(p for p in whole(pair) if p.student_level >= p.teacher_level)

  return space


def build(pair: pairs.Pair, space: Space) -> Pathways:
  """The pathways of a space, with transforms for the networks' shapes.

  Raises:
    UsageError: a feature or transform does not exist, or the space is empty.
  """
  paths = space(pair)
  if not paths:
    raise UsageError('the space has no pathway')
  stages = []
  for number, path in enumerate(paths):
    pairs.check(pair, ((path.student, path.teacher),))
    _check_transforms((path.transform,))
    shape = transforms.map_shape(pair.teacher_shapes[path.teacher].shape)
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
  """What each pathway costs, and the new statistics of its transform.

    delta(M_ijk(F_j^s), F_i^t) of Equation (2) of DistPro

  The outputs into one feature of the teacher are compared with it together.

  Args:
    pathways: of the networks.
    variables: of the transforms, which train.
    features: 'student/...' and 'teacher/...', `[B, ...]`.
    active: places of the pathways that are computed; None: all.
    rngs: see `staged.run`.

  Returns:
    (mean over the batch of `losses.hierarchical_context_loss` for each
    pathway, `[L]`, 0 where it is not computed; the updates).
  """
  chosen = range(len(pathways.paths)) if active is None else active
  outputs, updates = staged.run(
    pathways.helpers,
    variables,
    features,
    only=[_name(number) for number in chosen],
    train=True,
    rngs=rngs,
  )
  found = [jnp.zeros(())] * len(pathways.paths)
  for teacher in dict.fromkeys(pathways.paths[n].teacher for n in chosen):
    members = [n for n in chosen if pathways.paths[n].teacher == teacher]
    target = transforms.as_map(features[f'teacher/{teacher}'])
    stack = jnp.stack([outputs[_name(n)] for n in members])

    def distance(output: Array, target: Array = target) -> Array:
      return losses_lib.hierarchical_context_loss(output, target).mean()

    for n, value in zip(members, jax.vmap(distance)(stack)):
      found[n] = value
  return jnp.stack(found), updates


def _name(number: int) -> str:
  return f'pathway{number}'


def _levels(
  pair: pairs.Pair, stem: bool, pool: bool, student: Names, teacher: Names
) -> tuple[list[str], list[str]]:
  """The features of both networks, from the shallowest."""
  found = []
  for k, (given, network, shapes, role) in enumerate(
    (
      (student, pair.student, pair.student_shapes, 'student'),
      (teacher, pair.teacher, pair.teacher_shapes, 'teacher'),
    )
  ):
    if given is not None:
      found.append(list(given))
      continue
    if not pairs.middle(network, shapes):
      raise UsageError(
        f'space.{role}: the {role} has no groups of maps; name its features in '
        f'order, of {", ".join(shapes)}'
      )
    names = [entry[k] for entry in pairs.middle_cut(pair, None, pre=True)]
    if stem:
      first = pairs.maps(network, shapes)[0]
      names.insert(0, pairs.before(shapes, first))
    if pool:
      names.append(pairs.vector(network, role))
    found.append(names)
  return found[0], found[1]


def _check_transforms(names: Sequence[str]) -> None:
  if isinstance(names, str) or not names:
    raise UsageError(f'transforms: {names!r} is no list of names')
  for name in names:
    if name not in transforms.TRANSFORMS:
      raise staged.unknown('transform', name, transforms.TRANSFORMS)
