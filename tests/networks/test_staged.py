"""Running networks in pieces, pairing, splicing and wrapping them."""

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.networks import layers, resnet, staged, vgg
from jaxdistill.types import Model, Network, Stage, UsageError

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
    name: Model(network, staged.init(network, jax.random.key(0), batch_of()))
    for name, network in NETWORKS.items()
  }


def batch_of(image=IMAGE):
  return {'image': jnp.asarray(image)}


def assert_same(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def differs(ours, theirs) -> bool:
  return any(
    not np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  )


@pytest.mark.parametrize(
  ('name', 'train'), [('resnet', False), ('vgg', False), ('wrn', True)]
)
def test_run_in_pieces_equals_run_whole_bit_for_bit(models, name, train):
  network, variables = models[name]
  options = {'train': train, 'rngs': RNGS}
  whole, updates = staged.run(network, variables, batch_of(), **options)
  names = staged.stage_names(network)
  for cut in ('group1', 'group2', 'pool'):
    after = staged.stages_between(network, cut, 'head')
    before = [n for n in names if n not in after]
    first, early = staged.run(
      network, variables, batch_of(), only=before, **options
    )
    assert 'head' not in first
    last, late = staged.run(
      network, variables, {cut: first[cut]}, only=after, **options
    )
    assert_same({**first, **last}, whole)
    assert_same(staged.merge(early, late), updates)


def test_dropout_of_a_stage_does_not_depend_on_which_others_run(models):
  network, variables = models['wrn']
  keys = [{'dropout': jax.random.key(n)} for n in (0, 1)]
  outputs = [
    staged.run(network, variables, batch_of(), train=True, rngs=rngs)[0]
    for rngs in keys
  ]
  assert_same(outputs[0]['stem'], outputs[1]['stem'])
  assert differs(outputs[0]['group1'], outputs[1]['group1'])


def test_variables_of_stages_that_do_not_run_may_be_missing(models):
  network, variables = models['resnet']
  whole, _ = staged.run(network, variables, batch_of())
  last, _ = staged.run(
    network,
    staged.select(variables, ['head']),
    {'pool': whole['pool']},
    only=['head'],
  )
  assert_same(last['head'], whole['head'])


def test_only_stages_that_train_change_their_batch_statistics(models):
  network, variables = models['resnet']
  before = staged.stages_between(network, 'image', 'group1')
  current = staged.stages_between(network, 'group1', 'group3')
  features, none = staged.run(network, variables, batch_of(), only=before)
  assert none == {}
  _, updates = staged.run(
    network, variables, features, only=current, train=True
  )
  assert set(updates) == {'batch_stats'}
  assert set(updates['batch_stats']) == set(current)
  new = staged.merge(variables, updates)
  for stage in before:
    assert_same(new['batch_stats'][stage], variables['batch_stats'][stage])
  for stage in current:
    assert differs(new['batch_stats'][stage], variables['batch_stats'][stage])
  assert_same(new['params'], variables['params'])


def test_run_writes_into_none_of_its_arguments(models):
  network, variables = models['resnet']
  features = batch_of()
  copy = jax.tree.map(np.array, variables)
  staged.run(network, variables, features, train=True)
  assert list(features) == ['image']
  assert_same(variables, copy)


def test_stages_to_run_may_come_from_a_generator(models):
  network, variables = models['resnet']
  chosen = (name for name in ('stem', 'group1.block1'))
  features, _ = staged.run(network, variables, batch_of(), only=chosen)
  assert 'group1.block1' in features
  assert 'group2.block1' not in features


def test_running_an_unknown_stage_names_the_nearest(models):
  with pytest.raises(UsageError, match=r"'grup1\.block1' \(nearest: 'group1"):
    staged.run(*models['resnet'], batch_of(), only=['grup1.block1'])


def test_running_without_the_input_of_a_stage_names_both(models):
  with pytest.raises(UsageError, match=r"'group2\.block1' reads 'group1\.bl"):
    staged.run(*models['resnet'], batch_of(), only=['group2.block1'])


def test_the_feature_of_a_group_is_that_of_its_last_stage():
  network = vgg.cifar_vgg(13, num_classes=3, width=1 / 32)
  assert staged.groups(network)['group1'] == ('group1.conv1', 'group1.conv2')
  variables = staged.init(network, jax.random.key(0), batch_of())
  only = staged.stages_between(network, 'image', 'group1')
  features, _ = staged.run(network, variables, batch_of(), only=only)
  assert_same(features['group1'], features['group1.conv2'])
  assert_same(features['group1.pre'], features['group1.conv2.pre'])
  assert differs(features['group1'], features['group1.conv1'])
  # Either name will do to go on from.
  after = staged.stages_between(network, 'group1', 'group2')
  for start in ('group1', 'group1.conv2'):
    given = {start: features['group1']}
    found, _ = staged.run(network, variables, given, only=after)
    assert {'group1', 'group1.conv2'} <= set(found)
    assert found['group2'].shape == (4, 4, 4, 4)


@pytest.mark.parametrize('name', ['resnet', 'vgg'])
def test_pre_is_the_value_before_the_last_relu(models, name):
  features, _ = staged.run(*models[name], batch_of())
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
    staged.select(variables, [stage]),
  )
  features, _ = staged.run(network, staged.merge(variables, random), batch_of())
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
  between = staged.stages_between(network, 'group1', 'group3')
  assert between == (
    'group2.conv1',
    'group2.conv2',
    'group3.conv1',
    'group3.conv2',
  )
  assert staged.stages_between(network, 'group1.conv1', 'group1') == (
    'group1.conv2',
  )
  everything = staged.stages_between(network, 'image', 'head')
  assert everything == staged.stage_names(network)


