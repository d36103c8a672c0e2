"""DistPro: what a search learns and leaves, how a process is replayed."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers, recipes
from jaxdistill import process as process_lib
from jaxdistill.data import arrays
from jaxdistill.methods import distpro, joint
from jaxdistill.networks import layers, staged
from jaxdistill.tasks import classification
from jaxdistill.terms import pathways
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))
SPACE = pathways.all_pairs(
  transforms=('T1',),
  student=('group1.pre', 'group2.pre'),
  teacher=('group2.pre',),
)
# 16 examples to train on, 8 to validate: two steps an epoch.
SEARCH = {'space': SPACE, 'validation': 1 / 3}
FAST = {'xla_backend_optimization_level': 0}


@pytest.fixture(scope='module')
def carry(student, teacher):
  return {'student': student, 'teacher': teacher}


@pytest.fixture(scope='module')
def batches(dataset, recipe):
  """Eight examples for each of the streams."""

  def batch(rows):
    raw = {k: v[rows] for k, v in dataset.splits['train'].items()}
    return recipe.stream.augment(jax.random.key(0), raw)

  return {'train': batch(slice(8)), 'validation': batch(slice(8, 16))}


def stepped(phase, carry, batches, steps=1, static=None):
  """The state after each step, and the metrics of the last."""
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(
    functools.partial(phase.step, static=static), compiler_options=FAST
  )
  states, metrics = [state], {}
  used = {name: batches[name] for name in phase.streams}
  for i in range(steps):
    state, metrics = step(state, frozen, used, jax.random.key(i))
    states.append(state)
  return states, metrics


@pytest.fixture(scope='module')
def searched(recipe, carry, batches):
  """Three steps, two of them in the first epoch."""
  (make,) = distpro.search(recipe, search_epochs=2, **SEARCH)
  phase = make(carry)
  return phase, *stepped(phase, carry, batches, steps=3)


def assert_close(ours, theirs, **options):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **options), ours, theirs
  )


def assert_equal(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def process_of(raw, weights):
  """Of the two pathways of `SPACE`, with the knots evenly spaced."""
  paths = (
    process_lib.Pathway('group1.pre', 'group2.pre', 'T1', 1, 1),
    process_lib.Pathway('group2.pre', 'group2.pre', 'T1', 2, 1),
  )
  steps = np.arange(len(raw)) * 10.0
  raw, weights = np.array(raw, np.float32), np.array(weights, np.float32)
  made = process_lib.Process(paths, steps, 10 * len(raw) - 9, raw, weights)
  return process_lib.to_json(made)


def test_a_step_of_the_search_is_a_step_of_training(
  searched, recipe, carry, batches
):
  """With the first weights, 1/3 each; validation changes no statistics."""
  _, states, _ = searched
  start = process_of([[1.0, 1.0]], [[1 / 3, 1 / 3]])
  (make,) = distpro.retrain(recipe, process=start, space=SPACE, weight=1 / 2)
  phase = make(carry)
  (_, plain), metrics = stepped(phase, carry, batches, static=(0, 1))
  assert_close(states[1].variables, plain.variables, rtol=1e-4, atol=1e-6)
  assert metrics['pathways'] > 0.1


def test_the_weights_begin_at_l_of_l_and_one(searched):
  _, states, _ = searched
  np.testing.assert_array_equal(states[0].raw, np.ones(2))
  first = states[1].knots
  np.testing.assert_allclose(first.weights[0].sum(), 2 / 3, rtol=1e-6)
  np.testing.assert_array_equal(first.raw[0], np.ones(2))


def test_knots_are_means_over_epochs(searched):
  _, states, _ = searched
  knots, raw = states[3].knots, [np.asarray(s.raw) for s in states]
  assert (raw[1] != raw[0]).all()
  np.testing.assert_array_equal(knots.taken, [2, 1])
  np.testing.assert_allclose(knots.steps, [0.5, 2.0])
  np.testing.assert_allclose(knots.raw[0], (raw[0] + raw[1]) / 2, rtol=1e-6)
  np.testing.assert_allclose(knots.raw[1], raw[2], rtol=1e-6)
  weights = [process_lib.biased_softmax(jnp.asarray(r)) for r in raw]
  mean = (weights[0] + weights[1]) / 2
  np.testing.assert_allclose(knots.weights[0], mean, rtol=1e-6)


@pytest.mark.parametrize(
  ('knots', 'count'), [(None, 2), (1, 1), (3, 2), (4, 4), (9, 4)]
)
def test_a_search_has_as_many_knots_as_asked_for(knots, count, recipe, carry):
  """Of its four steps; two of them are the least part that gives three."""
  (make,) = distpro.search(recipe, search_epochs=2, knots=knots, **SEARCH)
  init = make(carry).init
  state, _ = jax.eval_shape(lambda rng: init(rng, carry), jax.random.key(0))
  assert state.knots.raw.shape == (count, 2)


def test_adams_first_step_on_the_raw_weights_is_its_rate(searched):
  _, states, _ = searched
  moved = np.abs(np.asarray(states[1].raw - states[0].raw))
  np.testing.assert_allclose(moved, 0.05, rtol=1e-3)


def test_a_search_leaves_a_process_and_a_report(searched, carry):
  phase, states, _ = searched
  frozen = {'teacher': carry['teacher'].variables}
  after = phase.finish(states[3], frozen, carry)
  assert set(after) == {'student', 'teacher', 'process'}
  content = phase.report(states[3], after)['process.json']
  process = process_lib.from_json(json.loads(json.dumps(content)))
  assert process.num_steps == 3
  np.testing.assert_allclose(process.raw, states[3].knots.raw)
  assert process.about['student']['features']['group2.pre'] == [4, 4, 4]
  assert process.about['data']['examples'] == 16


def test_algorithm_1_takes_the_step_with_the_new_weights(
  searched, recipe, carry, batches
):
  (make,) = distpro.search(
    recipe, search_epochs=2, order='algorithm1', **SEARCH
  )
  (_, after), _ = stepped(make(carry), carry, batches)
  kept = searched[1][1]
  # The same look-ahead and weights, another step.
  np.testing.assert_allclose(after.raw, kept.raw, rtol=1e-5)
  weights = process_lib.biased_softmax(after.raw)
  np.testing.assert_allclose(after.knots.weights[0], weights, rtol=1e-6)
  start = process_of([after.raw], [weights])
  (make,) = distpro.retrain(recipe, process=start, space=SPACE, weight=1 / 2)
  (_, plain), _ = stepped(make(carry), carry, batches, static=(0, 1))
  params = after.variables['student']['params']
  assert_close(
    params, plain.variables['student']['params'], rtol=1e-4, atol=1e-6
  )
  moved = [
    np.abs(a - b).max()
    for a, b in zip(
      jax.tree.leaves(params),
      jax.tree.leaves(kept.variables['student']['params']),
    )
  ]
  assert max(moved) > 1e-5


def planted(seed):
  """Classes in noise, half of the labels by chance; of two features of the
  teacher one tells the class, one is a wild function of the image."""
  rng = np.random.default_rng(seed)
  true = np.arange(240) % 3
  own = rng.uniform(80, 170, (3, 6, 6, 1))
  image = own[true] + rng.normal(0, 40, (240, 6, 6, 1))
  image = image.clip(0, 255).astype(np.uint8)
  label = np.where(rng.uniform(size=240) < 0.5, rng.integers(0, 3, 240), true)
  data = arrays.from_arrays(image, label, image[:9], label[:9], validation=0)
  recipe = recipes.recipe(
    data,
    classification.classification(),
    epochs=20,
    batch_size=32,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1)),
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
    return {
      'logits': logits,
      'helpful': 2 * jax.nn.softmax(logits),
      'random': 10 * jnp.sin(flat @ params['wild']),
    }, {}

  teacher = staged.opaque(lambda rng, image: {'params': params}, apply)
  student = Network(
    (
      Stage('stem', layers.ConvUnit(8)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  shape = {'image': recipe.example['image']}
  carry = {
    role: Model(network, staged.init(network, jax.random.key(seed), shape))
    for role, network in (('student', student), ('teacher', teacher))
  }
  return data, recipe, carry


@pytest.mark.parametrize('seed', [1, 2])
def test_the_helpful_pathway_grows_and_the_random_one_falls(seed):
  data, recipe, carry = planted(seed)
  space = pathways.all_pairs(
    transforms=('T1',), student=('head',), teacher=('helpful', 'random')
  )
  method = distpro.search(recipe, space=space)
  after = loop.fit(method, carry, data, options=SILENT).carry
  helpful, random = after['process']['raw'].T
  # Both begin at 1.
  assert helpful[-1] > 1.5
  assert random[-1] < 0.5


REPLAYED = process_of(
  [[1.0, 1.2], [1.0, 0.2], [1.0, 1.2]], [[0.3, 0.5], [0.3, 0.1], [0.3, 0.5]]
)


@pytest.fixture(scope='module')
def replay(recipe, carry):
  """The phase of two epochs of three steps, and its jitted steps by `static`.

  Knots are at steps 0, 2.5 and 5; the second pathway is dropped from 1 to 4.
  """
  (make,) = distpro.retrain(
    recipe, process=REPLAYED, space=SPACE, label_weight=0.5, weight=3.0
  )
  phase = make(carry)

  @functools.cache
  def jitted(static):
    step = functools.partial(phase.step, static=static)
    return jax.jit(step, compiler_options=FAST)

  return phase, jitted


def test_a_process_is_replayed_step_by_step(replay, carry, batches):
  phase, jitted = replay
  state, frozen = phase.init(jax.random.key(0), carry)
  used, rng = {'train': batches['train']}, jax.random.key(0)
  found = []
  for i in range(6):
    at = state._replace(step=jnp.int32(i))
    found.append(jitted((0, 1))(at, frozen, used, rng)[1])
  distance, loss = (
    np.array([m[key] for m in found]) for key in ('pathways', 'loss')
  )
  # 0.3 of the first pathway throughout, 0.5 to 0.34 of the second at the ends.
  np.testing.assert_allclose(distance[2:4], distance[2], rtol=1e-5)
  np.testing.assert_allclose(distance[[0, 1]], distance[[5, 4]], rtol=1e-5)
  second = (distance[0] - distance[2]) / 0.5
  assert second > 0.1
  np.testing.assert_allclose(
    distance[1] - distance[2], 0.34 * second, rtol=1e-4
  )
  # The factor on the pathways is weight * L.
  label = loss - 3.0 * 2 * distance
  np.testing.assert_allclose(label, label[0], rtol=1e-4)


def test_what_is_dropped_in_a_segment_is_not_in_its_program(replay):
  """Eight segments at most, here one a step."""
  phase, _ = replay
  active = [phase.static(i) for i in range(6)]
  assert active == [(0, 1), (0, 1), (0,), (0,), (0, 1), (0, 1)]


def test_a_program_without_what_is_dropped_ends_the_same(
  replay, carry, batches
):
  phase, jitted = replay
  ends = []
  for choose in (phase.static, lambda i: (0, 1)):
    state, frozen = phase.init(jax.random.key(0), carry)
    for i in range(6):
      step = jitted(choose(i))
      used = {'train': batches['train']}
      state, _ = step(state, frozen, used, jax.random.key(i))
    ends.append(state.variables['student'])
  assert_close(*ends, rtol=1e-4, atol=1e-5)


def _flops(phase, carry, static=None):
  state, frozen = phase.init(jax.random.key(0), carry)
  image = jax.ShapeDtypeStruct((8, 8, 8, 1), np.float32)
  label = jax.ShapeDtypeStruct((8,), np.int32)
  batches = {k: {'image': image, 'label': label} for k in phase.streams}
  step = jax.jit(functools.partial(phase.step, static=static))
  lowered = step.lower(state, frozen, batches, jax.random.key(0))
  return lowered.cost_analysis()['flops']


def test_a_dropped_pathway_costs_nothing(replay, recipe, carry):
  phase, _ = replay
  none, one, both = (_flops(phase, carry, s) for s in ((), (0,), (0, 1)))
  (alone,) = joint.supervised(recipe)
  # Without any not even the teacher runs, and the optimiser is all that is
  # left of the transforms.
  assert none < 1.05 * _flops(alone(carry), carry)
  assert none < one < both


def test_a_search_costs_at_most_2_7_times_its_training(searched, replay, carry):
  """The paper's accounting comes to 3.7."""
  whole = _flops(replay[0], carry, (0, 1))
  assert 1.5 * whole < _flops(searched[0], carry) < 2.7 * whole


