"""Cuts: where two networks are really cut, and the stages in between.

A cut is a tuple of breakpoints, pairs (student feature, teacher feature), from
the image to the head. Masked Layer Distillation compares the networks at its
breakpoints, and SSKD trains the student's stages between them one after
another. Several student features may be paired with one teacher feature: the
teacher has no stages between them, so the student's stages learn the identity.
"""

import difflib
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
    teacher: the names of the teacher's stages; none if the segment begins and
      ends with the same teacher feature.
  """

  stop: tuple[str, str]
  student: tuple[str, ...]
  teacher: tuple[str, ...]


def breakpoints(pair: Pair, kind: str, *, repeat: bool = False) -> FeaturePairs:
  """Returns the breakpoints of two networks that are built to the same plan.

  If a group of one network has n blocks and that of the other m > n, block b of
  the n is paired with block floor(b m / n). There is one exception: if the
  names of the stages show that one network is not just shorter, as after
  `edits.delete`, `insert` and `replace`, blocks of the same name are paired,
  those between them in proportion, and the last block with the last.

  Args:
    pair: the networks.
    kind: 'groups' means the ends of all groups of maps, including the stem.
      'blocks' adds the ends of the blocks. 'layers' also adds the layers in
      blocks that `layerwise.by_layers` has split, if both blocks of a pair have
      the same number of them.
    repeat: whether blocks of the student that the teacher's group lacks end
      with a breakpoint too. They are paired with the teacher's block before
      them, and so are, for 'layers', their layers of the same shape.

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
      _blocks(pair.student, student_group),
      _blocks(pair.teacher, teacher_group),
      repeat,
    ):
      end = student_layers[-1], teacher_layers[-1]
      if kind == 'blocks':
        cut.append(end)
      elif cut and cut[-1][1] == end[1]:
        cut += _repeated(pair, student_layers, end[1])
      elif len(student_layers) == len(teacher_layers):
        cut += zip(student_layers, teacher_layers)
      else:
        cut.append(end)
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
      _teacher_stages(pair.teacher, start[1], stop[1]),
    )
    for start, stop in zip((('image', 'image'), *cut), cut)
  )


def check_order(pair: Pair, cut: FeaturePairs) -> None:
  """Checks that a cut goes through both networks, stage by stage.

  Its features must be outputs of stages or groups. Each is computed after the
  one before it, except that a teacher feature may be repeated, and at least one
  stage of the student must remain after the last.

  Raises:
    UsageError: this is not the case.
  """
  for k, (role, network, between) in enumerate(
    (
      ('student', pair.student, graph.stages_between),
      ('teacher', pair.teacher, _teacher_stages),
    )
  ):
    for start, stop in zip((('image', 'image'), *cut), cut):
      try:
        between(network, start[k], stop[k])
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


def _teacher_stages(teacher: Network, start: str, stop: str) -> tuple[str, ...]:
  """Returns the teacher's stages of a segment; none between equal features."""
  writers = [
    graph.stages_between(teacher, 'image', name)[-1]
    for name in (start, stop)
    if name != 'image'
  ]
  if len(writers) == 2 and writers[0] == writers[1]:
    return ()
  return graph.stages_between(teacher, start, stop)


# A block is the list of the names of its layers.
_Blocks = list[list[str]]
_BlockPairs = list[tuple[list[str], list[str]]]


def _block_pairs(
  student_blocks: _Blocks, teacher_blocks: _Blocks, repeat: bool
) -> _BlockPairs:
  """Returns the pairs of blocks of two groups; the last blocks are a pair."""
  student_names, teacher_names = (
    ['.'.join(block[0].split('.')[:2]) for block in blocks]
    for blocks in (student_blocks, teacher_blocks)
  )
  n, m = len(student_names), len(teacher_names)
  repeat = repeat and n > m
  if student_names[:m] == teacher_names[:n] and not repeat:
    return _in_proportion(student_blocks, teacher_blocks)
  matcher = difflib.SequenceMatcher(
    None, student_names, teacher_names, autojunk=False
  )
  block_pairs: _BlockPairs = []
  for _, i, i_end, j, j_end in matcher.get_opcodes():
    teacher_run = teacher_blocks[j:j_end]
    end = min(i_end, i + len(teacher_run)) if repeat else i_end
    if i < end and teacher_run:
      block_pairs += _in_proportion(student_blocks[i:end], teacher_run)
    if block_pairs:
      spare = student_blocks[end:i_end]
      block_pairs += [(block, teacher_blocks[j_end - 1]) for block in spare]
  return [*block_pairs[:-1], (student_blocks[-1], teacher_blocks[-1])]


def _in_proportion(
  student_blocks: _Blocks, teacher_blocks: _Blocks
) -> _BlockPairs:
  """Pairs as many blocks as the shorter list has, evenly spread."""
  n, m = len(student_blocks), len(teacher_blocks)
  k = min(n, m)
  return [
    (student_blocks[b * n // k - 1], teacher_blocks[b * m // k - 1])
    for b in range(1, k + 1)
  ]


def _repeated(
  pair: Pair, student_layers: list[str], teacher_feature: str
) -> list[tuple[str, str]]:
  """Pairs the layers of a block that the teacher lacks with one feature."""
  shape = pair.teacher_shapes[teacher_feature].shape
  return [
    (layer, teacher_feature)
    for layer in student_layers
    if pair.student_shapes[layer].shape == shape
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
