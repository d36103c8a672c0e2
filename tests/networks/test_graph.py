"""Initialising and running networks, whole and in pieces."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet, vgg

IMAGE = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
NETWORKS = {
  'resnet': resnet.cifar_resnet(
    8, num_classes=3, stem_width=2, widths=(2, 2, 4)
  ),
  'wrn': resnet.wide_resnet(10, 1, num_classes=3, base_width=2, dropout=0.5),
  'vgg': vgg.cifar_vgg(8, num_classes=3, width=1 / 32),
}
RNGS = {'dropout': jax.random.key(5)}


@pytest.fixture(scope='module')
def models():
  return {
    name: Model(network, graph.init(network, jax.random.key(0), batch_of()))
    for name, network in NETWORKS.items()
  }


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


@pytest.mark.parametrize(
  ('name', 'train'), [('resnet', False), ('vgg', False), ('wrn', True)]
)
def test_run_in_pieces_equals_run_whole_bit_for_bit(models, name, train):
  network, variables = models[name]
  options = {'train': train, 'rngs': RNGS}
  whole, updates = graph.run(network, variables, batch_of(), **options)
  names = graph.stage_names(network)
  for boundary in ('group1', 'group2', 'pool'):
    after = graph.stages_between(network, boundary, 'head')
    before = [n for n in names if n not in after]
    first, early = graph.run(
      network, variables, batch_of(), only=before, **options
    )
    assert 'head' not in first
    last, late = graph.run(
      network, variables, {boundary: first[boundary]}, only=after, **options
    )
    assert_same({**first, **last}, whole)
    assert_same(graph.merge(early, late), updates)


def test_only_stages_with_dropout_depend_on_its_key(models):
  network, variables = models['wrn']
  keys = [{'dropout': jax.random.key(n)} for n in (0, 1)]
  outputs = [
    graph.run(network, variables, batch_of(), train=True, rngs=rngs)[0]
    for rngs in keys
  ]
  assert_same(outputs[0]['stem'], outputs[1]['stem'])
  assert differs(outputs[0]['group1'], outputs[1]['group1'])


def test_variables_of_stages_that_do_not_run_may_be_missing(models):
  network, variables = models['resnet']
  whole, _ = graph.run(network, variables, batch_of())
  last, _ = graph.run(
    network,
    graph.select(variables, ['head']),
    {'pool': whole['pool']},
    only=['head'],
  )
  assert_same(last['head'], whole['head'])


def test_only_stages_that_train_change_their_batch_statistics(models):
  network, variables = models['resnet']
  before = graph.stages_between(network, 'image', 'group1')
  current = graph.stages_between(network, 'group1', 'group3')
  features, updates = graph.run(network, variables, batch_of(), only=before)
  assert updates == {}
  _, updates = graph.run(network, variables, features, only=current, train=True)
  assert set(updates) == {'batch_stats'}
  assert set(updates['batch_stats']) == set(current)
  new = graph.merge(variables, updates)
  for stage in before:
    assert_same(new['batch_stats'][stage], variables['batch_stats'][stage])
  for stage in current:
    assert differs(new['batch_stats'][stage], variables['batch_stats'][stage])
  assert_same(new['params'], variables['params'])


def test_run_does_not_change_its_arguments(models):
  network, variables = models['resnet']
  features = batch_of()
  copy = jax.tree.map(np.array, variables)
  graph.run(network, variables, features, train=True)
  assert list(features) == ['image']
  assert_same(variables, copy)


def test_stages_to_run_may_come_from_a_generator(models):
  network, variables = models['resnet']
  chosen = (name for name in ('stem', 'group1.block1'))
  features, _ = graph.run(network, variables, batch_of(), only=chosen)
  assert 'group1.block1' in features
  assert 'group2.block1' not in features


def test_running_an_unknown_stage_suggests_the_nearest(models):
  with pytest.raises(
    UsageError, match=r"'grup1\.block1'; did you mean 'group1"
  ):
    graph.run(*models['resnet'], batch_of(), only=['grup1.block1'])


def test_running_without_the_input_of_a_stage_names_both(models):
  with pytest.raises(UsageError, match=r"'group2\.block1' reads 'group1\.bl"):
    graph.run(*models['resnet'], batch_of(), only=['group2.block1'])


def test_the_feature_of_a_group_is_that_of_its_last_stage():
  network = vgg.cifar_vgg(13, num_classes=3, width=1 / 32)
  assert graph.groups(network)['group1'] == ('group1.conv1', 'group1.conv2')
  variables = graph.init(network, jax.random.key(0), batch_of())
  only = graph.stages_between(network, 'image', 'group1')
  features, _ = graph.run(network, variables, batch_of(), only=only)
  assert_same(features['group1'], features['group1.conv2'])
  assert_same(features['group1.pre'], features['group1.conv2.pre'])
  assert differs(features['group1'], features['group1.conv1'])
  # One may continue from either name.
  after = graph.stages_between(network, 'group1', 'group2')
  for start in ('group1', 'group1.conv2'):
    known = {start: features['group1']}
    outputs, _ = graph.run(network, variables, known, only=after)
    assert {'group1', 'group1.conv2'} <= set(outputs)
    assert outputs['group2'].shape == (4, 4, 4, 4)


@pytest.mark.parametrize('name', ['resnet', 'vgg'])
def test_pre_is_the_value_before_the_last_relu(models, name):
  features, _ = graph.run(*models[name], batch_of())
  taps = [k for k in features if k.endswith('.pre')]
  assert {'group1.pre', 'group2.pre', 'group3.pre'} <= set(taps)
  for tap in taps:
    assert (features[tap] < 0).any()
    output = features[tap.removesuffix('.pre')]
    assert_same(output, np.maximum(features[tap], 0))


@pytest.mark.parametrize(
  ('tap', 'stage', 'norm'),
  [
    ('stem', 'group1.block1', 'norm1'),
    ('group1', 'group2.block1', 'norm1'),
    ('group2', 'group3.block1', 'norm1'),
    ('group3', 'pool', 'norm'),
  ],
)
def test_pre_of_a_wrn_is_the_next_batch_norm_of_the_raw_sum(
  models, tap, stage, norm
):
  network, variables = models['wrn']
  rng = np.random.default_rng(1)
  random = jax.tree.map(
    lambda x: rng.uniform(0.5, 2, x.shape).astype(np.float32),
    graph.select(variables, [stage]),
  )
  features, _ = graph.run(network, graph.merge(variables, random), batch_of())
  moments = random['batch_stats'][stage][norm]
  affine = random['params'][stage][norm]
  raw = np.asarray(features[tap], np.float64)
  normed = (raw - moments['mean']) / np.sqrt(moments['var'] + 1e-5)
  expected = normed * affine['scale'] + affine['bias']
  assert (raw < 0).any()
  np.testing.assert_allclose(
    features[f'{tap}.pre'], expected, rtol=1e-4, atol=1e-4
  )


def test_stages_between_two_features_exclude_the_first_and_include_the_last():
  network = vgg.cifar_vgg(13)
  between = graph.stages_between(network, 'group1', 'group3')
  assert between == (
    'group2.conv1',
    'group2.conv2',
    'group3.conv1',
    'group3.conv2',
  )
  assert graph.stages_between(network, 'group1.conv1', 'group1') == (
    'group1.conv2',
  )
  everything = graph.stages_between(network, 'image', 'head')
  assert everything == graph.stage_names(network)


@pytest.mark.parametrize(
  ('start', 'stop', 'message'),
  [
    ('group2', 'group1', "'group1' is not computed after 'group2'"),
    ('group1', 'group1', "'group1' is not computed after 'group1'"),
    (
      'group1.pre',
      'head',
      r"'group1.pre'; did you mean.*stages run as a whole",
    ),
    ('image', 'groop2', r"'groop2'; did you mean 'group2'"),
  ],
)
def test_stages_between_refuses_features_that_are_not_between_stages(
  start, stop, message
):
  with pytest.raises(UsageError, match=message):
    graph.stages_between(NETWORKS['resnet'], start, stop)


@pytest.mark.parametrize('name', NETWORKS)
def test_shapes_are_those_of_a_real_pass_in_the_same_order(models, name):
  network, variables = models[name]
  features, _ = graph.run(network, variables, batch_of())
  shapes = graph.shapes(network, batch_of())
  assert list(shapes) == list(features)
  for key, value in features.items():
    assert (shapes[key].shape, shapes[key].dtype) == (value.shape, value.dtype)


def test_feature_pairs_give_the_shapes_of_both_sides():
  pairs = (('group1', 'group1'), ('group3.pre', 'group2'))
  example = {'image': jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)}
  assert graph.check_feature_pairs(
    NETWORKS['resnet'], NETWORKS['wrn'], pairs, example
  ) == (
    ((4, 8, 8, 2), (4, 8, 8, 2)),
    ((4, 2, 2, 4), (4, 4, 4, 4)),
  )


@pytest.mark.parametrize(
  ('pair', 'message'),
  [
    (('group4', 'group1'), r"student feature 'group4'; did you mean 'group"),
    (('group1', 'group1.block9'), "teacher feature 'group1.block9'"),
  ],
)
def test_an_unknown_feature_of_a_pair_is_named_with_its_side(pair, message):
  with pytest.raises(UsageError, match=message):
    graph.check_feature_pairs(
      NETWORKS['resnet'], NETWORKS['wrn'], (pair,), batch_of()
    )


def test_init_under_jit_equals_init_outside_up_to_rounding():
  unit = layers.ConvUnit(2)
  network = Network((Stage('a', unit), Stage('b', unit)))

  def initialize(rng):
    return graph.init(network, rng, batch_of())

  # Outside of jit, it is compiled without optimisation.
  inside = jax.jit(initialize)(jax.random.key(0))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    inside,
    initialize(jax.random.key(0)),
  )


def test_init_depends_only_on_the_key(student):
  shape = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)}
  again = graph.init(student.network, jax.random.key(0), shape)
  assert_same(again, student.variables)
  other = graph.init(student.network, jax.random.key(1), shape)
  assert differs(other['params'], student.variables['params'])


def test_each_stage_has_its_own_initial_values():
  unit = layers.ConvUnit(2)
  network = Network((Stage('a', unit), Stage('b', unit), Stage('c', unit)))
  params = graph.init(network, jax.random.key(0), batch_of())['params']
  assert differs(params['b'], params['c'])


def test_a_stage_may_read_any_earlier_features(student):
  class Sum(nn.Module):
    @nn.compact
    def __call__(self, x, y, train):
      return x + 2 * y

  stages = (*student.network.stages, Stage('sum', Sum(), ('stem', 'group1')))
  features, _ = graph.run(
    Network(stages), student.variables, {'image': batch_of()['image']}
  )
  assert_same(features['sum'], features['stem'] + 2 * features['group1'])


@pytest.mark.parametrize('shape', [(8, 8, 1), (16, 12, 3), (32, 32, 3)])
@pytest.mark.parametrize(
  'make', [resnet.cifar_resnet, resnet.wide_resnet, vgg.cifar_vgg]
)
def test_classes_sizes_and_channels_are_free(make, shape):
  depth = {vgg.cifar_vgg: 8, resnet.wide_resnet: 10}.get(make, 8)
  network = make(depth, num_classes=7)
  example = {'image': jax.ShapeDtypeStruct((2, *shape), jnp.float32)}
  shapes = graph.shapes(network, example)
  assert graph.output(network, shapes).shape == (2, 7)


def test_raw_images_are_refused():
  network = NETWORKS['resnet']
  with pytest.raises(
    UsageError, match=r'expected standardised floats.*got uint8'
  ):
    graph.apply(network, {}, np.zeros((1, 8, 8, 1), np.uint8))


def test_init_can_be_called_while_something_is_traced():
  network = NETWORKS['resnet']
  key = jax.random.key(0)

  def inside(image):
    return graph.init(network, key, {'image': image})

  image = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
  shapes = jax.eval_shape(inside, image)
  expected = graph.variable_shapes(network, {'image': image})
  assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(
    lambda x: x.shape, expected
  )


def test_equal_blocks_are_traced_once_and_have_the_shapes_of_init(monkeypatch):
  traced = []
  eval_shape = jax.eval_shape
  monkeypatch.setattr(
    jax, 'eval_shape', lambda *a: traced.append(1) or eval_shape(*a)
  )
  network = resnet.cifar_resnet(56, num_classes=7, widths=(2, 3, 5))
  image = {'image': jax.ShapeDtypeStruct((2, 12, 12, 1), jnp.float32)}
  shapes = graph.variable_shapes(network, image)
  assert len(network.stages) == 30
  # The stem, three first blocks, three later ones, the pool and the head.
  assert len(traced) <= 9
  expected = eval_shape(
    lambda rng: graph.init(network, rng, image), jax.random.key(0)
  )
  assert jax.tree.structure(shapes) == jax.tree.structure(expected)
  assert [(x.shape, x.dtype) for x in jax.tree.leaves(shapes)] == [
    (x.shape, x.dtype) for x in jax.tree.leaves(expected)
  ]