@pytest.mark.parametrize(
  ('start', 'stop', 'message'),
  [
    ('group2', 'group1', "'group1' is not computed after 'group2'"),
    ('group1', 'group1', "'group1' is not computed after 'group1'"),
    ('group1.pre', 'head', r"'group1.pre'.*nearest.*a stage runs whole"),
    ('image', 'groop2', r"'groop2' \(nearest: 'group2'"),
  ],
)
def test_stages_between_refuses_what_no_stage_begins_or_ends_with(
  start, stop, message
):
  with pytest.raises(UsageError, match=message):
    staged.stages_between(NETWORKS['resnet'], start, stop)


@pytest.mark.parametrize('name', NETWORKS)
def test_shapes_are_those_of_a_real_pass_in_its_order(models, name):
  network, variables = models[name]
  features, _ = staged.run(network, variables, batch_of())
  shapes = staged.shapes(network, batch_of())
  assert list(shapes) == list(features)
  for key, value in features.items():
    assert (shapes[key].shape, shapes[key].dtype) == (value.shape, value.dtype)


def test_check_cut_gives_the_shapes_of_both_sides():
  cut = (('group1', 'group1'), ('group3.pre', 'group2'))
  example = {'image': jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)}
  assert staged.check_cut(
    NETWORKS['resnet'], NETWORKS['wrn'], cut, example
  ) == (
    ((4, 8, 8, 2), (4, 8, 8, 2)),
    ((4, 2, 2, 4), (4, 4, 4, 4)),
  )


@pytest.mark.parametrize(
  ('pair', 'message'),
  [
    (('group4', 'group1'), r"student feature 'group4' \(nearest: 'group"),
    (('group1', 'group1.block9'), "teacher feature 'group1.block9'"),
  ],
)
def test_check_cut_names_the_side_of_an_unknown_feature(pair, message):
  with pytest.raises(UsageError, match=message):
    staged.check_cut(NETWORKS['resnet'], NETWORKS['wrn'], (pair,), batch_of())


def test_init_under_jit_equals_init_outside_but_for_rounding():
  unit = layers.ConvUnit(2)
  network = Network((Stage('a', unit), Stage('b', unit)))

  def initialize(rng):
    return staged.init(network, rng, batch_of())

  # Outside, it is compiled without optimisation.
  inside = jax.jit(initialize)(jax.random.key(0))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    inside,
    initialize(jax.random.key(0)),
  )


def test_init_is_a_function_of_the_key_alone(student):
  shape = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)}
  again = staged.init(student.network, jax.random.key(0), shape)
  assert_same(again, student.variables)
  other = staged.init(student.network, jax.random.key(1), shape)
  assert differs(other['params'], student.variables['params'])


