"""Breakpoints of the pairs that Masked Layer Distillation is about."""

import jax
import numpy as np
import pytest

from jaxdistill import terms
from jaxdistill.networks import NETWORKS, edits, layerwise, staged
from jaxdistill.terms import cuts
from jaxdistill.types import Model


@pytest.fixture(scope='module')
def pair_of(recipe):
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  recipe = recipe._replace(example={'image': image})

  def make(student, teacher):
    networks = (NETWORKS[name]() for name in (student, teacher))
    return terms.pair_of(*networks, recipe)

  return make


def places(cut, group):
  """[(student block, teacher block)] of a group."""
  return [
    tuple(int(name[-2:].strip('kv')) for name in pair)
    for pair in cut
    if pair[0].startswith(f'group{group}.')
  ]


def test_resnet34_to_18_has_the_papers_map(pair_of):
  """{1.1, 1.2} -> 1.1, {2.0, 2.1} -> 2.0, ...; blocks count from 0 there.

  What the paper does not list, the stem and block 1.0, follows.
  """
  pair = pair_of('cifar_resnet18', 'cifar_resnet34')
  cut = cuts.cut_of(pair, 'blocks')
  assert cut[0] == ('stem', 'stem')
  last = {1: (0, 2), 2: (1, 3), 3: (2, 5), 4: (0, 2)}
  for group, (first, second) in last.items():
    assert places(cut, group) == [(1, first + 1), (2, second + 1)]
  groups = cuts.groups(pair, cut)
  assert len(groups) == 9
  assert groups[2].teacher == ('group1.block2', 'group1.block3')


def test_a_deeper_student_is_grouped_the_other_way(pair_of):
  small = cuts.cut_of(pair_of('cifar_resnet18', 'cifar_resnet34'), 'blocks')
  large = cuts.cut_of(pair_of('cifar_resnet34', 'cifar_resnet18'), 'blocks')
  assert large == tuple(pair[::-1] for pair in small)


def test_vgg13_to_19_and_resnet101_to_50(pair_of):
  pair = pair_of('vgg19', 'vgg13')
  assert cuts.cut_of(pair, 'groups') == tuple(
    (f'group{g}',) * 2 for g in range(1, 6)
  )
  cut = cuts.cut_of(pair, 'blocks')
  assert places(cut, 2) == [(1, 1), (2, 2)]
  assert places(cut, 4) == [(2, 1), (4, 2)]
  cut = cuts.cut_of(pair_of('cifar_resnet50', 'cifar_resnet101'), 'blocks')
  ends = (3, 7, 11, 15, 19, 23)
  assert places(cut, 3) == list(enumerate(ends, start=1))
  assert len(cuts.groups(pair_of('vgg19', 'vgg13'), (('group1', 'group1'),)))


def test_groups_cover_all_stages_up_to_the_last_breakpoint(pair_of, recipe):
  """Of an edited student too."""
  pair = pair_of('resnet20', 'resnet20')
  student = edits.delete(pair.student, ('group2.block2', 'group3.block3'))
  pair = terms.pair_of(student, pair.teacher, pair.recipe)
  for kind in cuts.KINDS:
    groups = cuts.groups(pair, cuts.cut_of(pair, kind))
    for role, network in (('student', pair.student), ('teacher', pair.teacher)):
      covered = [name for group in groups for name in getattr(group, role)]
      assert covered == [s.name for s in network.stages[:-2]]


@pytest.mark.parametrize(
  ('deleted', 'expected'),
  [
    (('group1.block1',), [(2, 2), (3, 3), (4, 4), (5, 5)]),
    (('group1.block2', 'group1.block3'), [(1, 1), (4, 4), (5, 5)]),
    # The end of the group pairs with its end.
    (('group1.block2', 'group1.block5'), [(1, 1), (3, 3), (4, 5)]),
    # Nothing tells this student from a shallower network.
    (('group1.block4', 'group1.block5'), [(1, 1), (2, 3), (3, 5)]),
  ],
)
def test_blocks_that_survive_an_edit_pair_with_themselves(
  pair_of, deleted, expected
):
  pair = pair_of('resnet32', 'resnet32')
  student = edits.delete(pair.student, deleted)
  pair = terms.pair_of(student, pair.teacher, pair.recipe)
  cut = cuts.cut_of(pair, 'blocks')
  assert places(cut, 1) == expected
  assert places(cut, 2) == [(b, b) for b in range(1, 6)]
  cuts.groups(pair, cut)


def test_layers_pair_with_those_of_the_last_block_of_a_group(pair_of):
  def apart(student, teacher):
    pair = pair_of(student, teacher)
    networks = [
      layerwise.by_layers(
        Model(n, staged.variable_shapes(n, pair.recipe.example))
      ).network
      for n in (pair.student, pair.teacher)
    ]
    return terms.pair_of(*networks, pair.recipe)

  pair = apart('resnet8', 'resnet14')
  first = (('stem', 'stem'), ('group1.block1.conv1', 'group1.block2.conv1'))
  cut = cuts.cut_of(pair, 'layers')
  assert cut[:2] == first
  assert len(cut) == len(cuts.groups(pair, cut)) == 7
  assert cuts.groups(pair, cut)[3].student == (
    *('group2.block1.shortcut', 'group2.block1.conv1'),
  )
  # Where blocks have different numbers of layers, their ends.
  pair = apart('cifar_resnet18', 'cifar_resnet50')
  assert cuts.cut_of(pair, 'layers') == cuts.cut_of(pair, 'blocks')
  assert cuts.cut_of(pair, 'blocks')[1] == (
    *('group1.block1.conv2', 'group1.block1.conv3'),
  )
