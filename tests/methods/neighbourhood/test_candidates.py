"""Candidates of a student search: other blocks of any kind."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.neighbourhood import candidates, student_search
from jaxdistill.methods.neighbourhood.candidates import Candidate
from jaxdistill.methods.neighbourhood.plan import Plan
from jaxdistill.networks import graph, layers, registry
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import resnet
from jaxdistill.networks.surgery import narrowing
from jaxdistill.study import parse
from jaxdistill.study import registry as study_registry

BLOCKS = ('group1.block1', 'group2.block1')
NETWORK = Network(
  (
    Stage('stem', layers.ConvUnit(4)),
    Stage(BLOCKS[0], resnet.BasicBlock(4)),
    Stage(BLOCKS[1], resnet.BasicBlock(6, stride=2)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(3)),
  )
)


class Own(nn.Module):
  """A block of a user, which knows nothing of the library."""

  channels: int
  stride: int

  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.tanh(nn.Conv(self.channels, (1, 1), self.stride)(x))


# Label -> section of a config.
SECTIONS = {
  'narrow': {'name': 'narrow', 'multiplier': 0.5},
  'kernel': {'name': 'block', 'kernel': 1},
  'depth': {'name': 'block', 'depth': 1},
  'swish': {'name': 'block', 'activation': 'swish'},
  'low rank': {'name': 'block', 'rank': 0.5},
  'sparse': {'name': 'sparsified', 'sparsity': 0.5},
  'shortcut': {'name': 'fields', 'values': {'shortcut': 'A'}},
}


def from_config(section):
  table = study_registry.CANDIDATES
  parsed = parse.parse(section, table, 'x', study_registry.TABLES)
  return parsed.build({})


def modules(section):
  """The modules of both blocks of a candidate."""
  network = candidates.changed('x', from_config(section), NETWORK, BLOCKS)
  assert [s for s in network.stages if s.name not in BLOCKS] == [
    s for s in NETWORK.stages if s.name not in BLOCKS
  ]
  return [stage.module for stage in network.stages[1:3]]


def test_a_section_of_a_config_changes_the_modules_inside_neighbourhoods():
  unit = layers.ResidualUnit
  assert modules(SECTIONS['narrow']) == [
    resnet.BasicBlock(4, 2),
    resnet.BasicBlock(6, 3, 2),
  ]
  assert modules(SECTIONS['kernel'])[0] == unit(4, 4, kernel=1)
  assert modules(SECTIONS['depth'])[1] == unit(6, 6, depth=1, stride=2)
  assert modules(SECTIONS['swish'])[0] == unit(4, 4, activation='swish')
  assert modules(SECTIONS['low rank'])[1] == unit(6, 6, rank=3, stride=2)
  assert modules(SECTIONS['sparse']) == [
    stage.module for stage in NETWORK.stages[1:3]
  ]
  assert from_config(SECTIONS['sparse']).sparsity == 0.5
  assert modules(SECTIONS['shortcut'])[1].shortcut == 'A'


def test_a_field_of_inverted_residuals_can_be_a_candidate():
  block = inverted_residual.InvertedResidual(4, 8)
  network = Network((Stage('group1.block1', block),))
  candidate = candidates.fields(values={'kernel': 5, 'activation': 'swish'})
  changed = candidates.changed('x', candidate, network, ('group1.block1',))
  assert changed.stages[0].module == block.clone(kernel=5, activation='swish')


def test_a_residual_unit_of_two_convolutions_is_a_basic_block():
  x = jax.ShapeDtypeStruct((2, 6, 6, 4), jnp.float32)
  modules = layers.ResidualUnit(6, 3, stride=2), resnet.BasicBlock(6, 3, 2)
  computations = []
  for module in modules:
    initialize = functools.partial(module.init, train=True)
    variables = jax.eval_shape(initialize, jax.random.key(0), x)
    apply = functools.partial(module.apply, train=True, mutable=['batch_stats'])
    computations.append((variables, str(jax.make_jaxpr(apply)(variables, x))))
  assert computations[0] == computations[1]


def test_a_kernel_of_low_rank_is_the_product_of_two():
  """[3, 3, C, r] and [1, 1, r, F] are one kernel [3, 3, C, F] of rank r."""
  draw = np.random.default_rng(0).standard_normal
  x = draw((1, 3, 3, 4), np.float32)
  spatial, across = draw((3, 3, 4, 2), np.float32), draw((2, 4), np.float32)
  norm = {'scale': np.ones(4), 'bias': np.zeros(4)}
  params = {
    'conv1': {'kernel': spatial},
    'conv1_expand': {'kernel': across[None, None]},
    'norm1': norm,
  }
  statistics = {'norm1': {'mean': np.zeros(4), 'var': np.full(4, 1 - 1e-5)}}
  unit = layers.ResidualUnit(4, depth=1, rank=2, final='')
  variables = {'params': params, 'batch_stats': statistics}
  branch = jax.jit(functools.partial(unit.apply, train=False))(variables, x)
  kernel = np.einsum('hwcr,rf->hwcf', spatial, across)
  middle = np.einsum('hwc,hwcf->f', x[0], kernel)
  np.testing.assert_allclose(
    branch[''][0, 1, 1] - x[0, 1, 1], middle, rtol=1e-4
  )


def filled(shapes):
  """Random numbers in place of shapes, without a compiled program."""
  draw = np.random.default_rng(0).standard_normal
  return jax.tree.map(lambda x: draw(x.shape, np.float32), shapes)


@pytest.fixture(scope='module')
def searched(recipe):
  """(method, the carry after the first phase of a search of mixed kinds)."""
  shapes = graph.variable_shapes(NETWORK, recipe.example)
  carry = {
    role: Model(NETWORK, filled(shapes)) for role in ('student', 'teacher')
  }
  own = Candidate(lambda block: Own(block.width, block.stride))
  kinds = {k: from_config(SECTIONS[k]) for k in ('low rank', 'sparse')}
  method = student_search.student_search(
    recipe, candidates={**kinds, 'own': own}, drops=(0.05,), statistics_steps=0
  )
  phase = method[0](carry)
  state, _ = jax.eval_shape(lambda: phase.init(jax.random.key(0), carry))
  return method, phase.finish(filled(state), (), carry)


def test_candidates_of_all_kinds_are_trained_by_one_step(searched, recipe):
  method, carry = searched
  low_rank = carry['low rank'].variables['params'][BLOCKS[0]]
  assert low_rank['conv1']['kernel'].shape == (3, 3, 4, 2)
  phase = method[1](carry)
  state, frozen = jax.eval_shape(lambda: phase.init(jax.random.key(0), carry))
  assert set(state.variables) == {'low rank', 'sparse', 'own'}
  batches = {'train': dict(recipe.example)}
  after, metrics = jax.eval_shape(
    lambda *a: phase.step(*a, jax.random.key(0), None), state, frozen, batches
  )
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
  assert {f'distance/{name}' for name in BLOCKS} <= set(metrics)


def test_a_student_is_assembled_from_candidates_of_different_kinds(searched):
  """The own block is smallest; the sparse one alone is good in the second."""
  method, carry = searched
  scores = jnp.array([[0.9, 0.9, 0.9], [0.1, 0.9, 0.1]])
  carry = {
    **carry,
    'quality': {'candidates': scores, 'teacher': jnp.array(0.9)},
  }
  phase = method[3](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  student = phase.finish(state, frozen, carry)['student']
  kinds = [type(stage.module) for stage in student.network.stages[1:3]]
  assert kinds == [Own, resnet.BasicBlock]
  for role, name in zip(('own', 'sparse'), BLOCKS):
    jax.tree.map(
      np.testing.assert_array_equal,
      student.variables['params'][name],
      carry[role].variables['params'][name],
    )


def test_candidates_that_are_cut_differently_share_the_boundaries_of_all(
  recipe,
):
  """A narrow VGG is cut at its groups; the whole one could be cut anywhere."""
  vgg = registry.create('cifar_vgg', num_classes=3, depth=13, width=1 / 16)
  narrow = narrowing.narrowed(vgg, multiplier=0.5)
  example = {'image': jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)}
  plan = Plan(recipe._replace(example=example)).shared((vgg, narrow), vgg)
  ends = ('image', *(f'group{g}.conv2' for g in range(1, 6)))
  assert plan.cut == tuple((end, end) for end in ends)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: candidates.block(kernel=4), 'kernel: expected an odd number'),
    (lambda: candidates.block(rank=2.0), r'rank: expected a number in \(0, 1'),
    (lambda: candidates.block(activation='elu'), "unknown activation 'elu'"),
    (lambda: candidates.sparsified(sparsity=1.0), 'sparsity: expected a num'),
    (lambda: candidates.fields(values={}), 'values: expected at least one'),
    (
      lambda: modules({'name': 'fields', 'values': {'groups': 2}}),
      'candidates.x: expected .* one of the modules BasicBlock, got one that',
    ),
    (
      lambda: modules({'name': 'fields', 'values': {'stride': 'two'}}),
      "BasicBlock: 'two' is not valid as 'stride'",
    ),
    (
      lambda: modules({'name': 'narrow', 'multiplier': 0.1}),
      "leaves 'BasicBlock' none of its 4 channels",
    ),
  ],
)
def test_a_candidate_that_cannot_be_is_refused(make, message):
  with pytest.raises(UsageError, match=message):
    make()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'candidates': {}}, 'candidates: expected at least one, got none'),
    ({'candidates': {'student': Candidate()}}, "no role, got 'student'"),
    (
      {'candidates': {'a': Candidate()}, 'sparsities': (0.5,)},
      'sparsities: expected no other list beside candidates',
    ),
  ],
)
def test_invalid_lists_of_candidates_are_refused(recipe, arguments, message):
  with pytest.raises(UsageError, match=message):
    student_search.student_search(recipe, **arguments)
