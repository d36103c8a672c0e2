"""Breakpoints of the pairs that Masked Layer Distillation is about."""

import jax
import numpy as np
import pytest

from jaxdistill import terms
from jaxdistill.networks import NETWORKS, edits
from jaxdistill.terms import cuts


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
    for network, k in ((pair.student, 2), (pair.teacher, 3)):
      covered = [name for group in groups for name in group[k]]
      assert covered == [s.name for s in network.stages[:-2]]