def test_each_stage_has_its_own_initial_values():
  unit = layers.ConvUnit(2)
  network = Network((Stage('a', unit), Stage('b', unit), Stage('c', unit)))
  params = staged.init(network, jax.random.key(0), batch_of())['params']
  assert differs(params['b'], params['c'])


def test_a_stage_may_read_any_earlier_features(student):
  class Sum(nn.Module):
    @nn.compact
    def __call__(self, x, y, train):
      return x + 2 * y

  stages = (*student.network.stages, Stage('sum', Sum(), ('stem', 'group1')))
  features, _ = staged.run(
    Network(stages), student.variables, {'image': batch_of()['image']}
  )
  assert_same(features['sum'], features['stem'] + 2 * features['group1'])


def test_merging_what_was_selected_changes_nothing(student):
  variables = student.variables
  part = staged.select(variables, ['stem', 'head'])
  assert {c: set(tree) for c, tree in part.items()} == {
    'params': {'stem', 'head'},
    'batch_stats': {'stem'},
  }
  assert_same(staged.merge(variables, part), variables)


def test_merge_replaces_whole_stages_and_leaves_its_arguments_alone():
  variables = {'params': {'a': {'w': 1, 'b': 2}, 'c': {'w': 3}}}
  merged = staged.merge(
    variables, {'params': {'a': {'w': 4}}, 'batch_stats': {'a': {'mean': 5}}}
  )
  assert merged == {
    'params': {'a': {'w': 4}, 'c': {'w': 3}},
    'batch_stats': {'a': {'mean': 5}},
  }
  assert variables == {'params': {'a': {'w': 1, 'b': 2}, 'c': {'w': 3}}}


NOTHING = Model(Network(()), {})


def test_splice_deletes_a_stage_and_its_variables(student):
  name = 'group1.block1'
  shorter = staged.splice(student, name, name, NOTHING)
  assert staged.stage_names(shorter.network) == (
    'stem',
    'group2.block1',
    'pool',
    'head',
  )
  for tree in shorter.variables.values():
    assert name not in tree
  # The next stage reads the one before the gap.
  stem, _ = staged.run(*student, batch_of(), only=['stem'])
  rest, _ = staged.run(
    *student, {name: stem['stem']}, only=['group2.block1', 'pool', 'head']
  )
  assert_same(staged.apply(*shorter, batch_of()['image']), rest['head'])


def test_splice_puts_blocks_of_another_network_inside(student):
  other = staged.init(student.network, jax.random.key(7), batch_of())
  names = ('group1.block1', 'group2.block1')
  part = Model(
    Network(tuple(s for s in student.network.stages if s.name in names)),
    staged.select(other, names),
  )
  spliced = staged.splice(student, *names, part)
  assert spliced.network == student.network
  stem, _ = staged.run(*student, batch_of(), only=['stem'])
  middle, _ = staged.run(student.network, other, stem, only=names)
  end, _ = staged.run(*student, middle, only=['pool', 'head'])
  assert_same(staged.apply(*spliced, batch_of()['image']), end['head'])


def test_splice_inserts_by_replacing_a_stage_with_itself_and_more(student):
  unit = Network(
    (
      student.network.stages[0],
      Stage('extra', resnet.BasicBlock(2)),
    )
  )
  made = staged.init(unit, jax.random.key(3), batch_of())
  part = Model(
    unit, staged.merge(made, staged.select(student.variables, ['stem']))
  )
  longer = staged.splice(student, 'stem', 'stem', part)
  assert staged.stage_names(longer.network)[:3] == (
    'stem',
    'extra',
    'group1.block1',
  )
  assert_same(longer.variables['params']['extra'], made['params']['extra'])
  ours, _ = staged.run(*student, batch_of())
  theirs, _ = staged.run(*longer, batch_of())
  assert_same(ours['stem'], theirs['stem'])
  assert differs(ours['head'], theirs['head'])


