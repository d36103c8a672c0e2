"""All objectives, on one small pair of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses, objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.networks import NETWORKS, graph, layers
from jaxdistill.networks import adapters as network_adapters
from jaxdistill.networks.models import vgg, vit
from jaxdistill.objectives import adapters, pairs
from jaxdistill.phases import joint, recipes
from jaxdistill.study import registry
from jaxdistill.tasks import classification

NUM_CLASSES = 3
# These need a map as output or as target; see test_dense_terms.py.
DENSE = ('pixel_kd', 'depth_kd', 'cwd', 'fgd', 'ifv', 'pairwise')
# The published weights; those of reviewkd and dkd depend on the pair.
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
  'fd': 500,  # the weight of factor transfer, on which FD is based
  'reviewkd': 1.0,
  'srrl': 1.0,
  'logits': 1.0,
  'refinery': 1.0,
  'dist': 1.0,
  'embedding': 1.0,
}


def _quick(phase):
  """Compiles the step of a phase without optimisation, which is quicker."""
  options = {'xla_backend_optimization_level': 0}
  return jax.jit(lambda *a: phase.step(*a, None), compiler_options=options)


def tiny(*widths, num_classes=NUM_CLASSES):
  """Makes a network of a stem and two groups, the second at half the size."""
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
  dataset = arrays.from_arrays(
    image, label, image, label, validation=0, train_subset=20
  )
  return recipes.recipe(
    dataset,
    classification(),
    epochs=50,
    batch_size=8,
    subset='train_subset',
    optimizer=optimizers.sgd(
      optimizers.constant(rate=0.02), momentum=0.0, weight_decay=0.0, clip=1.0
    ),
  )


@pytest.fixture(scope='module')
def carry(recipe):
  image = {'image': recipe.example['image']}
  networks = {'student': tiny(2, 2, 4), 'teacher': tiny(2, 3, 6)}
  return {
    role: Model(network, graph.init(network, jax.random.key(i), image))
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
  return objectives.pair_of(
    carry['student'].network, carry['teacher'].network, recipe
  )


def test_every_objective_has_its_published_weight(pair):
  feature_pairs = (('stem', 'stem'), ('group1', 'stem'))
  weights = {
    name: factory(
      **({'feature_pairs': feature_pairs} if name == 'fsp' else {})
    )(pair).weight
    for name, factory in registry.OBJECTIVES.items()
    if name not in DENSE
  }
  assert weights == WEIGHTS


@pytest.mark.parametrize('name', sorted(WEIGHTS))
def test_small_steps_lower_a_term_and_do_not_change_the_teacher(
  name, carry, recipe, batch
):
  settings = {'feature_pairs': (('stem', 'stem'), ('group1', 'stem'))}
  factory = registry.OBJECTIVES[name](**(settings if name == 'fsp' else {}))
  method = joint.joint(recipe, terms={name: factory}, label_weight=0.0)
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(2), carry)
  # The weight has risen to its full value at this step.
  state = state._replace(step=jnp.int32(phase.num_steps // 2))
  before = jax.tree.map(np.asarray, frozen)
  step = _quick(phase)
  values = []
  for _ in range(4):
    state, metrics = step(state, frozen, {'train': batch}, jax.random.key(3))
    values.append(float(metrics[name]))
  assert np.all(np.isfinite(values))
  assert min(values[1:]) < values[0]
  jax.tree.map(np.testing.assert_array_equal, before, frozen)


def _features(carry, batch):
  features = {}
  for role, model in carry.items():
    outputs, _ = graph.run(*model, {'image': batch['image']})
    features |= {f'{role}/{k}': v for k, v in outputs.items()}
  return features


def test_attention_transfer_sums_over_the_groups_after_the_stem(
  carry, pair, batch
):
  features = _features(carry, batch)
  loss = objectives.at()(pair).loss(features, batch, carry)
  expected = sum(
    losses.attention_transfer_loss(
      features[f'student/{group}'], features[f'teacher/{group}']
    )
    for group in ('group1', 'group2')
  )
  np.testing.assert_allclose(loss, expected)


def test_relational_distillation_weights_distances_and_angles(
  carry, pair, batch
):
  features = _features(carry, batch)
  loss = objectives.rkd()(pair).loss(features, batch, carry)
  pooled = features['student/pool'], features['teacher/pool']
  expected = 25 * losses.relational_distance_loss(*pooled)
  expected += 50 * losses.relational_angle_loss(*pooled)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_activation_boundaries_count_half_in_each_earlier_layer(
  carry, pair, batch
):
  # Features of equal shapes need no regressor.
  same = pair._replace(student=pair.teacher, student_shapes=pair.teacher_shapes)
  term = objectives.ab()(same)
  assert term.adapters == ()
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


def test_softmax_regression_runs_the_teachers_head(carry, pair, batch):
  features = _features(carry, batch)
  term = objectives.srrl()(pair)
  # Pooled, this is the teacher's feature, so both errors are zero.
  features['srrl'] = features['teacher/group2']
  np.testing.assert_allclose(
    term.loss(features, batch, carry), np.zeros(8), atol=1e-10
  )


def test_only_the_rows_of_the_batch_change_in_the_memory(carry, recipe, batch):
  method = joint.joint(recipe, terms={'crd': objectives.crd(size=4)})
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(2), carry)
  bank = state.variables['adapters']['memory']['crd']['bank']
  assert bank['student'].shape == (20, 4)  # one row per training example
  after, _ = _quick(phase)(state, frozen, {'train': batch}, jax.random.key(3))
  moved = after.variables['adapters']['memory']['crd']['bank']
  for side in ('student', 'teacher'):
    changed = (np.asarray(bank[side]) != np.asarray(moved[side])).any(1)
    # The batch holds the first eight of the training examples.
    np.testing.assert_array_equal(changed, np.arange(20) < 8)
  assert np.isfinite(moved['student_log_mean'])


def test_adapters_can_read_the_batch_and_are_dropped_afterwards(carry, recipe):
  method = joint.joint(recipe, terms={'crd': objectives.crd(size=4)})
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(2), carry)
  assert set(phase.finish(state, frozen, carry)) == set(carry)


@pytest.mark.parametrize(
  ('factory', 'feature_pairs', 'match'),
  [
    (
      objectives.at,
      (('group9', 'group1'),),
      "unknown student feature 'group9'; did you mean 'group2'",
    ),
    (objectives.at, (('group1', 'x'),), "unknown teacher feature 'x'"),
    (objectives.at, ('group1',), r"teacher feature\), got 'group1'"),
    (objectives.fsp, None, "got 2 for 'group1' of the student and 3 for"),
  ],
)
def test_wrong_feature_pairs_are_named(factory, feature_pairs, match, pair):
  with pytest.raises(UsageError, match=match):
    factory(feature_pairs=feature_pairs)(pair)


def test_networks_of_one_stage_need_feature_pairs(recipe):
  network = network_adapters.from_functions(
    lambda rng, image: {'params': {}},
    lambda variables, image, train, rngs: (image.mean((1, 2)), {}),
  )
  pair = objectives.pair_of(network, network, recipe)
  with pytest.raises(UsageError, match='feature_pairs: expected pairs'):
    objectives.at()(pair)
  with pytest.raises(UsageError, match='the student has only one stage'):
    objectives.pkt()(pair)


@pytest.mark.parametrize('size', [1, 2, 3, 4, 8])
def test_the_output_of_a_hint_regressor_has_the_teachers_shape(size):
  module = adapters.HintRegressor((4, 4, 5))
  x = jnp.ones((2, size, size, 3))
  output = jax.eval_shape(
    lambda: module.init_with_output(jax.random.key(0), x, train=False)[0]
  )
  assert output.shape == (2, 4, 4, 5)


def test_a_variational_head_starts_with_the_given_variance():
  module = adapters.VariationalHead((1, 1, 3), variance=5.0)
  outputs, _ = module.init_with_output(
    jax.random.key(0), jnp.ones((1, 1, 1, 2)), train=False
  )
  variance = jax.nn.softplus(outputs['.raw_variance']) + 1e-5
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
def test_the_groups_that_are_compared_are_the_published_ones(name, groups):
  network = NETWORKS[name](num_classes=10)
  image = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
  names = pairs.middle_groups(network, graph.shapes(network, image))
  assert names == [f'group{g}' for g in groups]


@pytest.mark.parametrize(
  ('name', 'strides', 'groups'),
  [
    ('mobilenet_v2', (1, 2, 2, 2, 1, 2, 1), [1, 2, 3, 5, 7]),
    ('mobilenet_v2', (1, 2, 2, 2, 1, 1, 1), [1, 2, 3, 5, 7]),  # stride 16
    ('mobilenet_v2', (1, 2, 2, 1, 1, 1, 1), [1, 2, 3, 5, 7]),  # stride 8
    ('cifar_mobilenet_v2', (1, 1, 2, 2, 1, 1, 1), [2, 3, 5, 7]),
    ('cifar_mobilenet_v2', (1, 1, 2, 1, 1, 1, 1), [2, 3, 5, 7]),
  ],
)
def test_the_groups_are_the_same_if_strides_are_left_out(name, strides, groups):
  network = NETWORKS[name](num_classes=10, strides=strides)
  image = {'image': jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)}
  names = pairs.middle_groups(network, graph.shapes(network, image))
  assert names == [f'group{g}' for g in groups]


def test_a_review_of_tokens_has_the_levels_that_are_named():
  networks = (vit.vit(width, 2, 1, num_classes=3, patch=4) for width in (4, 6))
  image = np.zeros((8, 8, 8, 1), np.uint8)
  data = arrays.from_arrays(
    image, np.arange(8) % 3, image, np.arange(8) % 3, validation=0
  )
  recipe = recipes.recipe(data, epochs=1, batch_size=4)
  pair = objectives.pair_of(*networks, recipe)
  levels = ('group1.block1', 'group1.block2', 'pool')
  term = objectives.reviewkd(feature_pairs=tuple(zip(levels, levels)))(pair)
  shapes = graph.shapes(Network(term.adapters), objectives.adapter_inputs(pair))
  # Four patches are a map of 2x2 pixels; the fused maps have the student's
  # channels.
  assert shapes['review2'].shape == (4, 1, 1, 6)
  assert shapes['review1'].shape == (4, 2, 2, 6)
  assert shapes['review0.residual'].shape == (4, 2, 2, 4)
  features = {**objectives.adapter_inputs(pair), **shapes}
  loss = jax.eval_shape(lambda f: term.loss(f, {}, {}), features)
  assert loss.shape == (4,)


def test_the_gates_of_a_review_are_half_open_in_the_beginning():
  module = adapters.AttentionFusion((4, 4, 3), 64)
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
def test_nearest_neighbours_are_those_of_pytorch(size, to, rows):
  x = jnp.arange(size, dtype=jnp.float32).reshape(1, size, 1, 1)
  resized = adapters.nearest(jnp.tile(x, (1, 1, 2, 1)), to, 2)
  np.testing.assert_array_equal(resized[0, :, 0, 0], rows)


def test_a_review_goes_from_the_deepest_level_to_the_shallowest(pair):
  stages = objectives.reviewkd()(pair).adapters
  assert [s.name for s in stages] == ['review2', 'review1', 'review0']
  assert stages[0].inputs == ('student/pool',)
  assert stages[1].inputs == ('student/group2', 'review2.residual')
  shapes = graph.shapes(Network(stages), objectives.adapter_inputs(pair))
  assert shapes['review2'].shape == (8, 1, 1, 6)
  assert shapes['review1'].shape == (8, 4, 4, 6)
  assert shapes['review0'].shape == (8, 8, 8, 3)


def test_a_deeper_network_is_paired_from_the_deep_end(recipe):
  deep = Network(
    (
      Stage('stem', vgg.VGGUnit(2)),
      *(Stage(f'group{i}.conv1', vgg.VGGUnit(2)) for i in (1, 2, 3)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(NUM_CLASSES)),
    )
  )
  pair = objectives.pair_of(tiny(2, 2, 2), deep, recipe)
  assert objectives.middle_pairs(pair, None) == (
    ('group1', 'group2'),
    ('group2', 'group3'),
  )
  assert pairs.middle_pairs(pair, None, pre=True)[0] == (
    'group1.pre',
    'group2.pre',
  )
