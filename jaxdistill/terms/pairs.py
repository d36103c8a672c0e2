"""Summands of a joint loss, and the pair of networks they are made for.

A term is made for one pair: `attention(...)` gives a function of the pair that
looks at its shapes and returns a `Term`. Its features are the student's as
'student/...', the teacher's as 'teacher/...', what the batch holds as
'batch/...', and those of its helpers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxdistill.networks import staged
from jaxdistill.types import (
  Array,
  Batch,
  Cut,
  Features,
  Model,
  Network,
  Recipe,
  Stage,
  UsageError,
)

Shapes = Mapping[str, Any]


class Pair(NamedTuple):
  """Two networks, the shapes of their features on one batch, the training."""

  student: Network
  teacher: Network
  student_shapes: Shapes
  teacher_shapes: Shapes
  recipe: Recipe


class Term(NamedTuple):
  """One summand of a joint loss.

  Attributes:
    loss: (features, batch, models) -> `[B]` or a scalar; models by role.
    weight: factor.
    helpers: stages trained beside the student, which read such features.
    warmup: share of the run in which the weight rises from 0 in a line.
  """

  loss: Callable[[Features, Batch, Mapping[str, Model]], Array]
  weight: float = 1.0
  helpers: tuple[Stage, ...] = ()
  warmup: float = 0.0


TermFactory = Callable[[Pair], Term]
Pairs = Sequence[Sequence[str]] | None


def pair_of(student: Network, teacher: Network, recipe: Recipe) -> Pair:
  """The pair of two networks on the recipe's batches."""
  image = {'image': recipe.example['image']}
  return Pair(
    student,
    teacher,
    staged.shapes(student, image),
    staged.shapes(teacher, image),
    recipe,
  )


def inputs(pair: Pair) -> dict[str, Any]:
  """Shapes of all that helpers may read."""
  return {
    **{f'student/{k}': v for k, v in pair.student_shapes.items()},
    **{f'teacher/{k}': v for k, v in pair.teacher_shapes.items()},
    **{f'batch/{k}': v for k, v in pair.recipe.example.items()},
  }


def answers(pair: Pair) -> tuple[str, str]:
  """Names of the two networks' answers."""
  return staged.output(pair.student), staged.output(pair.teacher)


def maps(network: Network, shapes: Shapes) -> list[str]:
  """The groups that give maps, the stem among them."""
  return [g for g in staged.groups(network) if len(shapes[g].shape) == 4]


def middle(network: Network, shapes: Shapes) -> list[str]:
  """The groups that methods compare, as RepDistiller and ReviewKD choose them.

  Those named 'group...' behind the first map; of more than five (MobileNetV2),
  the last of each size.
  """
  deep = maps(network, shapes)[1:]
  found = [g for g in deep if g.startswith('group')] or deep
  if len(found) <= 5:
    return found
  sizes = [shapes[g].shape[1:3] for g in found]
  return [g for i, g in enumerate(found) if sizes[i] not in sizes[i + 1 :]]


def check(pair: Pair, cut: Pairs, valid: str = 'cut') -> Cut:
  """A cut the user gave, with its features looked up.

  Raises:
    UsageError: a feature does not exist, or `cut` is no list of pairs.
  """
  checked = []
  for entry in cut or ():
    if isinstance(entry, str) or len(entry) != 2:
      raise UsageError(
        f'{valid}: {entry!r} is no pair (student feature, teacher feature)'
      )
    ours, theirs = entry
    if ours not in pair.student_shapes:
      raise staged.unknown('student feature', ours, pair.student_shapes)
    if theirs not in pair.teacher_shapes:
      raise staged.unknown('teacher feature', theirs, pair.teacher_shapes)
    checked.append((ours, theirs))
  return tuple(checked)


def middle_cut(pair: Pair, cut: Pairs, *, pre: bool = False) -> Cut:
  """The pairs of features in the middle that a term compares.

  Args:
    pair: the networks.
    cut: what the user gave; None: the groups that give maps but for the stem,
      the deepest with the deepest, as many as both have.
    pre: take them before their last activation, where the networks say so.

  Raises:
    UsageError: a feature does not exist, or there are none in the middle.
  """
  if cut is not None:
    return check(pair, cut)
  ours = middle(pair.student, pair.student_shapes)
  theirs = middle(pair.teacher, pair.teacher_shapes)
  count = min(len(ours), len(theirs))
  if not count:
    raise UsageError(
      'a network has no groups of maps to pair; give the pairs as cut, of '
      f'student features {", ".join(pair.student_shapes)} and teacher features '
      f'{", ".join(pair.teacher_shapes)}'
    )
  pairs = zip(ours[-count:], theirs[-count:])
  if not pre:
    return tuple(pairs)
  return tuple(
    (before(pair.student_shapes, s), before(pair.teacher_shapes, t))
    for s, t in pairs
  )


def last_cut(pair: Pair, cut: Pairs) -> tuple[str, str]:
  """The one pair of a term that compares vectors: the pooled features."""
  if cut is not None:
    return check(pair, cut)[0]
  return vector(pair.student, 'student'), vector(pair.teacher, 'teacher')


def vector(network: Network, role: str) -> str:
  """The feature that the answer is computed from.

  Raises:
    UsageError: the network is one piece.
  """
  names = staged.stage_names(network)
  if len(names) < 2:
    raise UsageError(
      f'the {role} is one piece: name its feature as cut, ((student feature, '
      'teacher feature),)'
    )
  return names[-2]


def stages_up_to(network: Network, shapes: Shapes, feature: str) -> list[str]:
  """A network's stages up to the one that gives a feature, or its tap."""
  names = staged.stage_names(network)
  stages: list[str] = []
  for name in shapes:  # a stage's name stands before its taps
    if name in names:
      stages.append(name)
    if name == feature:
      break
  return stages


def behind(network: Network, feature: str) -> tuple[str, ...]:
  """The stages behind the output of a stage or group."""
  reached = staged.stages_between(network, 'image', feature)
  return staged.stage_names(network)[len(reached) :]


def before(shapes: Shapes, feature: str) -> str:
  """The feature before its last activation, or itself."""
  return f'{feature}.pre' if f'{feature}.pre' in shapes else feature


def map_shape(shapes: Shapes, feature: str) -> tuple[int, int, int]:
  """(H, W, C) of a feature; a vector counts as a map of size 1."""
  shape = shapes[feature].shape
  return (1, 1, shape[-1]) if len(shape) == 2 else shape[1:]