def test_equal_weights_need_no_process(recipe, carry, batches, replay):
  """1/L of each: with the factor L, the sum of the losses of all pathways."""
  (make,) = distpro.retrain(recipe, use='equal', space=SPACE, threshold=5.0)
  phase = make(carry)
  assert phase.static(0) == (0, 1)
  _, metrics = stepped(phase, carry, batches, static=(0, 1))
  state, frozen = replay[0].init(jax.random.key(0), carry)
  used = {'train': batches['train']}
  rng = jax.random.key(0)
  distance = [
    replay[1]((0, 1))(state._replace(step=jnp.int32(i)), frozen, used, rng)[1]
    for i in (0, 2)
  ]
  both, first = (float(m['pathways']) for m in distance)
  expected = ((both - first) / 0.5 + first / 0.3) / 2
  np.testing.assert_allclose(metrics['pathways'], expected, rtol=1e-4)


def test_the_last_weights_are_used_throughout(recipe, carry):
  (make,) = distpro.retrain(
    recipe, process=REPLAYED, use='last', space=SPACE, segments=3
  )
  falling = {**REPLAYED, 'raw': [*REPLAYED['raw'][:2], [1.0, 0.2]]}
  (dropped,) = distpro.retrain(
    recipe, process=falling, use='last', space=SPACE, segments=3
  )
  assert [make(carry).static(i) for i in range(6)] == [(0, 1)] * 6
  assert [dropped(carry).static(i) for i in range(6)] == [(0,)] * 6


