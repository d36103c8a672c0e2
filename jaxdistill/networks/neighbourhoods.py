"""Neighbourhoods: pieces of a teacher and of a student that fit each other.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Mapping, Sequence
import itertools
from typing import Any, NamedTuple

from jaxdistill.networks import staged
from jaxdistill.types import Cut, Model, Network, UsageError


class Neighbourhood(NamedTuple):
  """Stages of a student and those of the teacher that they stand for.

  Attributes:
    student: the student's stages.
    teacher: the teacher's stages.
    output: (student feature, teacher feature) that they compute.
    copied: whether the student's are the teacher's, and need no training.
  """

  student: tuple[str, ...]
  teacher: tuple[str, ...]
  output: tuple[str, str]
  copied: bool

  @property
  def name(self) -> str:
    return self.output[0]


class Layout(NamedTuple):
  """How a student is made of neighbourhoods.

  Attributes:
    inputs: (student feature, teacher feature) where the first one begins.
    neighbourhoods: in order; each begins where the one before ends.
    outside: pairs of equal stages (student's, teacher's) before and behind.
  """

  inputs: tuple[str, str]
  neighbourhoods: tuple[Neighbourhood, ...]
  outside: Cut

  @property
  def cut(self) -> Cut:
    return (self.inputs, *(n.output for n in self.neighbourhoods))

  @property
  def trained(self) -> tuple[Neighbourhood, ...]:
    return tuple(n for n in self.neighbourhoods if not n.copied)

  @property
  def stages(self) -> tuple[str, ...]:
    """The student's stages that train."""
    return tuple(name for n in self.trained for name in n.student)

  @property
  def pairs(self) -> Cut:
    """Stages of the student that are copies, and the teacher's they are of."""
    inside = [
      pair for n in self.neighbourhoods if n.copied for pair in zip(*n[:2])
    ]
    return (*self.outside, *inside)


def layout(
  student: Network,
  teacher: Network,
  example: Mapping[str, Any],
  *,
  cut: Sequence[Sequence[str]] | None = None,
  copy_same: bool = False,
) -> Layout:
  """Cuts a student and its teacher into neighbourhoods.

    T = T_n(... T_2(T_1(x)))

  Equation (1) of Neighbourhood Distillation.

  Args:
    student: the student.
    teacher: the teacher.
    example: {'image': `[B, H, W, C]`}, arrays or shapes.
    cut: the boundaries, pairs (student feature, teacher feature) from the input
      of the first neighbourhood to the output of the last; ('image', 'image')
      and the answers are valid. None: the stages that have the same name and
      put out maps of the same shape in both: a stage narrowed inside is a
      neighbourhood, stages whose output is narrower are in one with the next.
    copy_same: whether neighbourhoods made of the same stages as the teacher's
      are copies of them, and not trained.

  Raises:
    UsageError: fewer than two boundaries; one that does not exist, comes too
      early or differs in shape; stages outside that are not the teacher's.
  """
  ours, theirs = (staged.shapes(n, example) for n in (student, teacher))
  image = {'image': example['image']}
  chosen = _chosen(
    student, teacher, {**image, **ours}, {**image, **theirs}, cut
  )
  found = []
  for (s, t), (next_s, next_t) in itertools.pairwise(chosen):
    ranges = _between(student, teacher, (s, next_s), (t, next_t))
    same = _modules(student, ranges[0]) == _modules(teacher, ranges[1])
    output = (next_s, next_t)
    found.append(Neighbourhood(*ranges, output, copy_same and same))
  _check_inputs(student, teacher, chosen, found)
  first, last = chosen[0], chosen[-1]
  before = _outside(student, teacher, first, last, before=True)
  behind = _outside(student, teacher, first, last, before=False)
  return Layout(first, tuple(found), (*before, *behind))


def compose(made: Layout, student: Model, teacher: Model) -> Model:
  """The student with the teacher's variables wherever it is a copy."""
  copies = {
    collection: {s: tree[t] for s, t in made.pairs if t in tree}
    for collection, tree in teacher.variables.items()
  }
  return student._replace(variables=staged.merge(student.variables, copies))


