"""Cuts of the pairs of networks in the paper on Masked Layer Distillation."""

import jax
import numpy as np
import pytest

from jaxdistill import objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import NETWORKS, graph
from jaxdistill.networks.surgery import edits, layerwise
from jaxdistill.objectives import cuts


@pytest.fixture(scope='module')
def pair_of(recipe):
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  recipe = recipe._replace(example={'image': image})

  def make(student, teacher):
    networks = (NETWORKS[name]() for name in (student, teacher))
    return objectives.pair_of(*networks, recipe)

  return make


def block_pairs(cut, group):
  """Returns [(student block, teacher block)] in a group."""
  return [
    tuple(int(name[-2:].strip('kv')) for name in pair)
    for pair in cut
    if pair[0].startswith(f'group{group}.')
  ]


def test_resnet34_and_resnet18_have_the_breakpoints_of_the_paper(pair_of):
  """The paper lists {1.1, 1.2} -> 1.1, {2.0, 2.1} -> 2.0, ..., from block 0.

  It does not list the stem and block 1.0, which follow from the same rule.
  """
  pair = pair_of('cifar_resnet18', 'cifar_resnet34')
  cut = cuts.breakpoints(pair, 'blocks')
  assert cut[0] == ('stem', 'stem')
  last = {1: (0, 2), 2: (1, 3), 3: (2, 5), 4: (0, 2)}
  for group, (first, second) in last.items():
    assert block_pairs(cut, group) == [(1, first + 1), (2, second + 1)]
  segments = cuts.segments(pair, cut)
  assert len(segments) == 9
  assert segments[2].teacher == ('group1.block2', 'group1.block3')


def test_swapped_networks_have_swapped_breakpoints(pair_of):
  shallow, deep = 'cifar_resnet18', 'cifar_resnet34'
  cut = cuts.breakpoints(pair_of(shallow, deep), 'blocks')
  swapped = cuts.breakpoints(pair_of(deep, shallow), 'blocks')
  assert swapped == tuple(pair[::-1] for pair in cut)


def test_vgg_and_bottleneck_networks_pair_blocks_in_proportion(pair_of):
  pair = pair_of('vgg19', 'vgg13')
  assert cuts.breakpoints(pair, 'groups') == tuple(
    (f'group{g}',) * 2 for g in range(1, 6)
  )
  cut = cuts.breakpoints(pair, 'blocks')
  assert block_pairs(cut, 2) == [(1, 1), (2, 2)]
  assert block_pairs(cut, 4) == [(2, 1), (4, 2)]
  cut = cuts.breakpoints(pair_of('cifar_resnet50', 'cifar_resnet101'), 'blocks')
  ends = (3, 7, 11, 15, 19, 23)
  assert block_pairs(cut, 3) == list(enumerate(ends, start=1))
  assert len(cuts.segments(pair_of('vgg19', 'vgg13'), (('group1', 'group1'),)))


def test_segments_of_an_edited_student_cover_all_stages_up_to_the_head(
  pair_of,
):
  pair = pair_of('resnet20', 'resnet20')
  student = edits.delete(pair.student, ('group2.block2', 'group3.block3'))
  pair = objectives.pair_of(student, pair.teacher, pair.recipe)
  for kind in cuts.KINDS:
    segments = cuts.segments(pair, cuts.breakpoints(pair, kind))
    for role, network in (('student', pair.student), ('teacher', pair.teacher)):
      covered = [
        name for segment in segments for name in getattr(segment, role)
      ]
      assert covered == [s.name for s in network.stages[:-2]]


@pytest.mark.parametrize(
  ('deleted', 'expected'),
  [
    (('group1.block1',), [(2, 2), (3, 3), (4, 4), (5, 5)]),
    (('group1.block2', 'group1.block3'), [(1, 1), (4, 4), (5, 5)]),
    # The last block of the group is paired with the last.
    (('group1.block2', 'group1.block5'), [(1, 1), (3, 3), (4, 5)]),
    # This student looks like a shallower network.
    (('group1.block4', 'group1.block5'), [(1, 1), (2, 3), (3, 5)]),
  ],
)
def test_blocks_that_remain_after_an_edit_are_paired_with_themselves(
  pair_of, deleted, expected
):
  pair = pair_of('resnet32', 'resnet32')
  student = edits.delete(pair.student, deleted)
  pair = objectives.pair_of(student, pair.teacher, pair.recipe)
  cut = cuts.breakpoints(pair, 'blocks')
  assert block_pairs(cut, 1) == expected
  assert block_pairs(cut, 2) == [(b, b) for b in range(1, 6)]
  cuts.segments(pair, cut)


def test_every_convolution_of_a_deeper_vgg_has_a_target(pair_of):
  """The convolutions that the teacher lacks learn the identity."""
  pair = pair_of('vgg19', 'vgg13')
  cut = cuts.breakpoints(pair, 'blocks', repeat=True)
  convolutions = [n for n in graph.stage_names(pair.student) if '.conv' in n]
  assert [student for student, _ in cut] == convolutions
  assert block_pairs(cut, 2) == [(1, 1), (2, 2)]
  assert block_pairs(cut, 4) == [(1, 1), (2, 2), (3, 2), (4, 2)]
  for segment in cuts.segments(pair, cut):
    (name,) = segment.student
    is_spare = name[-5:] in ('conv3', 'conv4')
    assert segment.teacher == (() if is_spare else (name,))
  # Without it, or for a shallower student, nothing is repeated.
  swapped = pair_of('vgg13', 'vgg19')
  for given, kind in ((pair, 'blocks'), (swapped, 'blocks'), (pair, 'groups')):
    assert len({t for _, t in cuts.breakpoints(given, kind)}) == len(
      cuts.breakpoints(given, kind)
    )
  assert cuts.breakpoints(swapped, 'blocks', repeat=True) == cuts.breakpoints(
    swapped, 'blocks'
  )


