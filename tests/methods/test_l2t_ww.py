"""L2T-ww: its matching, its step, and what its weights learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.methods.l2t_ww import matching
from jaxdistill.methods.l2t_ww import method as l2t_ww
from jaxdistill.networks import adapters, graph, layers
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
CUT = (('group2', 'pool'),)
FAST = {'xla_backend_optimization_level': 0}


@pytest.fixture(scope='module')
def pair(student, teacher, recipe):
  return objectives.pair_of(student.network, teacher.network, recipe)


def drawn(built, pair):
  """Random features, and random variables of the networks of a matching."""
  generator = np.random.default_rng(0)

  def like(x):
    return jnp.asarray(generator.normal(size=x.shape), jnp.float32)

  shapes = objectives.adapter_inputs(pair)
  names = [k for k in shapes if k.startswith(('student/', 'teacher/'))]
  features = {k: like(shapes[k]) for k in names}
  variables, weights = (
    jax.tree.map(like, graph.init(n, jax.random.key(0), shapes))
    for n in (built.adapters, built.weights)
  )
  return features, variables, weights


def test_the_loss_of_the_matching_agrees_with_numpy(pair):
  """A map is matched with a vector, which counts for every pixel."""
  built = matching.build(pair, CUT)
  features, variables, weights = drawn(built, pair)
  loss = matching.loss(built, variables, weights, features)
  student_map, teacher_vector = (
    np.asarray(features[k]) for k in ('student/group2', 'teacher/pool')
  )
  conv = variables['params']['match0']['conv']
  student_map = student_map @ np.asarray(conv['kernel'])[0, 0] + np.asarray(
    conv['bias']
  )
  distance = ((student_map - teacher_vector[:, None, None]) ** 2).mean((1, 2))
  dense = weights['params']['weights0']
  channels, whole = (
    teacher_vector @ np.asarray(dense[k]['kernel'])
    + np.asarray(dense[k]['bias'])
    for k in ('channels', 'pair')
  )
  channels = np.exp(channels) / np.exp(channels).sum(-1, keepdims=True)
  expected = whole.clip(0, 6)[:, 0] * (channels * distance).sum(-1)
  np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
  assert loss > 0.1


def test_initial_weights_are_equal_for_channels_and_near_one_for_pairs(pair):
  built = matching.build(pair, CUT)
  features, _, _ = drawn(built, pair)
  weights = graph.init(
    built.weights, jax.random.key(0), objectives.adapter_inputs(pair)
  )
  outputs, _ = graph.run(built.weights, weights, features)
  np.testing.assert_allclose(outputs['weights0'], 1 / 6, rtol=1e-6)
  assert ((outputs['weights0.pair'] > 0) & (outputs['weights0.pair'] < 3)).all()


def test_the_teachers_map_is_resized_to_the_students(pair):
  """Between pixels 0 and 1 lie 1/4 and 3/4; the student's map is zero."""
  built = matching.build(pair, (('group1', 'group2'),))
  features, variables, weights = drawn(built, pair)
  features['teacher/group2'] = jnp.broadcast_to(
    jnp.array([0.0, 0, 1, 1])[None, None, :, None], (8, 4, 4, 6)
  )
  zeros = jax.tree.map(jnp.zeros_like, (variables, weights))
  zeros[1]['params']['weights0']['pair']['bias'] += 1
  loss = matching.loss(built, *zeros, features)
  row = np.array([0, 0, 0, 0.25, 0.75, 1, 1, 1])
  np.testing.assert_allclose(loss, (row**2).mean(), rtol=1e-6)


def test_by_default_every_group_is_matched_with_every_group(pair):
  assert matching.build(pair).feature_pairs == (
    ('group1', 'group1'),
    ('group2', 'group1'),
    ('group1', 'group2'),
    ('group2', 'group2'),
  )


@pytest.fixture(scope='module')
def stepped(recipe, student, teacher, batch):
  """Returns (phase, state before a step, state after it, metrics)."""
  carry = {'student': student, 'teacher': teacher}
  (make,) = l2t_ww.l2t_ww(recipe, weight=3.0, look_ahead=1, feature_pairs=CUT)
  phase = make(carry)
  before, frozen = phase.init(jax.random.key(0), carry)
  step = functools.partial(phase.step, static=None)
  after, metrics = jax.jit(step, compiler_options=FAST)(
    before, frozen, {'train': batch}, jax.random.key(1)
  )
  return phase, before, after, metrics