def partial(made: Layout, index: int, student: Model, teacher: Model) -> Model:
  """The teacher with one neighbourhood replaced by the student's.

  Args:
    made: the layout of the two.
    index: of the neighbourhood.
    student: the student.
    teacher: the teacher.
  """
  own = made.neighbourhoods[index]
  names = dict(made.cut)  # student's feature -> teacher's
  stages = tuple(
    stage._replace(inputs=tuple(names.get(i, i) for i in stage.inputs))
    for stage in student.network.stages
    if stage.name in own.student
  )
  part = Model(Network(stages), staged.select(student.variables, own.student))
  return staged.splice(teacher, own.teacher[0], own.teacher[-1], part)


def _chosen(student, teacher, ours, theirs, cut) -> Cut:
  """The boundaries, checked but for their order."""
  if cut is None:
    names = set(staged.stage_names(teacher))
    chosen = tuple(
      (name, name)
      for name in staged.stage_names(student)
      if name in names
      and len(ours[name].shape) == 4
      and ours[name].shape == theirs[name].shape
    )
    if len(chosen) < 2:
      own, other = (
        ', '.join(
          f'{n} {shapes[n].shape[1:]}'
          for n in staged.groups(network)
          if len(shapes[n].shape) == 4
        )
        for network, shapes in ((student, ours), (teacher, theirs))
      )
      raise UsageError(
        'the student and the teacher have no two stages of the same name whose '
        f'maps agree (the student: {own}; the teacher: {other}); make the '
        "student of the teacher's network, see the network 'narrowed', or give "
        'boundaries where shapes agree as cut'
      )
    return chosen
  chosen = tuple(tuple(pair) for pair in cut)
  if len(chosen) < 2:
    raise UsageError(f'cut: {cut!r} has fewer than two boundaries')
  for pair in chosen:
    if len(pair) != 2:
      raise UsageError(f'cut: {pair!r} is no pair of features')
    for kind, name, known in zip(('student', 'teacher'), pair, (ours, theirs)):
      if name not in known:
        raise staged.unknown(f'{kind} feature', name, known)
    shapes = ours[pair[0]].shape[1:], theirs[pair[1]].shape[1:]
    if shapes[0] != shapes[1]:
      raise UsageError(
        f'cut: the neighbourhood up to {pair[0]!r} puts out {shapes[0]}, '
        f"and the teacher's {shapes[1]}: the two must agree"
      )
  return chosen


def _check_inputs(student, teacher, chosen, found) -> None:
  """Raises UsageError where a piece reads what is no boundary, nor its own."""
  for k, (kind, network) in enumerate(
    (('student', student), ('teacher', teacher))
  ):
    ends = {pair[k] for pair in chosen} | {'image'}
    aliases: dict[str, Any] = dict.fromkeys(ends & _ends(network))
    known = {'image', *staged.with_groups(network, aliases)}
    for own in found:
      for stage in network.stages:
        if stage.name not in own[k]:
          continue
        for name in stage.inputs:
          if name not in known and name not in own[k]:
            raise UsageError(
              f'cut: the {kind} reads {name!r} in {stage.name!r}, which is no '
              'boundary; take the two into one neighbourhood, or name it'
            )


def _ends(network: Network) -> set[str]:
  return {*staged.stage_names(network), *staged.groups(network)}


def _between(
  student: Network,
  teacher: Network,
  ours: tuple[str, str],
  theirs: tuple[str, str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """The stages of a neighbourhood in both."""
  found = []
  for kind, network, ends in (
    ('student', student, ours),
    ('teacher', teacher, theirs),
  ):
    try:
      found.append(staged.stages_between(network, *ends))
    except UsageError as error:
      raise UsageError(f'cut: of the {kind}, {error}') from None
  return found[0], found[1]


def _modules(network: Network, names: Sequence[str]) -> list[Any]:
  return [stage.module for stage in network.stages if stage.name in names]


def _outside(student, teacher, first, last, *, before: bool) -> Cut:
  """Pairs of equal stages before the first boundary, or behind the last."""
  ranges = []
  for network, start, stop in zip((student, teacher), first, last):
    names = staged.stage_names(network)
    inside = staged.stages_between(network, start, stop)
    at = names.index(inside[0])
    ranges.append(names[:at] if before else names[at + len(inside) :])
  if _modules(student, ranges[0]) != _modules(teacher, ranges[1]):
    ours, theirs = (', '.join(names) or '(none)' for names in ranges)
    raise UsageError(
      f"cut: outside the neighbourhoods the student's stages {ours} are not "
      f"the teacher's {theirs}, of which they are copies: narrow the "
      "teacher's network, or take them into a neighbourhood"
    )
  return tuple(zip(*ranges))