def test_spliced_stages_whose_names_are_taken_get_numbers(student):
  unit = layers.ConvUnit(2)
  network = Network(
    (Stage('stem', unit), Stage('head', unit, ('stem',)), Stage('new', unit))
  )
  variables = staged.init(network, jax.random.key(3), batch_of())
  block = 'group1.block1'
  spliced = staged.splice(student, block, block, Model(network, variables))
  assert staged.stage_names(spliced.network) == (
    'stem',
    'stem_2',
    'head_2',
    'new',
    'group2.block1',
    'pool',
    'head',
  )
  # Inputs follow the new names, and so do the variables.
  assert spliced.network.stages[2].inputs == ('stem_2',)
  params = spliced.variables['params']
  assert_same(params['stem_2'], variables['params']['stem'])
  assert_same(params['head_2'], variables['params']['head'])
  assert_same(params['stem'], student.variables['params']['stem'])
  assert_same(params['head'], student.variables['params']['head'])


def test_splice_leaves_its_arguments_alone(student):
  names = staged.stage_names(student.network)
  copy = jax.tree.map(np.array, student.variables)
  staged.splice(student, 'stem', 'pool', NOTHING)
  assert staged.stage_names(student.network) == names
  assert_same(student.variables, copy)


@pytest.mark.parametrize(
  ('start', 'stop', 'message'),
  [
    ('steem', 'pool', r"stage 'steem' \(nearest: 'stem'\)"),
    ('stem', 'group1', r"unknown stage 'group1'"),
    ('pool', 'stem', "'stem' stands before 'pool'"),
  ],
)
def test_splice_refuses_a_range_that_is_none(student, start, stop, message):
  with pytest.raises(UsageError, match=message):
    staged.splice(student, start, stop, NOTHING)


@pytest.mark.parametrize('read', ['group1.block1', 'group1', 'group1.pre'])
def test_splice_refuses_to_take_what_a_later_stage_reads(student, read):
  stages = (*student.network.stages, Stage('late', layers.Pool(), (read,)))
  model = Model(Network(stages), student.variables)
  with pytest.raises(UsageError, match=r"'late' reads.*'group1"):
    staged.splice(model, 'group1.block1', 'group1.block1', NOTHING)


class OwnModel(nn.Module):
  """A user's Linen module with named outputs."""

  @nn.compact
  def __call__(self, image, training):
    x = nn.Conv(2, (3, 3))(image)
    x = nn.BatchNorm(use_running_average=not training)(x)
    x = nn.Dropout(0.5)(x, deterministic=not training)
    return {'logits': nn.Dense(3)(x.mean((1, 2))), 'map': x}


class OwnNnx(nnx.Module):
  """A user's NNX module."""

  def __init__(self, rngs):
    self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(2, rngs=rngs)
    self.head = nnx.Linear(2, 3, rngs=rngs)

  def __call__(self, image, train):
    x = self.norm(self.conv(image), use_running_average=not train)
    return {'logits': self.head(x.mean((1, 2))), 'map': x}


def of_functions() -> Network:
  def init(rng, image):
    size = image.shape[-1]
    return {
      'params': {'w': jax.random.normal(rng, (size, 3))},
      'batch_stats': {'mean': jnp.zeros((1, size))},
    }

  def apply(variables, image, train, rngs):
    del rngs
    old = variables['batch_stats']['mean']
    pooled = image.mean((1, 2))
    mean = pooled.mean(0, keepdims=True) if train else old
    outputs = {
      'logits': (pooled - mean) @ variables['params']['w'],
      'map': image,
    }
    return outputs, {'batch_stats': {'mean': mean}} if train else {}

  return staged.opaque(init, apply)


def of_nnx() -> Network:
  abstract = nnx.eval_shape(lambda: OwnNnx(nnx.Rngs(0)))
  definition, *parts = nnx.split(abstract, nnx.Param, nnx.BatchStat)

  def init(rng, image):
    del image
    made = OwnNnx(nnx.Rngs(rng))
    _, params, statistics = nnx.split(made, nnx.Param, nnx.BatchStat)
    return {
      'params': nnx.to_pure_dict(params),
      'batch_stats': nnx.to_pure_dict(statistics),
    }

  def apply(variables, image, train, rngs):
    del rngs
    states = [jax.tree.map(lambda x: x, part) for part in parts]
    for state, collection in zip(states, ('params', 'batch_stats')):
      nnx.replace_by_pure_dict(state, variables[collection])
    model = nnx.merge(definition, *states)
    outputs = model(image, train)
    if not train:
      return outputs, {}
    _, _, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return outputs, {'batch_stats': nnx.to_pure_dict(statistics)}

  return staged.opaque(init, apply)