def test_the_trial_steps_do_not_change_the_students_step(
  stepped, recipe, student, teacher, batch, pair
):
  """The step is that on the labels and the matching with current weights."""
  _, before, after, metrics = stepped
  built, image = matching.build(pair, CUT), {'image': batch['image']}
  teacher_features, _ = graph.run(*teacher, image)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params):
    variables = {
      k: graph.merge(v, {'params': params[k]})
      for k, v in before.variables.items()
    }
    student_features, updates = graph.run(
      student.network, variables['student'], image, train=True
    )
    features = {f'student/{k}': v for k, v in student_features.items()}
    features |= {f'teacher/{k}': v for k, v in teacher_features.items()}
    matched = matching.loss(
      built, variables['adapters'], before.weights, features
    )
    label = recipe.task.loss(student_features['head'], batch).mean()
    return label + 3.0 * matched, updates

  params = {k: v['params'] for k, v in before.variables.items()}
  optimizer = recipe.optimizer(recipe.num_steps)
  (value, updates), gradient = jax.jit(loss, compiler_options=FAST)(params)
  change, _ = optimizer.update(gradient, optimizer.init(params), params)
  expected = optax.apply_updates(params, change)
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
  assert metrics['matching'] > 0.1
  for role, tree in expected.items():
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      after.variables[role]['params'],
      tree,
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    after.variables['student']['batch_stats'],
    updates['batch_stats'],
  )


def test_the_first_step_of_adam_on_the_weights_is_its_rate(stepped):
  _, before, after, _ = stepped
  kernel = [
    np.asarray(s.weights['params']['weights0']['channels']['kernel'])
    for s in (before, after)
  ]
  np.testing.assert_allclose(np.abs(kernel[1] - kernel[0]), 1e-4, rtol=1e-2)


def test_only_the_student_is_handed_on(stepped, student, teacher):
  phase, _, after, _ = stepped
  carry = {'student': student, 'teacher': teacher}
  result = phase.finish(after, teacher.variables, carry)
  assert set(result) == {'student', 'teacher'}
  assert result['student'].variables is after.variables['student']


def planted():
  """Noisy classes; one of two features of the teacher predicts the class."""
  rng = np.random.default_rng(0)
  label = np.arange(240) % 3
  prototypes = rng.uniform(80, 170, (3, 6, 6, 1))
  image = prototypes[label] + rng.normal(0, 40, (240, 6, 6, 1))
  image = image.clip(0, 255).astype(np.uint8)
  data = arrays.from_arrays(image, label, image[:9], label[:9], validation=0)
  recipe = recipes.recipe(
    data,
    classification(),
    epochs=10,
    batch_size=32,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )
  classes = (prototypes.reshape(3, -1) - data.mean[0]) / data.std[0]
  params = {
    'classes': jnp.asarray(classes, jnp.float32),
    'wild': jnp.asarray(50 * rng.normal(size=(36, 3)), jnp.float32),
  }

  def apply(variables, image, train, rngs):
    del train, rngs
    params, flat = variables['params'], image.reshape(len(image), -1)
    bias = (params['classes'] ** 2).sum(-1)[None] / 2
    logits = flat @ params['classes'].T - bias
    wild = 2 * jnp.sin(flat @ params['wild'])
    helpful = 2 * jax.nn.softmax(logits)
    return {'logits': logits, 'helpful': helpful, 'random': wild}, {}

  student = Network(
    (
      Stage('stem', layers.ConvUnit(4)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  networks = {
    'student': student,
    'teacher': adapters.from_functions(
      lambda rng, image: {'params': params}, apply
    ),
  }
  shape = {'image': recipe.example['image']}
  carry = {
    role: Model(network, graph.init(network, jax.random.key(0), shape))
    for role, network in networks.items()
  }
  return data, recipe, carry


def test_the_helpful_pair_counts_more_than_the_random_one():
  """Both weights begin near 1 and fall."""
  data, recipe, carry = planted()
  (make,) = l2t_ww.l2t_ww(
    recipe,
    weight=2.0,
    look_ahead=1,
    feature_pairs=(('head', 'helpful'), ('head', 'random')),
    weights_optimizer=optimizers.adamw(
      optimizers.constant(rate=0.02), weight_decay=0.0
    ),
  )
  ends = []

  def watched(carry):
    phase = make(carry)
    return phase._replace(
      finish=lambda s, frozen, c: ends.append(s.weights) or c
    )

  loop.fit((watched,), carry, data, options=SILENT)
  helpful, wild = (
    ends[0]['params'][f'weights{n}']['pair']['bias'][0] for n in range(2)
  )
  assert helpful > wild + 0.1


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'weight': -1.0}, 'weight: expected a number in [0, 1e+09], got -1.0'),
    ({'weight': True}, 'weight: expected'),
    (
      {'look_ahead': 0},
      'look_ahead: expected a whole number of at least 1, got 0',
    ),
    ({'look_ahead': 1.5}, 'got 1.5'),
    ({'feature_pairs': (('group9', 'pool'),)}, "student feature 'group9'"),
    ({'feature_pairs': ('group1',)}, "teacher feature), got 'group1'"),
    ({'teacher': 'nobody'}, "role 'nobody'"),
  ],
)
def test_invalid_arguments_are_refused(
  options, words, recipe, student, teacher
):
  carry = {'student': student, 'teacher': teacher}
  with pytest.raises(UsageError) as caught:
    l2t_ww.l2t_ww(recipe, **options)[0](carry)
  assert words in str(caught.value)
