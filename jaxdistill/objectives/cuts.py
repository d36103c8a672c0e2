"""Cuts: where two networks are really cut, and the stages in between.

A cut is a tuple of breakpoints, pairs (student feature, teacher feature), from
the image to the head. Masked Layer Distillation compares the networks at its
breakpoints, and SSKD trains the student's stages between them one after
another.
"""

from typing import NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, FeaturePairs, Features, Network
from jaxdistill.networks import graph
from jaxdistill.objectives import pairs
from jaxdistill.objectives.types import Pair

# What `breakpoints` can choose.
KINDS = ('groups', 'blocks', 'layers')


class Segment(NamedTuple):
  """The stages of both networks between two breakpoints.

  Attributes:
    stop: (student feature, teacher feature) at the end.
    student: the names of the student's stages.
    teacher: the names of the teacher's stages.
  """

  stop: tuple[str, str]
  student: tuple[str, ...]
  teacher: tuple[str, ...]


def breakpoints(pair: Pair, kind: str) -> FeaturePairs:
  """Returns the breakpoints of two networks that are built to the same plan.

  If a group of one network has n blocks and that of the other m > n, block b of
  the n is paired with block floor(b m / n). There is one exception: if the
  names of the stages show that the student lacks blocks other than the last
  ones, as after `edits.delete`, blocks of the same name are paired, and the
  last block with the last.

  Args:
    pair: the networks.
    kind: 'groups' means the ends of all groups of maps, including the stem.
      'blocks' adds the ends of the blocks. 'layers' also adds the layers in
      blocks that `layerwise.by_layers` has split, if both blocks of a pair have
      the same number of them.

  Raises:
    UsageError: the kind does not exist, or the networks have different numbers
      of groups.
  """
  checks.choice('breakpoints', kind, KINDS)
  student_groups = pairs.map_groups(pair.student, pair.student_shapes)
  teacher_groups = pairs.map_groups(pair.teacher, pair.teacher_shapes)
  if len(student_groups) != len(teacher_groups) or not student_groups:
    raise UsageError(
      'cut: expected the breakpoints, because the networks differ in their '
      f'groups of maps: the student has {", ".join(student_groups) or "none"}, '
      f'the teacher {", ".join(teacher_groups) or "none"}'
    )
  group_pairs = tuple(zip(student_groups, teacher_groups))
  if kind == 'groups':
    return group_pairs
  cut: list[tuple[str, str]] = []
  for student_group, teacher_group in group_pairs:
    for student_layers, teacher_layers in _block_pairs(
      _blocks(pair.student, student_group), _blocks(pair.teacher, teacher_group)
    ):
      if kind == 'layers' and len(student_layers) == len(teacher_layers):
        cut += zip(student_layers, teacher_layers)
      else:
        cut.append((student_layers[-1], teacher_layers[-1]))
  return tuple(cut)


def segments(pair: Pair, cut: FeaturePairs) -> tuple[Segment, ...]:
  """Returns the segments into which a cut divides two networks.

  Raises:
    UsageError: see `check_order`; or the two features of a breakpoint differ in
      shape.
  """
  if not cut:
    raise UsageError('cut: expected at least one breakpoint, got none')
  check_order(pair, cut)
  for student, teacher in cut:
    student_shape = pair.student_shapes[student].shape
    teacher_shape = pair.teacher_shapes[teacher].shape
    if student_shape != teacher_shape:
      raise UsageError(
        f'cut: expected equal shapes, got {student_shape[1:]} for {student!r} '
        f'of the student and {teacher_shape[1:]} for {teacher!r} of the '
        'teacher; a student made by narrowing the teacher has equal shapes'
      )
  return tuple(
    Segment(
      stop,
      graph.stages_between(pair.student, start[0], stop[0]),
      graph.stages_between(pair.teacher, start[1], stop[1]),
    )
    for start, stop in zip((('image', 'image'), *cut), cut)
  )


def check_order(pair: Pair, cut: FeaturePairs) -> None:
  """Checks that a cut goes through both networks, stage by stage.

  Its features must be outputs of stages or groups, each computed after the one
  before it, and at least one stage of the student must remain after the last.

  Raises:
    UsageError: this is not the case.
  """
  networks = pair.student, pair.teacher
  for k, role in enumerate(('student', 'teacher')):
    for start, stop in zip((('image', 'image'), *cut), cut):
      try:
        graph.stages_between(networks[k], start[k], stop[k])
      except UsageError as error:
        raise UsageError(f'cut: in the {role}, {error}') from None
  if not pairs.stages_after(pair.student, cut[-1][0]):
    raise UsageError(
      'cut: expected the last breakpoint before the head, got '
      f'{cut[-1][0]!r}, the end of the student'
    )


def replace_output(
  network: Network, features: Features, name: str, value: Array
) -> Features:
  """Returns features with a new output of a stage or group.

  The output is replaced under all of its names: a group has the same output as
  its last stage.
  """
  last = graph.stages_between(network, 'image', name)[-1]
  same_output = [
    group
    for group, stages in graph.groups(network).items()
    if stages[-1] == last
  ]
  return {**features, **dict.fromkeys((last, *same_output), value)}


def _block_pairs(
  student_blocks: list[list[str]], teacher_blocks: list[list[str]]
) -> list[tuple[list[str], list[str]]]:
  """Returns the pairs of blocks of two groups; the last blocks are a pair."""
  n, m = len(student_blocks), len(teacher_blocks)
  teacher_by_name = {block[0]: block for block in teacher_blocks}
  student_names = [block[0] for block in student_blocks]
  lacks_blocks = {*student_names} < {*teacher_by_name}
  if lacks_blocks and student_names != [*teacher_by_name][:n]:
    return [
      *((block, teacher_by_name[block[0]]) for block in student_blocks[:-1]),
      (student_blocks[-1], teacher_blocks[-1]),
    ]
  k = min(n, m)
  return [
    (student_blocks[b * n // k - 1], teacher_blocks[b * m // k - 1])
    for b in range(1, k + 1)
  ]


def _blocks(network: Network, group: str) -> list[list[str]]:
  """Returns the blocks of a group, each as the names of its layers in order."""
  blocks: dict[str, list[str]] = {}
  for name in graph.groups(network)[group]:
    layers = blocks.setdefault('.'.join(name.split('.')[:2]), [])
    # A shortcut runs beside the layers: no feature between them follows it.
    if not name.endswith('.shortcut'):
      layers.append(name)
  return list(blocks.values())
