"""The division of a student and its teacher into neighbourhoods.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
from typing import Any, NamedTuple

import jax

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import FeaturePairs, Model, Network
from jaxdistill.networks import graph


class Neighbourhood(NamedTuple):
  """Stages of a student and the teacher's stages that they replace.

  Attributes:
    student: the student's stages.
    teacher: the teacher's stages.
    output: (student feature, teacher feature) that they compute.
    copied: whether the student's stages are copies of the teacher's, which are
      not trained.
  """

  student: tuple[str, ...]
  teacher: tuple[str, ...]
  output: tuple[str, str]
  copied: bool

  @property
  def name(self) -> str:
    """The student's feature that the neighbourhood computes."""
    return self.output[0]


class Layout(NamedTuple):
  """A student and its teacher, divided into neighbourhoods.

  Attributes:
    inputs: (student feature, teacher feature) that the first one reads.
    neighbourhoods: in order; each one begins where the previous one ends.
    outside: pairs (student's stage, teacher's stage) of equal stages before and
      after the neighbourhoods.
  """

  inputs: tuple[str, str]
  neighbourhoods: tuple[Neighbourhood, ...]
  outside: FeaturePairs

  @property
  def cut(self) -> FeaturePairs:
    """The boundaries, from the first input to the last output."""
    return (self.inputs, *(n.output for n in self.neighbourhoods))

  @property
  def trained(self) -> tuple[Neighbourhood, ...]:
    """The neighbourhoods that are not copies."""
    return tuple(n for n in self.neighbourhoods if not n.copied)

  @property
  def stages(self) -> tuple[str, ...]:
    """The names of the student's stages that train."""
    return tuple(name for n in self.trained for name in n.student)

  @property
  def pairs(self) -> FeaturePairs:
    """Pairs (student's stage, teacher's stage) of copies and originals."""
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
  """Divides a student and its teacher into neighbourhoods.

    T = T_n(... T_2(T_1(x)))

  Equation (1) of Neighbourhood Distillation.

  Args:
    student: the student.
    teacher: the teacher.
    example: {'image': `[B, H, W, C]`}, arrays or shapes.
    cut: the boundaries, pairs (student feature, teacher feature) from the input
      of the first neighbourhood to the output of the last; ('image', 'image')
      and the networks' outputs are valid. None means the stages that have the
      same name and give maps of the same shape in both networks, after the
      image if the stages up to the first of them are not the teacher's. Then a
      stage that is narrower only inside is a neighbourhood, and a stage with a
      narrower output forms one together with the stages after it.
    copy_same: whether neighbourhoods that consist of the same modules as the
      teacher's are copies of these and not trained.

  Raises:
    UsageError: there are fewer than two boundaries; a boundary does not exist,
      is out of order or differs in shape; or the student's stages outside the
      neighbourhoods are not those of the teacher.
  """
  image = example['image']
  key = tuple(image.shape), str(image.dtype)
  student_shapes, teacher_shapes = (
    _shapes(network, *key) for network in (student, teacher)
  )
  student_shapes = {'image': image, **student_shapes}
  teacher_shapes = {'image': image, **teacher_shapes}
  if cut is None:
    boundaries = _common_stages(
      student, teacher, student_shapes, teacher_shapes
    )
  else:
    boundaries = _checked(cut, student_shapes, teacher_shapes)
  pieces = []
  for (s, t), (next_s, next_t) in itertools.pairwise(boundaries):
    ranges = _between(student, teacher, (s, next_s), (t, next_t))
    same = graph.same_modules(student, ranges[0], teacher, ranges[1])
    output = (next_s, next_t)
    pieces.append(Neighbourhood(*ranges, output, copy_same and same))
  _check_inputs(student, teacher, boundaries, pieces)
  first, last = boundaries[0], boundaries[-1]
  before = _outside(student, teacher, first, last, before=True)
  after = _outside(student, teacher, first, last, before=False)
  return Layout(first, tuple(pieces), (*before, *after))


def compose(layout: Layout, student: Model, teacher: Model) -> Model:
  """Gives the student the teacher's variables wherever it is a copy.

  Args:
    layout: the layout of the two.
    student: the student.
    teacher: the teacher.
  """
  copies = {
    collection: {s: tree[t] for s, t in layout.pairs if t in tree}
    for collection, tree in teacher.variables.items()
  }
  return student._replace(variables=graph.merge(student.variables, copies))


def partial(
  layout: Layout, index: int, student: Model, teacher: Model
) -> Model:
  """Replaces one neighbourhood of the teacher by the student's.

  Args:
    layout: the layout of the two.
    index: the index of the neighbourhood.
    student: the student.
    teacher: the teacher.
  """
  piece = layout.neighbourhoods[index]
  teacher_name = dict(layout.cut)
  stages = tuple(
    stage._replace(inputs=tuple(teacher_name.get(i, i) for i in stage.inputs))
    for stage in student.network.stages
    if stage.name in piece.student
  )
  part = Model(Network(stages), graph.select(student.variables, piece.student))
  return graph.splice(teacher, piece.teacher[0], piece.teacher[-1], part)


