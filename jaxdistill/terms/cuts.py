"""Breakpoints: where two networks are compared, and the stages between."""

from typing import NamedTuple

from jaxdistill.networks import staged
from jaxdistill.terms import pairs
from jaxdistill.types import Array, Cut, Features, Network, UsageError


class Group(NamedTuple):
  """The stages between two breakpoints.

  Attributes:
    stop: (student feature, teacher feature) it ends with.
    student: the student's stages.
    teacher: the teacher's.
  """

  stop: tuple[str, str]
  student: tuple[str, ...]
  teacher: tuple[str, ...]


KINDS = ('groups', 'blocks', 'layers')


def check_kind(kind: str) -> None:
  """Raises UsageError where there is no such kind of breakpoints."""
  if kind not in KINDS:
    raise staged.unknown('breakpoints', kind, KINDS)


def cut_of(pair: pairs.Pair, kind: str) -> Cut:
  """The breakpoints that two networks of the same plan offer.

  Args:
    pair: the networks.
    kind: 'groups': the ends of all groups that give maps, the stem's among
      them; 'blocks': also the blocks in between; 'layers': also the layers in
      blocks that `layerwise.by_layers` has taken apart, where both of a pair
      have as many. Where one group has n blocks and the other m > n, block b of
      the n pairs with block floor(b m / n). But where the names say that the
      student lacks others than the last blocks, as after `edits.delete`, blocks
      of one name pair, and the last with the last.

  Raises:
    UsageError: there is no such kind, or the networks have different numbers
      of groups.
  """
  check_kind(kind)
  ours = pairs.maps(pair.student, pair.student_shapes)
  theirs = pairs.maps(pair.teacher, pair.teacher_shapes)
  if len(ours) != len(theirs) or not ours:
    raise UsageError(
      f'the student has the groups of maps {", ".join(ours) or "none"} and the '
      f'teacher {", ".join(theirs) or "none"}: name the breakpoints as cut'
    )
  if kind == 'groups':
    return tuple(zip(ours, theirs))
  found: list[tuple[str, str]] = []
  for own, other in zip(ours, theirs):
    students, teachers = (
      _blocks(pair.student, own),
      _blocks(pair.teacher, other),
    )
    for first, second in _paired(students, teachers):
      alike = kind == 'layers' and len(first) == len(second)
      found += zip(first, second) if alike else [(first[-1], second[-1])]
  return tuple(found)


def _paired(
  students: list[list[str]], teachers: list[list[str]]
) -> list[tuple[list[str], list[str]]]:
  """The blocks of two groups that pair, the last with the last."""
  n, m = len(students), len(teachers)
  named = {block[0]: block for block in teachers}
  names = [block[0] for block in students]
  if {*names} < {*named} and names != [*named][:n]:
    pairs_by_name = [(block, named[block[0]]) for block in students]
    return [*pairs_by_name[:-1], (students[-1], teachers[-1])]
  k = min(n, m)
  return [
    (students[b * n // k - 1], teachers[b * m // k - 1])
    for b in range(1, k + 1)
  ]


def _blocks(network: Network, group: str) -> list[list[str]]:
  """The blocks of a group, each the layers that follow each other in it."""
  blocks: dict[str, list[str]] = {}
  for name in staged.groups(network)[group]:
    own = blocks.setdefault('.'.join(name.split('.')[:2]), [])
    if not name.endswith('.shortcut'):
      own.append(name)
  return list(blocks.values())


def check_order(pair: pairs.Pair, cut: Cut) -> None:
  """Raises UsageError unless a cut goes through both networks, stage by stage.

  Its features are outputs of stages or groups, each behind the one before, and
  something of the student is left behind the last.
  """
  networks = pair.student, pair.teacher
  for k, side in enumerate(('student', 'teacher')):
    for start, stop in zip((('image', 'image'), *cut), cut):
      try:
        staged.stages_between(networks[k], start[k], stop[k])
      except UsageError as error:
        raise UsageError(f'cut: of the {side}, {error}') from None
  if not pairs.behind(pair.student, cut[-1][0]):
    raise UsageError(
      f'cut: {cut[-1][0]!r} is the end of the student: no head is left'
    )


def groups(pair: pairs.Pair, cut: Cut) -> tuple[Group, ...]:
  """What a cut makes of two networks.

  Raises:
    UsageError: see `check_order`; or two features differ in shape.
  """
  if not cut:
    raise UsageError('cut: wanted at least one breakpoint')
  check_order(pair, cut)
  for ours, theirs in cut:
    shapes = pair.student_shapes[ours].shape, pair.teacher_shapes[theirs].shape
    if len({*shapes}) > 1:
      raise UsageError(
        f"cut: the student's {ours} is {shapes[0][1:]}, the teacher's {theirs} "
        f'{shapes[1][1:]}; they must be equal, as where the student is the '
        'teacher narrowed'
      )
  return tuple(
    Group(
      stop,
      staged.stages_between(pair.student, start[0], stop[0]),
      staged.stages_between(pair.teacher, start[1], stop[1]),
    )
    for start, stop in zip((('image', 'image'), *cut), cut)
  )


def replaced(
  network: Network, features: Features, name: str, value: Array
) -> Features:
  """Features with another output of a stage or group, under all its names."""
  last = staged.stages_between(network, 'image', name)[-1]
  ends = [g for g, own in staged.groups(network).items() if own[-1] == last]
  return {**features, **dict.fromkeys((last, *ends), value)}
