"""L2T-ww: its matching by hand, its step, and what its weights learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import optimizers, recipes
from jaxdistill import terms as terms_lib
from jaxdistill.data import arrays
from jaxdistill.methods import l2t_ww
from jaxdistill.networks import layers, staged
from jaxdistill.tasks import classification
from jaxdistill.terms import matching
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))
CUT = (('group2', 'pool'),)
FAST = {'xla_backend_optimization_level': 0}


@pytest.fixture(scope='module')
def pair(student, teacher, recipe):
  return terms_lib.pair_of(student.network, teacher.network, recipe)


def drawn(made, pair):
  """Features, and variables of both networks, none of them zero."""
  generator = np.random.default_rng(0)

  def like(x):
    return jnp.asarray(generator.normal(size=x.shape), jnp.float32)

  shapes = terms_lib.inputs(pair)
  names = [k for k in shapes if k.startswith(('student/', 'teacher/'))]
  features = {k: like(shapes[k]) for k in names}
  variables, weights = (
    jax.tree.map(like, staged.init(n, jax.random.key(0), shapes))
    for n in (made.helpers, made.weights)
  )
  return features, variables, weights


def test_the_matching_by_hand(pair):
  """Of a map and a vector, which is the same everywhere."""
  made = matching.build(pair, CUT)
  features, variables, weights = drawn(made, pair)
  found = matching.loss(made, variables, weights, features)
  ours, theirs = (
    np.asarray(features[k]) for k in ('student/group2', 'teacher/pool')
  )
  conv = variables['params']['match0']['conv']
  ours = ours @ np.asarray(conv['kernel'])[0, 0] + np.asarray(conv['bias'])
  distance = ((ours - theirs[:, None, None]) ** 2).mean((1, 2))
  said = weights['params']['weights0']
  channels, whole = (
    theirs @ np.asarray(said[k]['kernel']) + np.asarray(said[k]['bias'])
    for k in ('channels', 'pair')
  )
  channels = np.exp(channels) / np.exp(channels).sum(-1, keepdims=True)
  expected = whole.clip(0, 6)[:, 0] * (channels * distance).sum(-1)
  np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)
  assert found > 0.1


def test_the_weights_begin_equal_and_near_one(pair):
  made = matching.build(pair, CUT)
  features, _, _ = drawn(made, pair)
  weights = staged.init(made.weights, jax.random.key(0), terms_lib.inputs(pair))
  said, _ = staged.run(made.weights, weights, features)
  np.testing.assert_allclose(said['weights0'], 1 / 6, rtol=1e-6)
  assert ((said['weights0.pair'] > 0) & (said['weights0.pair'] < 3)).all()


def test_the_teachers_map_is_resized_to_the_students(pair):
  """[0, 1] becomes [0, 1/4, 3/4, 1]; the student's is zero."""
  made = matching.build(pair, (('group1', 'group2'),))
  features, variables, weights = drawn(made, pair)
  features['teacher/group2'] = jnp.broadcast_to(
    jnp.array([0.0, 0, 1, 1])[None, None, :, None], (8, 4, 4, 6)
  )
  zeros = jax.tree.map(jnp.zeros_like, (variables, weights))
  zeros[1]['params']['weights0']['pair']['bias'] += 1
  found = matching.loss(made, *zeros, features)
  row = np.array([0, 0, 0, 0.25, 0.75, 1, 1, 1])
  np.testing.assert_allclose(found, (row**2).mean(), rtol=1e-6)


def test_every_group_is_matched_with_every_other(pair):
  assert matching.build(pair).cut == (
    ('group1', 'group1'),
    ('group2', 'group1'),
    ('group1', 'group2'),
    ('group2', 'group2'),
  )