@pytest.mark.parametrize(
  ('after', 'names', 'repeat', 'expected'),
  [
    ('group1.block1', ('new',), False, '1-1 2-2 3-3'),
    ('group1.block1', ('new',), True, '1-1 new-1 2-2 3-3'),
    ('group1.block2', ('new', 'newer'), True, '1-1 2-2 new-2 newer-2 3-3'),
    ('group1.block3', ('new',), True, '1-1 2-2 3-3 new-3'),
  ],
)
def test_inserted_blocks_repeat_the_feature_before_them(
  after, names, repeat, expected, pair_of
):
  pair = pair_of('resnet20', 'resnet20')
  student = pair.student
  for name in reversed(names):
    part = edits.stages(student, 'group1.block2', names=(f'group1.{name}',))
    student = edits.insert(student, after, part)
  pair = objectives.pair_of(student, pair.teacher, pair.recipe)
  cut = cuts.breakpoints(pair, 'blocks', repeat=repeat)
  pairs_of_group = [
    '-'.join(n.removeprefix('group1.').removeprefix('block') for n in names)
    for names in cut
    if names[0].startswith('group1.')
  ]
  assert ' '.join(pairs_of_group) == expected
  cuts.segments(pair, cut)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_a_block_may_be_replaced_by_any_number_of_blocks(count, pair_of):
  pair = pair_of('resnet20', 'resnet20')
  names = [f'group1.new{i}' for i in range(1, count + 1)]
  blocks = [f'group1.block{i}' for i in range(1, count + 1)]
  part = edits.stages(pair.student, blocks[0], blocks[-1], names=names)
  student = edits.replace(pair.student, *('group1.block2',) * 2, part)
  pair = objectives.pair_of(student, pair.teacher, pair.recipe)
  for repeat in (False, True):
    cut = cuts.breakpoints(pair, 'blocks', repeat=repeat)
    segments = {s.stop[0]: s for s in cuts.segments(pair, cut)}
    assert segments['group1.block3'].student == ('group1.block3',)
    assert segments['group1.block3'].teacher == ('group1.block3',)
    end = names[0] if repeat else names[-1]
    assert segments[end].teacher == ('group1.block2',)


def test_layers_of_a_spare_block_repeat_the_feature_before_it(pair_of):
  pair = pair_of('resnet20', 'resnet14')
  networks = [
    layerwise.by_layers(
      Model(n, graph.variable_shapes(n, pair.recipe.example))
    ).network
    for n in (pair.student, pair.teacher)
  ]
  pair = objectives.pair_of(*networks, pair.recipe)
  cut = cuts.breakpoints(pair, 'layers', repeat=True)
  assert cut[3:7] == (
    ('group1.block2.conv1', 'group1.block2.conv1'),
    ('group1.block2.conv2', 'group1.block2.conv2'),
    ('group1.block3.conv1', 'group1.block2.conv2'),
    ('group1.block3.conv2', 'group1.block2.conv2'),
  )
  cuts.segments(pair, cut)


def test_only_teacher_features_may_be_repeated(pair_of):
  pair = pair_of('vgg19', 'vgg13')
  cut = (('group1', 'group1'), ('group1', 'group2'))
  with pytest.raises(UsageError, match="in the student, feature 'group1'"):
    cuts.check_order(pair, cut)
  cuts.check_order(pair, tuple(names[::-1] for names in cut))
  with pytest.raises(UsageError, match="in the teacher, feature 'group1'"):
    cuts.check_order(pair, (('group1', 'group2'), ('group2', 'group1')))


def test_layers_are_paired_with_those_of_the_last_block_of_a_group(pair_of):
  def split_pair(student, teacher):
    pair = pair_of(student, teacher)
    networks = [
      layerwise.by_layers(
        Model(n, graph.variable_shapes(n, pair.recipe.example))
      ).network
      for n in (pair.student, pair.teacher)
    ]
    return objectives.pair_of(*networks, pair.recipe)

  pair = split_pair('resnet8', 'resnet14')
  first = (('stem', 'stem'), ('group1.block1.conv1', 'group1.block2.conv1'))
  cut = cuts.breakpoints(pair, 'layers')
  assert cut[:2] == first
  assert len(cut) == len(cuts.segments(pair, cut)) == 7
  assert cuts.segments(pair, cut)[3].student == (
    *('group2.block1.shortcut', 'group2.block1.conv1'),
  )
  # If two blocks have different numbers of layers, their ends are paired.
  pair = split_pair('cifar_resnet18', 'cifar_resnet50')
  assert cuts.breakpoints(pair, 'layers') == cuts.breakpoints(pair, 'blocks')
  assert cuts.breakpoints(pair, 'blocks')[1] == (
    *('group1.block1.conv2', 'group1.block1.conv3'),
  )
