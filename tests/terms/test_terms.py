"""Terms on one small pair of networks, all in one table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses, optimizers, recipes, tables, terms
from jaxdistill.data import arrays
from jaxdistill.methods import joint
from jaxdistill.networks import NETWORKS, layers, staged, vgg
from jaxdistill.tasks import classification
from jaxdistill.terms import helpers, pairs
from jaxdistill.types import Model, Network, Stage, UsageError

NUM_CLASSES = 3
# As published; reviewkd's and dkd's differ by pair.
WEIGHTS = {
  'kd': 0.9,
  'tempered': 1.0,
  'dkd': 1.0,
  'hint': 100.0,
  'at': 1000.0,
  'nst': 50.0,
  'fsp': 1.0,
  'sp': 3000.0,
  'cc': 0.02,
  'vid': 1.0,
  'rkd': 1.0,
  'pkt': 30000.0,
  'ab': 3e-3,
  'crd': 0.8,
  'ofd': 1e-3,
  'fd': 500,  # of factor transfer, from which it descends
  'reviewkd': 1.0,
  'srrl': 1.0,
  'logits': 1.0,
  'refinery': 1.0,
  'dist': 1.0,
}


def _quick(phase):
  """The step of a phase, compiled fast rather than to be fast."""
  options = {'xla_backend_optimization_level': 0}
  return jax.jit(lambda *a: phase.step(*a, None), compiler_options=options)


def tiny(*widths, num_classes=NUM_CLASSES):
  """A stem and two groups, the second at half the size."""
  units = [
    Stage('stem', vgg.VGGUnit(widths[0])),
    Stage('group1.conv1', vgg.VGGUnit(widths[1])),
    Stage('group2.conv1', vgg.VGGUnit(widths[2], pool=True)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(num_classes)),
  ]
  return Network(tuple(units))


@pytest.fixture(scope='module')
def recipe():
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (24, 8, 8, 1), np.uint8)
  label = np.arange(24) % NUM_CLASSES
  dataset = arrays.from_arrays(image, label, image, label, validation=0, few=20)
  return recipes.recipe(
    dataset,
    classification.classification(),
    epochs=50,
    batch_size=8,
    subset='few',
    optimizer=optimizers.sgd(
      optimizers.constant(rate=0.02), momentum=0.0, weight_decay=0.0, clip=1.0
    ),
  )


@pytest.fixture(scope='module')
def carry(recipe):
  image = {'image': recipe.example['image']}
  networks = {'student': tiny(2, 2, 4), 'teacher': tiny(2, 3, 6)}
  return {
    role: Model(network, staged.init(network, jax.random.key(i), image))
    for i, (role, network) in enumerate(networks.items())
  }


@pytest.fixture(scope='module')
def batch(recipe):
  generator = np.random.default_rng(1)
  image = generator.normal(size=(8, 8, 8, 1)).astype(np.float32)
  index = np.array(recipe.examples['index'][:8])
  return {'image': image, 'label': index % NUM_CLASSES, 'index': index}


@pytest.fixture(scope='module')
def pair(carry, recipe):
  return terms.pair_of(
    carry['student'].network, carry['teacher'].network, recipe
  )


def test_every_term_has_its_published_weight(pair):
  cut = (('stem', 'stem'), ('group1', 'stem'))
  found = {
    name: factory(**({'cut': cut} if name == 'fsp' else {}))(pair).weight
    for name, factory in tables.TERMS.items()
  }
  assert found == WEIGHTS


@pytest.mark.parametrize('name', sorted(WEIGHTS))
def test_small_steps_lower_a_term_and_leave_the_teacher_alone(
  name, carry, recipe, batch
):
  settings = {'cut': (('stem', 'stem'), ('group1', 'stem'))}
  factory = tables.TERMS[name](**(settings if name == 'fsp' else {}))
  method = joint.joint(recipe, terms={name: factory}, label_weight=0.0)
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(2), carry)
  # Behind the ramp of the weight.
  state = state._replace(step=jnp.int32(phase.num_steps // 2))
  before = jax.tree.map(np.asarray, frozen)
  step = _quick(phase)
  seen = []
  for _ in range(4):
    state, metrics = step(state, frozen, {'train': batch}, jax.random.key(3))
    seen.append(float(metrics[name]))
  assert np.all(np.isfinite(seen))
  assert min(seen[1:]) < seen[0]
  jax.tree.map(np.testing.assert_array_equal, before, frozen)


def _features(carry, batch):
  features = {}
  for role, model in carry.items():
    found, _ = staged.run(*model, {'image': batch['image']})
    features |= {f'{role}/{k}': v for k, v in found.items()}
  return features


def test_attention_sums_over_the_groups_behind_the_stem(carry, pair, batch):
  features = _features(carry, batch)
  found = terms.attention()(pair).loss(features, batch, carry)
  expected = sum(
    losses.attention_transfer_loss(
      features[f'student/{group}'], features[f'teacher/{group}']
    )
    for group in ('group1', 'group2')
  )
  np.testing.assert_allclose(found, expected)


def test_relational_weighs_distances_and_angles(carry, pair, batch):
  features = _features(carry, batch)
  found = terms.relational()(pair).loss(features, batch, carry)
  pooled = features['student/pool'], features['teacher/pool']
  expected = 25 * losses.relational_distance_loss(*pooled)
  expected += 50 * losses.relational_angle_loss(*pooled)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_boundaries_halve_from_layer_to_layer(carry, pair, batch):
  """Of equal networks, whose features need no regressor."""
  same = pair._replace(student=pair.teacher, student_shapes=pair.teacher_shapes)
  term = terms.boundaries()(same)
  assert term.helpers == ()
  features = _features(carry, batch)
  for i in (1, 2):
    teacher = features[f'teacher/group{i}.pre']
    features[f'student/group{i}.pre'] = 0.5 - teacher
  parts = [
    losses.activation_boundary_loss(
      features[f'student/group{i}.pre'], features[f'teacher/group{i}.pre']
    )
    for i in (1, 2)
  ]
  np.testing.assert_allclose(
    term.loss(features, batch, carry), 0.5 * parts[0] + parts[1], rtol=1e-6
  )


def test_softmax_regression_asks_the_teachers_own_head(carry, pair, batch):
  features = _features(carry, batch)
  term = terms.softmax_regression()(pair)
  features['srrl'] = features['teacher/group2']  # pools to the teacher's own
  np.testing.assert_allclose(
    term.loss(features, batch, carry), np.zeros(8), atol=1e-10
  )


def test_the_memory_moves_only_at_the_batchs_examples(carry, recipe, batch):
  method = joint.joint(recipe, terms={'crd': terms.contrastive(size=4)})
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(2), carry)
  bank = state.variables['helpers']['memory']['crd']['bank']
  assert bank['student'].shape == (20, 4)  # those trained on
  after, _ = _quick(phase)(state, frozen, {'train': batch}, jax.random.key(3))
  moved = after.variables['helpers']['memory']['crd']['bank']
  for side in ('student', 'teacher'):
    changed = (np.asarray(bank[side]) != np.asarray(moved[side])).any(1)
    # The batch holds the first eight of the examples trained on.
    np.testing.assert_array_equal(changed, np.arange(20) < 8)
  assert np.isfinite(moved['student_log_mean'])


def test_helpers_read_the_batch_and_are_dropped(carry, recipe):
  method = joint.joint(recipe, terms={'crd': terms.contrastive(size=4)})
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(2), carry)
  assert set(phase.finish(state, frozen, carry)) == set(carry)


@pytest.mark.parametrize(
  ('factory', 'cut', 'match'),
  [
    (
      terms.attention,
      (('group9', 'group1'),),
      "unknown student feature 'group9' .nearest: 'group2'",
    ),
    (terms.attention, (('group1', 'x'),), "unknown teacher feature 'x'"),
    (terms.attention, ('group1',), "'group1' is no pair"),
    (terms.flow, None, "'group1' of the student has 2"),
  ],
)
def test_a_wrong_cut_is_named(factory, cut, match, pair):
  with pytest.raises(UsageError, match=match):
    factory(cut=cut)(pair)


def test_an_opaque_network_must_name_its_features(recipe):
  network = staged.opaque(
    lambda rng, image: {'params': {}},
    lambda variables, image, train, rngs: (image.mean((1, 2)), {}),
  )
  pair = terms.pair_of(network, network, recipe)
  with pytest.raises(UsageError, match='give the pairs as cut'):
    terms.attention()(pair)
  with pytest.raises(UsageError, match='the student is one piece'):
    terms.probabilistic()(pair)


@pytest.mark.parametrize('size', [1, 2, 3, 4, 8])
def test_a_hint_regressor_gives_the_teachers_shape(size):
  module = helpers.HintRegressor((4, 4, 5))
  x = jnp.ones((2, size, size, 3))
  found = jax.eval_shape(
    lambda: module.init_with_output(jax.random.key(0), x, train=False)[0]
  )
  assert found.shape == (2, 4, 4, 5)


def test_a_variational_head_begins_with_its_variance():
  module = helpers.VariationalHead((1, 1, 3), variance=5.0)
  found, _ = module.init_with_output(
    jax.random.key(0), jnp.ones((1, 1, 1, 2)), train=False
  )
  variance = jax.nn.softplus(found['.raw_variance']) + 1e-5
  np.testing.assert_allclose(variance, [5, 5, 5], rtol=1e-5)


@pytest.mark.parametrize(
  ('name', 'groups'),
  [
    ('resnet20', [1, 2, 3]),
    ('wrn_16_2', [1, 2, 3]),
    ('vgg13', [2, 3, 4, 5]),
    ('cifar_mobilenet_v2', [2, 3, 5, 7]),
    ('cifar_shufflenet_v1', [1, 2, 3]),
    ('cifar_shufflenet_v2', [1, 2, 3]),
    ('densenet40_12', [1, 2, 3]),
  ],
)
def test_the_groups_compared_are_those_of_the_published_tables(name, groups):
  network = NETWORKS[name](num_classes=10)
  image = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
  found = pairs.middle(network, staged.shapes(network, image))
  assert found == [f'group{g}' for g in groups]


def test_a_review_begins_with_open_gates():
  module = helpers.AttentionFusion((4, 4, 3), 64)
  x = jax.ShapeDtypeStruct((2, 4, 4, 5), jnp.float32)
  deeper = jax.ShapeDtypeStruct((2, 2, 2, 64), jnp.float32)
  variables = module.lazy_init(jax.random.key(0), x, deeper, train=False)
  kernel = variables['params']['attention']['kernel']
  assert np.abs(kernel).max() <= 128**-0.5


@pytest.mark.parametrize(
  ('size', 'to', 'rows'),
  [
    (4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
    (8, 4, [0, 2, 4, 6]),
    (4, 7, [0, 0, 1, 1, 2, 2, 3]),
  ],
)
def test_nearest_takes_what_pytorch_takes(size, to, rows):
  x = jnp.arange(size, dtype=jnp.float32).reshape(1, size, 1, 1)
  found = helpers.nearest(jnp.tile(x, (1, 1, 2, 1)), to, 2)
  np.testing.assert_array_equal(found[0, :, 0, 0], rows)


def test_review_walks_from_the_deepest_level_to_the_shallowest(pair):
  stages = terms.review()(pair).helpers
  assert [s.name for s in stages] == ['review2', 'review1', 'review0']
  assert stages[0].inputs == ('student/pool',)
  assert stages[1].inputs == ('student/group2', 'review2.residual')
  helper_shapes = staged.shapes(Network(stages), terms.inputs(pair))
  assert helper_shapes['review2'].shape == (8, 1, 1, 6)
  assert helper_shapes['review1'].shape == (8, 4, 4, 6)
  assert helper_shapes['review0'].shape == (8, 8, 8, 3)


def test_deeper_networks_pair_from_the_deep_end(recipe):
  deep = Network(
    (
      Stage('stem', vgg.VGGUnit(2)),
      *(Stage(f'group{i}.conv1', vgg.VGGUnit(2)) for i in (1, 2, 3)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(NUM_CLASSES)),
    )
  )
  pair = terms.pair_of(tiny(2, 2, 2), deep, recipe)
  assert terms.middle_cut(pair, None) == (
    ('group1', 'group2'),
    ('group2', 'group3'),
  )
  assert pairs.middle_cut(pair, None, pre=True)[0] == (
    'group1.pre',
    'group2.pre',
  )