@pytest.fixture(scope='module')
def stepped(recipe, student, teacher, batch):
  """The phase, and the state before and after a step."""
  carry = {'student': student, 'teacher': teacher}
  (make,) = l2t_ww.l2t_ww(recipe, weight=3.0, look_ahead=1, cut=CUT)
  phase = make(carry)
  before, frozen = phase.init(jax.random.key(0), carry)
  step = functools.partial(phase.step, static=None)
  after, metrics = jax.jit(step, compiler_options=FAST)(
    before, frozen, {'train': batch}, jax.random.key(1)
  )
  return phase, before, after, metrics


def test_the_look_ahead_leaves_no_trace(
  stepped, recipe, student, teacher, batch, pair
):
  """The student's step is that on labels and the matching as it is."""
  _, before, after, metrics = stepped
  made, image = matching.build(pair, CUT), {'image': batch['image']}
  theirs, _ = staged.run(*teacher, image)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params):
    merged = {
      k: staged.merge(v, {'params': params[k]})
      for k, v in before.variables.items()
    }
    ours, updates = staged.run(
      student.network, merged['student'], image, train=True
    )
    features = {f'student/{k}': v for k, v in ours.items()}
    features |= {f'teacher/{k}': v for k, v in theirs.items()}
    matched = matching.loss(made, merged['helpers'], before.weights, features)
    label = recipe.task.loss(ours['head'], batch).mean()
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


def test_adams_first_step_on_the_weights_is_its_rate(stepped):
  """Of each weight; 1e-4 of them are added to their gradient before."""
  _, before, after, _ = stepped
  kernel = [
    np.asarray(s.weights['params']['weights0']['channels']['kernel'])
    for s in (before, after)
  ]
  np.testing.assert_allclose(np.abs(kernel[1] - kernel[0]), 1e-4, rtol=1e-2)


def test_the_student_alone_is_handed_on(stepped, student, teacher):
  phase, _, after, _ = stepped
  carry = {'student': student, 'teacher': teacher}
  handed = phase.finish(after, teacher.variables, carry)
  assert set(handed) == {'student', 'teacher'}
  assert handed['student'].variables is after.variables['student']


def planted():
  """Classes in noise; of two features of the teacher one tells the class."""
  rng = np.random.default_rng(0)
  label = np.arange(240) % 3
  own = rng.uniform(80, 170, (3, 6, 6, 1))
  image = own[label] + rng.normal(0, 40, (240, 6, 6, 1))
  image = image.clip(0, 255).astype(np.uint8)
  data = arrays.from_arrays(image, label, image[:9], label[:9], validation=0)
  recipe = recipes.recipe(
    data,
    classification.classification(),
    epochs=10,
    batch_size=32,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )
  classes = (own.reshape(3, -1) - data.mean[0]) / data.std[0]
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
    'teacher': staged.opaque(lambda rng, image: {'params': params}, apply),
  }
  shape = {'image': recipe.example['image']}
  carry = {
    role: Model(network, staged.init(network, jax.random.key(0), shape))
    for role, network in networks.items()
  }
  return data, recipe, carry


def test_the_helpful_pair_counts_more_than_the_random_one():
  """Both begin at 1, give or take what the image says, and fall."""
  data, recipe, carry = planted()
  (make,) = l2t_ww.l2t_ww(
    recipe,
    weight=2.0,
    look_ahead=1,
    cut=(('head', 'helpful'), ('head', 'random')),
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
    ({'weight': -1.0}, 'weight: wanted a number of at least 0, got -1.0'),
    ({'weight': True}, 'weight: wanted'),
    ({'look_ahead': 0}, 'look_ahead: wanted whole numbers above 0, got 0'),
    ({'look_ahead': 1.5}, 'got 1.5'),
    ({'cut': (('group9', 'pool'),)}, "student feature 'group9'"),
    ({'cut': ('group1',)}, "'group1' is no pair"),
    ({'teacher': 'nobody'}, "role 'nobody'"),
  ],
)
def test_wrong_choices_are_refused(options, words, recipe, student, teacher):
  carry = {'student': student, 'teacher': teacher}
  with pytest.raises(UsageError) as caught:
    l2t_ww.l2t_ww(recipe, **options)[0](carry)
  assert words in str(caught.value)
