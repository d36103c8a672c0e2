"""Edits keep the shapes of remaining stages, and are refused otherwise."""

import jax
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet
from jaxdistill.networks.surgery import edits

SMALL = {'image_shape': (16, 16, 3)}
IMAGE = {'image': jax.ShapeDtypeStruct((2, 16, 16, 3), np.float32)}


@pytest.fixture(scope='module')
def network():
  """Two blocks in each of three groups."""
  return networks.NETWORKS['resnet14'](
    num_classes=3, widths=(2, 4, 6), stem_width=2
  )


@pytest.fixture(scope='module')
def model(network):
  return Model(network, networks.init(network, jax.random.key(0), IMAGE))


def names(network):
  return graph.stage_names(network)


def extra(name, width):
  return Network((Stage(name, resnet.BasicBlock(width)),))


def test_deleted_blocks_are_gone_and_the_others_remain(network):
  blocks = ('group3.block2', 'group1.block2')
  edited = edits.delete(network, blocks, **SMALL)
  assert names(edited) == tuple(n for n in names(network) if n not in blocks)


def test_a_block_is_inserted_after_another(network):
  edited = edits.insert(
    network, 'group2.block1', extra('group2.new', 4), **SMALL
  )
  at = names(edited).index('group2.new')
  assert names(edited)[at - 1 : at + 2] == (
    *('group2.block1', 'group2.new', 'group2.block2'),
  )
  assert edits.delete(edited, ('group2.new',), **SMALL) == network


def test_a_name_that_is_taken_gets_a_number(network):
  edited = edits.insert(
    network, 'group2.block2', extra('group2.block2', 4), **SMALL
  )
  assert names(edited).count('group2.block2_2') == 1


def test_blocks_are_replaced_by_any_number_of_others(network):
  first = Stage('group2.only', resnet.BasicBlock(4, stride=2))
  edited = edits.replace(
    network, 'group2.block1', 'group2.block2', Network((first,)), **SMALL
  )
  assert [n for n in names(edited) if n.startswith('group2')] == ['group2.only']


@pytest.mark.parametrize(
  ('edit', 'message'),
  [
    (
      lambda n: edits.delete(n, ('group2.block1',), **SMALL),
      "'group2.block2' would be (16, 16, 4) instead of (8, 8, 4)",
    ),
    (
      lambda n: edits.insert(n, 'group1.block2', extra('new', 5), **SMALL),
      "stage 'group2.block1' would read another number of channels",
    ),
    (
      lambda n: edits.insert(
        n, 'group1.block2', extra('group1.new', 5), **SMALL
      ),
      "'group1' would be (16, 16, 5) instead of (16, 16, 2)",
    ),
    (
      lambda n: edits.replace(
        n, 'group3.block1', 'group3.block2', extra('group3.x', 6), **SMALL
      ),
      "'group3' would be (8, 8, 6) instead of (4, 4, 6)",
    ),
    (
      lambda n: edits.delete(n, ('pool',), **SMALL),
      "'head' would be (4, 4, 3) instead of (3,)",
    ),
    (
      lambda n: edits.delete(n, ('head',), **SMALL),
      "'pool' would be (6,) instead of (3,)",
    ),
    (lambda n: edits.delete(n, names(n), **SMALL), 'no stage is left'),
    (lambda n: edits.delete(n, 'pool', **SMALL), "list of stages, got 'pool'"),
    (lambda n: edits.delete(n, ('group4',), **SMALL), "unknown stage 'group4'"),
    (lambda n: edits.delete(n, ('stem', 'stem')), "unknown stage 'stem'"),
    (
      lambda n: edits.insert(n, 'stem', Network((Stage('x', layers.Pool()),))),
      'insert after stem: the edited network does not run',
    ),
  ],
)
def test_an_edit_that_breaks_shapes_is_refused(edit, message, network):
  with pytest.raises(UsageError) as caught:
    edit(network)
  assert message in str(caught.value)


def test_deletable_blocks_are_those_that_delete_accepts(network):
  deletable = edits.deletable(network, **SMALL)
  assert deletable == (
    *('group1.block1', 'group1.block2', 'group2.block2', 'group3.block2'),
  )
  for name in names(network):
    try:
      edits.delete(network, (name,), **SMALL)
    except UsageError:
      assert name not in deletable
    else:
      assert name in deletable


def test_the_mobile_networks_have_six_and_nine_deletable_blocks():
  """The numbers are those of Masked Layer Distillation."""
  count = {'mobilenet_v3_small': 6, 'efficientnet_b0': 9}
  for name, number in count.items():
    assert len(edits.deletable(networks.NETWORKS[name]())) == number


def test_only_surviving_stages_inherit_weights(network, model):
  edited = edits.delete(network, ('group3.block2',), **SMALL)
  edited = edits.replace(
    edited,
    'group1.block2',
    'group1.block2',
    # It has the same name and shape, but another module.
    Network((Stage('group1.block2', resnet.BasicBlock(2, inner=3)),)),
    **SMALL,
  )
  fresh = networks.init(edited, jax.random.key(1), IMAGE)
  inherited = edits.inherit(edited, fresh, model)
  for collection, tree in inherited.items():
    assert set(tree) == set(fresh[collection])
    for stage, stage_variables in tree.items():
      source = fresh if stage == 'group1.block2' else model.variables
      jax.tree.map(
        np.testing.assert_array_equal,
        stage_variables,
        source[collection][stage],
      )


def test_a_stage_with_other_shapes_inherits_nothing(model):
  """The module of a head is the same for inputs of another width."""
  head = Network(model.network.stages[-1:])
  fresh = networks.init(
    head, jax.random.key(1), {'image': jax.ShapeDtypeStruct((2, 9), np.float32)}
  )
  jax.tree.map(
    np.testing.assert_array_equal, edits.inherit(head, fresh, model), fresh
  )