@functools.lru_cache(maxsize=64)
def _shapes(
  network: Network, image_shape: tuple[int, ...], dtype: str
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of all features; tracing a network takes long."""
  image = jax.ShapeDtypeStruct(image_shape, dtype)
  return graph.shapes(network, {'image': image})


def _common_stages(
  student, teacher, student_shapes, teacher_shapes
) -> FeaturePairs:
  """Returns the stages of the same name whose maps have the same shape."""
  names = set(graph.stage_names(teacher))
  boundaries = tuple(
    (name, name)
    for name in graph.stage_names(student)
    if name in names
    and len(student_shapes[name].shape) == 4
    and student_shapes[name].shape == teacher_shapes[name].shape
  )
  if boundaries and not graph.same_modules(
    student,
    graph.stages_between(student, 'image', boundaries[0][0]),
    teacher,
    graph.stages_between(teacher, 'image', boundaries[0][0]),
  ):
    boundaries = (('image', 'image'), *boundaries)
  if len(boundaries) >= 2:
    return boundaries
  student_maps, teacher_maps = (
    ', '.join(
      f'{n} {shapes[n].shape[1:]}'
      for n in graph.groups(network)
      if len(shapes[n].shape) == 4
    )
    for network, shapes in (
      (student, student_shapes),
      (teacher, teacher_shapes),
    )
  )
  raise UsageError(
    'expected at least two stages of the same name and shape in both networks, '
    f'got the maps {student_maps or "none"} in the student and '
    f'{teacher_maps or "none"} in the '
    "teacher; use the network 'narrowed' to derive the student from the "
    'teacher, or give boundaries of equal shapes as cut'
  )


def _checked(cut, student_shapes, teacher_shapes) -> FeaturePairs:
  """Returns the user's boundaries, checked for everything but their order."""
  boundaries = tuple(tuple(pair) for pair in cut)
  if len(boundaries) < 2:
    raise UsageError(
      f'cut: expected at least two boundaries, got {len(boundaries)}'
    )
  for pair in boundaries:
    if len(pair) != 2:
      raise UsageError(
        f'cut: expected pairs (student feature, teacher feature), got {pair!r}'
      )
    checks.choice('student feature', pair[0], student_shapes)
    checks.choice('teacher feature', pair[1], teacher_shapes)
    student_shape = student_shapes[pair[0]].shape[1:]
    teacher_shape = teacher_shapes[pair[1]].shape[1:]
    if student_shape != teacher_shape:
      raise UsageError(
        f'cut: expected features of equal shapes, got {student_shape} at '
        f"{pair[0]!r} and the teacher's {teacher_shape} at {pair[1]!r}"
      )
  return boundaries


def _check_inputs(student, teacher, boundaries, pieces) -> None:
  """Checks that neighbourhoods read only boundaries and their own features.

  Raises:
    UsageError: a stage reads something else.
  """
  for k, (kind, network) in enumerate(
    (('student', student), ('teacher', teacher))
  ):
    ends = {pair[k] for pair in boundaries} | {'image'}
    aliases: dict[str, Any] = dict.fromkeys(ends & _ends(network))
    known = {'image', *graph.with_groups(network, aliases)}
    for piece in pieces:
      for stage in network.stages:
        if stage.name not in piece[k]:
          continue
        for name in stage.inputs:
          if name not in known and name not in piece[k]:
            raise UsageError(
              f'cut: stage {stage.name!r} of the {kind} reads {name!r}, which '
              'is not a boundary; make it one, or put both into one '
              'neighbourhood'
            )


def _ends(network: Network) -> set[str]:
  """Returns the names of all stages and groups."""
  return {*graph.stage_names(network), *graph.groups(network)}


def _between(
  student: Network,
  teacher: Network,
  student_ends: tuple[str, str],
  teacher_ends: tuple[str, str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Returns the student's and the teacher's stages of a neighbourhood."""
  ranges = []
  for kind, network, ends in (
    ('student', student, student_ends),
    ('teacher', teacher, teacher_ends),
  ):
    try:
      ranges.append(graph.stages_between(network, *ends))
    except UsageError as error:
      raise UsageError(f'cut: in the {kind}, {error}') from None
  return ranges[0], ranges[1]


def _outside(student, teacher, first, last, *, before: bool) -> FeaturePairs:
  """Pairs equal stages before the first boundary, or after the last one.

  Raises:
    UsageError: the student's and the teacher's stages there differ.
  """
  ranges = []
  for network, start, stop in zip((student, teacher), first, last):
    names = graph.stage_names(network)
    inside = graph.stages_between(network, start, stop)
    start_index = names.index(inside[0])
    stop_index = start_index + len(inside)
    ranges.append(names[:start_index] if before else names[stop_index:])
  if not graph.same_modules(student, ranges[0], teacher, ranges[1]):
    student_names, teacher_names = (
      ', '.join(names) or '(none)' for names in ranges
    )
    raise UsageError(
      'cut: outside the neighbourhoods the student must equal the teacher, but '
      f"its stages {student_names} are not the teacher's {teacher_names}; "
      "narrow the teacher's network, use the teacher's stages there, or put "
      'them in a neighbourhood'
    )
  return tuple(zip(*ranges))