def test_with_a_process_nothing_is_searched(recipe, carry):
  """Nor is anything held out, which of so few examples is refused."""
  (make,) = distpro.distpro(
    recipe, process=REPLAYED, space=SPACE, validation=0.01
  )
  assert make(carry).name == 'retrain'
  assert make(carry).num_steps == 6


def _after(count):
  asked = iter(range(10**6))
  return lambda: next(asked) >= count


def test_a_run_resumes_bit_for_bit(recipe, carry, dataset, tmp_path):
  """Stopped in the search, and in the training behind it."""
  method = distpro.distpro(
    recipe, search_epochs=2, segments=1, threshold=None, **SEARCH
  )
  whole = loop.fit(method, carry, dataset, options=SILENT)
  assert whole.steps == 4 + 6
  assert set(whole.reports) == {'process.json'}
  for count in (3, 5):  # asked at each step
    with pytest.raises(loop.Interrupted):
      stops = SILENT._replace(
        interrupted=_after(count), directory=str(tmp_path)
      )
      loop.fit(method, carry, dataset, options=stops)
  options = SILENT._replace(directory=str(tmp_path))
  again = loop.fit(method, carry, dataset, options=options)
  assert again.steps == whole.steps
  assert again.reports == whole.reports
  for key in ('student', 'process'):
    ours, theirs = again.carry[key], whole.carry[key]
    if key == 'student':
      ours, theirs = ours.variables, theirs.variables
    assert_equal(ours, theirs)
  assert_equal(again.carry['teacher'].variables, carry['teacher'].variables)


