"""Splicing networks, and selecting and merging their variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet

IMAGE = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)


def batch_of(image=IMAGE):
  return {'image': jnp.asarray(image)}


def assert_same(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(np.testing.assert_array_equal, first, second)


def differs(first, second) -> bool:
  return any(
    not np.array_equal(a, b)
    for a, b in zip(
      jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    )
  )


def test_merging_a_selection_back_changes_nothing(student):
  variables = student.variables
  part = graph.select(variables, ['stem', 'head'])
  assert {c: set(tree) for c, tree in part.items()} == {
    'params': {'stem', 'head'},
    'batch_stats': {'stem'},
  }
  assert_same(graph.merge(variables, part), variables)


def test_merge_replaces_whole_stages_and_does_not_change_its_arguments():
  variables = {'params': {'a': {'w': 1, 'b': 2}, 'c': {'w': 3}}}
  merged = graph.merge(
    variables, {'params': {'a': {'w': 4}}, 'batch_stats': {'a': {'mean': 5}}}
  )
  assert merged == {
    'params': {'a': {'w': 4}, 'c': {'w': 3}},
    'batch_stats': {'a': {'mean': 5}},
  }
  assert variables == {'params': {'a': {'w': 1, 'b': 2}, 'c': {'w': 3}}}


def test_splice_renames_optional_inputs_with_the_stages_that_they_name():
  stages = (
    Stage('first', layers.Pool()),
    Stage('last', layers.Pool(), optional=('first', 'boxes')),
  )
  part = Model(Network(stages), {})
  network = Network((stages[0], Stage('middle', layers.Pool())))
  model = Model(network, {})
  spliced = graph.splice(model, 'middle', 'middle', part).network
  assert [stage.name for stage in spliced.stages] == [
    'first',
    'first_2',
    'last',
  ]
  assert spliced.stages[-1].optional == ('first_2', 'boxes')


NOTHING = Model(Network(()), {})


def test_splice_deletes_a_stage_and_its_variables(student):
  name = 'group1.block1'
  shorter = graph.splice(student, name, name, NOTHING)
  assert graph.stage_names(shorter.network) == (
    'stem',
    'group2.block1',
    'pool',
    'head',
  )
  for tree in shorter.variables.values():
    assert name not in tree
  # The next stage reads the one before the gap.
  stem, _ = graph.run(*student, batch_of(), only=['stem'])
  end, _ = graph.run(
    *student, {name: stem['stem']}, only=['group2.block1', 'pool', 'head']
  )
  assert_same(graph.apply(*shorter, batch_of()['image']), end['head'])


def test_splice_inserts_blocks_of_another_network(student):
  other = graph.init(student.network, jax.random.key(7), batch_of())
  names = ('group1.block1', 'group2.block1')
  part = Model(
    Network(tuple(s for s in student.network.stages if s.name in names)),
    graph.select(other, names),
  )
  spliced = graph.splice(student, *names, part)
  assert spliced.network == student.network
  stem, _ = graph.run(*student, batch_of(), only=['stem'])
  middle, _ = graph.run(student.network, other, stem, only=names)
  end, _ = graph.run(*student, middle, only=['pool', 'head'])
  assert_same(graph.apply(*spliced, batch_of()['image']), end['head'])


def test_splice_can_replace_a_stage_by_itself_and_another(student):
  unit = Network(
    (
      student.network.stages[0],
      Stage('extra', resnet.BasicBlock(2)),
    )
  )
  variables = graph.init(unit, jax.random.key(3), batch_of())
  part = Model(
    unit, graph.merge(variables, graph.select(student.variables, ['stem']))
  )
  longer = graph.splice(student, 'stem', 'stem', part)
  assert graph.stage_names(longer.network)[:3] == (
    'stem',
    'extra',
    'group1.block1',
  )
  assert_same(longer.variables['params']['extra'], variables['params']['extra'])
  before, _ = graph.run(*student, batch_of())
  after, _ = graph.run(*longer, batch_of())
  assert_same(before['stem'], after['stem'])
  assert differs(before['head'], after['head'])


def test_spliced_stages_whose_names_are_taken_get_numbers(student):
  unit = layers.ConvUnit(2)
  network = Network(
    (Stage('stem', unit), Stage('head', unit, ('stem',)), Stage('new', unit))
  )
  variables = graph.init(network, jax.random.key(3), batch_of())
  block = 'group1.block1'
  spliced = graph.splice(student, block, block, Model(network, variables))
  assert graph.stage_names(spliced.network) == (
    'stem',
    'stem_2',
    'head_2',
    'new',
    'group2.block1',
    'pool',
    'head',
  )
  # Inputs and variables have the new names.
  assert spliced.network.stages[2].inputs == ('stem_2',)
  params = spliced.variables['params']
  assert_same(params['stem_2'], variables['params']['stem'])
  assert_same(params['head_2'], variables['params']['head'])
  assert_same(params['stem'], student.variables['params']['stem'])
  assert_same(params['head'], student.variables['params']['head'])


def test_splice_does_not_change_its_arguments(student):
  names = graph.stage_names(student.network)
  copy = jax.tree.map(np.array, student.variables)
  graph.splice(student, 'stem', 'pool', NOTHING)
  assert graph.stage_names(student.network) == names
  assert_same(student.variables, copy)


@pytest.mark.parametrize(
  ('start', 'stop', 'message'),
  [
    ('steem', 'pool', r"stage 'steem'; did you mean 'stem'"),
    ('stem', 'group1', r"unknown stage 'group1'"),
    ('pool', 'stem', "'stem' comes before stage 'pool'"),
  ],
)
def test_splice_refuses_an_invalid_range(student, start, stop, message):
  with pytest.raises(UsageError, match=message):
    graph.splice(student, start, stop, NOTHING)


@pytest.mark.parametrize('read', ['group1.block1', 'group1', 'group1.pre'])
def test_splice_refuses_to_remove_what_a_later_stage_reads(student, read):
  stages = (*student.network.stages, Stage('late', layers.Pool(), (read,)))
  model = Model(Network(stages), student.variables)
  with pytest.raises(UsageError, match=r"'late' reads.*'group1"):
    graph.splice(model, 'group1.block1', 'group1.block1', NOTHING)