OPAQUE = {
  'functions': of_functions,
  'linen': lambda: staged.from_linen(OwnModel(), train='training'),
  'nnx': of_nnx,
}


@pytest.fixture(scope='module')
def opaque_models():
  made = {name: make() for name, make in OPAQUE.items()}
  return {
    name: Model(network, staged.init(network, jax.random.key(0), batch_of()))
    for name, network in made.items()
  }


@pytest.mark.parametrize('name', OPAQUE)
def test_an_opaque_model_gives_logits_and_named_features(opaque_models, name):
  model = opaque_models[name]
  assert staged.apply(*model, batch_of()['image']).shape == (4, 3)
  features, updates = staged.run(*model, batch_of())
  assert list(features) == ['image', 'model', 'map']
  assert updates == {}
  cut = staged.check_cut(
    model.network, model.network, (('map', 'model'),), batch_of()
  )
  assert cut == ((features['map'].shape, (4, 3)),)


@pytest.mark.parametrize('name', OPAQUE)
def test_an_opaque_model_trains_its_statistics_and_gradients(
  opaque_models, name
):
  network, variables = opaque_models[name]

  def loss(params):
    features, updates = staged.run(
      network,
      {**variables, 'params': params},
      batch_of(),
      train=True,
      rngs=RNGS,
    )
    return (features['model'] ** 2).sum(), updates

  gradient, updates = jax.grad(loss, has_aux=True)(variables['params'])
  assert differs(gradient, jax.tree.map(jnp.zeros_like, gradient))
  assert set(updates) == {'batch_stats'}
  old = variables['batch_stats']
  assert jax.tree.structure(updates['batch_stats']) == jax.tree.structure(old)
  assert differs(updates['batch_stats'], old)


@pytest.mark.parametrize('name', OPAQUE)
def test_a_part_of_an_opaque_model_is_refused_by_name(opaque_models, name):
  network = opaque_models[name].network
  with pytest.raises(UsageError, match=r"'map'.*valid: model .*runs whole"):
    staged.stages_between(network, 'image', 'map')
  with pytest.raises(UsageError, match=r"unknown stage 'map'"):
    staged.run(*opaque_models[name], batch_of(), only=['map'])


def test_a_linen_model_equals_itself_inside_an_opaque_network(opaque_models):
  network, variables = opaque_models['linen']
  own = {collection: tree['model'] for collection, tree in variables.items()}
  expected = OwnModel().apply(own, IMAGE, training=False)['logits']
  assert_same(staged.apply(network, variables, IMAGE), expected)


@pytest.mark.parametrize('shape', [(8, 8, 1), (16, 12, 3), (32, 32, 3)])
@pytest.mark.parametrize(
  'make', [resnet.cifar_resnet, resnet.wide_resnet, vgg.cifar_vgg]
)
def test_classes_sizes_and_channels_are_free(make, shape):
  depth = {vgg.cifar_vgg: 8, resnet.wide_resnet: 10}.get(make, 8)
  network = make(depth, num_classes=7)
  example = {'image': jax.ShapeDtypeStruct((2, *shape), jnp.float32)}
  shapes = staged.shapes(network, example)
  assert shapes[staged.output(network)].shape == (2, 7)


def test_raw_images_are_refused():
  network = NETWORKS['resnet']
  with pytest.raises(UsageError, match='the image is uint8; wanted: standard'):
    staged.apply(network, {}, np.zeros((1, 8, 8, 1), np.uint8))


def test_init_may_stand_inside_of_something_traced():
  network = NETWORKS['resnet']
  key = jax.random.key(0)

  def inside(image):
    return staged.init(network, key, {'image': image})

  image = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
  found = jax.eval_shape(inside, image)
  expected = staged.variable_shapes(network, {'image': image})
  assert jax.tree.map(lambda x: x.shape, found) == jax.tree.map(
    lambda x: x.shape, expected
  )