def test_a_process_in_the_carry_is_that_of_its_own_space(recipe, carry):
  """A training in another one refuses it by name, as it does a file."""
  searched = process_lib.to_arrays(process_lib.from_json(REPLAYED))
  other = pathways.all_pairs(
    transforms=('T4',), student=('group1.pre', 'group2'), teacher=('group2',)
  )
  (make,) = distpro.retrain(recipe, space=other)
  with pytest.raises(UsageError, match=r'pathway 0 .* by T1 and .* by T4'):
    make({**carry, 'process': searched})


def test_the_training_begins_with_the_student_as_it_was(recipe, carry):
  method = distpro.distpro(recipe, search_epochs=1, **SEARCH)
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  moved = jax.tree.map(lambda x: x + 1, state.variables)
  counted = state.knots._replace(taken=jnp.array([2]))
  ended = state._replace(variables=moved, knots=counted)
  after = phase.finish(ended, frozen, carry)
  assert after['student'] is carry['student']
  # Its best epoch is not that of the student.
  assert set(phase.views) == {'searched'}


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (
      lambda r: distpro.search(r, hypergradient='exakt'),
      "unknown hypergradient 'exakt' (nearest: 'exact')",
    ),
    (lambda r: distpro.search(r, order='keeps'), "unknown order 'keeps'"),
    (
      lambda r: distpro.search(r, normalization='sofmax'),
      "unknown normalization 'sofmax' (nearest: 'softmax')",
    ),
    (
      lambda r: distpro.search(r, validation=1.0),
      'validation: 1.0 is no share',
    ),
    (
      lambda r: distpro.search(r, validation=0.01),
      '0.01 of 24 examples is none',
    ),
    (lambda r: distpro.search(r, validation=0.9), 'batch_size is 8; the data'),
    (
      lambda r: distpro.search(r, search_epochs=0, **SEARCH),
      'search_epochs: 0 is no number',
    ),
    (
      lambda r: distpro.search(r, search_epochs=float('inf'), **SEARCH),
      'search_epochs: inf is no number',
    ),
    (
      lambda r: distpro.search(r, search_epochs=2, knots=0, **SEARCH),
      'knots: wanted whole numbers above 0, got 0',
    ),
    (lambda r: distpro.retrain(r, use='none'), "unknown use 'none'"),
    (lambda r: distpro.distpro(r, use='equal'), 'needs no search'),
    (lambda r: distpro.retrain(r, segments=0), 'segments: wanted whole'),
    (lambda r: distpro.retrain(r, segments=2.5), 'above 0, got 2.5'),
    (lambda r: distpro.retrain(r, segments=True), 'above 0, got True'),
    (lambda r: distpro.retrain(r, weight=-1.0), 'at least 0, got -1.0'),
    (lambda r: distpro.retrain(r, weight='1'), "at least 0, got '1'"),
    (
      lambda r: distpro.retrain(r, label_weight=float('nan')),
      'label_weight: wanted a number of at least 0, got nan',
    ),
    (
      lambda r: distpro.retrain(r, threshold=float('nan')),
      'threshold: wanted a number, got nan',
    ),
    (lambda r: distpro.retrain(r, process='none.json'), "'none.json'"),
    (lambda r: distpro.retrain(r, process={}), 'process: is no process'),
    (lambda r: distpro.retrain(r, space=SPACE), 'process: give a file'),
    (
      lambda r: distpro.retrain(r, process=REPLAYED),
      'has 2 pathways, and these networks have 12',
    ),
    (
      lambda r: distpro.retrain(r, process=REPLAYED, teacher='nobody'),
      "role 'nobody'",
    ),
  ],
)
def test_wrong_choices_are_refused(make, words, recipe, carry):
  with pytest.raises(UsageError) as caught:
    make(recipe)[0](carry)
  assert words in str(caught.value)
