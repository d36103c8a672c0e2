"""DistPro: what a search learns, and how a process is used in training."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.methods.distpro import method as distpro
from jaxdistill.methods.distpro import pathways
from jaxdistill.methods.distpro import process as process_lib
from jaxdistill.networks import adapters, graph, layers
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
SPACE = pathways.all_pairs(
  transforms=('T1',),
  student=('group1.pre', 'group2.pre'),
  teacher=('group2.pre',),
)
# 16 examples for training and 8 for validation make two steps an epoch.
SEARCH = {'space': SPACE, 'validation': 1 / 3}
FAST = {'xla_backend_optimization_level': 0}


@pytest.fixture(scope='module')
def carry(student, teacher):
  return {'student': student, 'teacher': teacher}


@pytest.fixture(scope='module')
def batches(dataset, recipe):
  """A batch of eight examples for each stream."""

  def batch(rows):
    raw = {k: v[rows] for k, v in dataset.splits['train'].items()}
    return recipe.stream.augment(jax.random.key(0), raw)

  return {'train': batch(slice(8)), 'validation': batch(slice(8, 16))}


def stepped(phase, carry, batches, steps=1, static=None):
  """Returns the state after each step, and the metrics of the last step."""
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
  """Three steps of a search, two of them in the first epoch."""
  (make,) = distpro.distpro_search(recipe, search_epochs=2, **SEARCH)
  phase = make(carry)
  return phase, *stepped(phase, carry, batches, steps=3)


def assert_close(tree, expected, **options):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **options), tree, expected
  )


def assert_equal(tree, expected):
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


def process_of(raw, weights):
  """A process of the two pathways of `SPACE`, with evenly spaced knots."""
  paths = (
    process_lib.Pathway('group1.pre', 'group2.pre', 'T1', 1, 1),
    process_lib.Pathway('group2.pre', 'group2.pre', 'T1', 2, 1),
  )
  steps = np.arange(len(raw)) * 10.0
  raw, weights = np.array(raw, np.float32), np.array(weights, np.float32)
  process = process_lib.Process(paths, steps, 10 * len(raw) - 9, raw, weights)
  return process_lib.to_json(process)


def test_a_step_of_a_search_equals_a_step_of_training(
  searched, recipe, carry, batches
):
  """The initial weights are 1/3 each. Validation changes no statistics."""
  _, states, _ = searched
  start = process_of([[1.0, 1.0]], [[1 / 3, 1 / 3]])
  (make,) = distpro.distpro_retrain(
    recipe, process=start, space=SPACE, weight=1 / 2
  )
  phase = make(carry)
  (_, plain), metrics = stepped(phase, carry, batches, static=(0, 1))
  assert_close(states[1].variables, plain.variables, rtol=1e-4, atol=1e-6)
  assert metrics['pathways'] > 0.1


def test_the_initial_weights_sum_to_l_over_l_plus_one(searched):
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
def test_a_search_has_the_requested_number_of_knots(
  knots, count, recipe, carry
):
  """It has four steps. Three knots would need parts of less than two steps."""
  (make,) = distpro.distpro_search(
    recipe, search_epochs=2, knots=knots, **SEARCH
  )
  init = make(carry).init
  state, _ = jax.eval_shape(lambda rng: init(rng, carry), jax.random.key(0))
  assert state.knots.raw.shape == (count, 2)


def test_the_first_step_of_adam_on_the_raw_weights_is_its_rate(searched):
  _, states, _ = searched
  change = np.abs(np.asarray(states[1].raw - states[0].raw))
  np.testing.assert_allclose(change, 0.05, rtol=1e-3)


def test_a_search_puts_a_process_into_the_carry_and_the_report(searched, carry):
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


def test_algorithm_1_repeats_the_step_with_the_new_weights(
  searched, recipe, carry, batches
):
  (make,) = distpro.distpro_search(
    recipe, search_epochs=2, order='algorithm1', **SEARCH
  )
  (_, after), _ = stepped(make(carry), carry, batches)
  kept = searched[1][1]
  # Look-ahead and weights are the same; the step differs.
  np.testing.assert_allclose(after.raw, kept.raw, rtol=1e-5)
  weights = process_lib.biased_softmax(after.raw)
  np.testing.assert_allclose(after.knots.weights[0], weights, rtol=1e-6)
  start = process_of([after.raw], [weights])
  (make,) = distpro.distpro_retrain(
    recipe, process=start, space=SPACE, weight=1 / 2
  )
  (_, plain), _ = stepped(make(carry), carry, batches, static=(0, 1))
  params = after.variables['student']['params']
  assert_close(
    params, plain.variables['student']['params'], rtol=1e-4, atol=1e-6
  )
  differences = [
    np.abs(a - b).max()
    for a, b in zip(
      jax.tree.leaves(params),
      jax.tree.leaves(kept.variables['student']['params']),
    )
  ]
  assert max(differences) > 1e-5


def planted(seed):
  """Noisy classes with half of the labels random. One feature of the teacher
  predicts the class, the other is a wild function of the image."""
  rng = np.random.default_rng(seed)
  true = np.arange(240) % 3
  prototypes = rng.uniform(80, 170, (3, 6, 6, 1))
  image = prototypes[true] + rng.normal(0, 40, (240, 6, 6, 1))
  image = image.clip(0, 255).astype(np.uint8)
  label = np.where(rng.uniform(size=240) < 0.5, rng.integers(0, 3, 240), true)
  data = arrays.from_arrays(image, label, image[:9], label[:9], validation=0)
  recipe = recipes.recipe(
    data,
    classification(),
    epochs=20,
    batch_size=32,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1)),
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
    return {
      'logits': logits,
      'helpful': 2 * jax.nn.softmax(logits),
      'random': 10 * jnp.sin(flat @ params['wild']),
    }, {}

  teacher = adapters.from_functions(
    lambda rng, image: {'params': params}, apply
  )
  student = Network(
    (
      Stage('stem', layers.ConvUnit(8)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  shape = {'image': recipe.example['image']}
  carry = {
    role: Model(network, graph.init(network, jax.random.key(seed), shape))
    for role, network in (('student', student), ('teacher', teacher))
  }
  return data, recipe, carry


@pytest.mark.parametrize('seed', [1, 2])
def test_the_helpful_pathway_grows_and_the_random_one_falls(seed):
  data, recipe, carry = planted(seed)
  space = pathways.all_pairs(
    transforms=('T1',), student=('head',), teacher=('helpful', 'random')
  )
  method = distpro.distpro_search(recipe, space=space)
  after = loop.fit(method, carry, data, options=SILENT).carry
  helpful, random = after['process']['raw'].T
  # Both weights begin at 1.
  assert helpful[-1] > 1.5
  assert random[-1] < 0.5


REPLAYED = process_of(
  [[1.0, 1.2], [1.0, 0.2], [1.0, 1.2]], [[0.3, 0.5], [0.3, 0.1], [0.3, 0.5]]
)


@pytest.fixture(scope='module')
def replay(recipe, carry):
  """A phase of two epochs of three steps, and its jitted steps by `static`.

  Knots are at steps 0, 2.5 and 5; the second pathway is dropped in between.
  """
  (make,) = distpro.distpro_retrain(
    recipe, process=REPLAYED, space=SPACE, label_weight=0.5, weight=3.0
  )
  phase = make(carry)

  @functools.cache
  def jitted(static):
    step = functools.partial(phase.step, static=static)
    return jax.jit(step, compiler_options=FAST)

  return phase, jitted


def test_training_follows_the_weights_of_the_process(replay, carry, batches):
  phase, jitted = replay
  state, frozen = phase.init(jax.random.key(0), carry)
  used, rng = {'train': batches['train']}, jax.random.key(0)
  history = []
  for i in range(6):
    at = state._replace(step=jnp.int32(i))
    history.append(jitted((0, 1))(at, frozen, used, rng)[1])
  distance, loss = (
    np.array([m[key] for m in history]) for key in ('pathways', 'loss')
  )
  # The first weight is always 0.3; the second is 0.5 or 0.34 near the ends.
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


def test_pathways_dropped_in_a_segment_are_not_in_its_program(replay):
  """There are at most eight segments; here each step is one."""
  phase, _ = replay
  active = [phase.static(i) for i in range(6)]
  assert active == [(0, 1), (0, 1), (0,), (0,), (0, 1), (0, 1)]


def test_programs_without_dropped_pathways_give_the_same_result(
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
  # Without pathways not even the teacher runs, and all that remains of the
  # transforms is their optimizer.
  assert none < 1.05 * _flops(alone(carry), carry)
  assert none < one < both


def test_a_search_costs_at_most_2_7_times_its_training(searched, replay, carry):
  """The paper's estimate is 3.7."""
  whole = _flops(replay[0], carry, (0, 1))
  assert 1.5 * whole < _flops(searched[0], carry) < 2.7 * whole


def test_equal_weights_need_no_process(recipe, carry, batches, replay):
  """With the weights 1/L and the factor L, the losses are summed."""
  (make,) = distpro.distpro_retrain(
    recipe, use='equal', space=SPACE, threshold=5.0
  )
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
  (make,) = distpro.distpro_retrain(
    recipe, process=REPLAYED, use='last', space=SPACE, segments=3
  )
  falling = {**REPLAYED, 'raw': [*REPLAYED['raw'][:2], [1.0, 0.2]]}
  (dropped,) = distpro.distpro_retrain(
    recipe, process=falling, use='last', space=SPACE, segments=3
  )
  assert [make(carry).static(i) for i in range(6)] == [(0, 1)] * 6
  assert [dropped(carry).static(i) for i in range(6)] == [(0,)] * 6


def test_distpro_with_a_process_does_not_search(recipe, carry):
  """It does not split the data either, which would fail here."""
  (make,) = distpro.distpro(
    recipe, process=REPLAYED, space=SPACE, validation=0.01
  )
  assert make(carry).name == 'retrain'
  assert make(carry).num_steps == 6


def test_only_the_replay_begins_later_where_both_uses_are_trained(
  recipe, carry
):
  shares = {'space': SPACE, 'process': REPLAYED, 'start': 0.9}
  _, last, replay = distpro.distpro(recipe, use=('last', 'process'), **shares)
  carry = {**carry, 'last': carry['student']}
  assert [make(carry).name for make in (last, replay)] == [
    'retrain_last',
    'retrain',
  ]


def _after(count):
  """Returns a function that returns True from its call number `count` on."""
  calls = iter(range(10**6))
  return lambda: next(calls) >= count


def test_a_resumed_run_ends_with_the_same_bits(
  recipe, carry, dataset, tmp_path
):
  """It is stopped in the search, and resumed in the training after it."""
  method = distpro.distpro(
    recipe, search_epochs=2, segments=1, threshold=None, **SEARCH
  )
  whole = loop.fit(method, carry, dataset, options=SILENT)
  assert whole.steps == 4 + 6
  assert set(whole.reports) == {'process.json'}
  for count in (3, 5):
    with pytest.raises(loop.Interrupted):
      stops = SILENT._replace(
        interrupted=_after(count), directory=str(tmp_path)
      )
      loop.fit(method, carry, dataset, options=stops)
  options = SILENT._replace(directory=str(tmp_path))
  resumed = loop.fit(method, carry, dataset, options=options)
  assert resumed.steps == whole.steps
  assert resumed.reports == whole.reports
  for key in ('student', 'process'):
    value, expected = resumed.carry[key], whole.carry[key]
    if key == 'student':
      value, expected = value.variables, expected.variables
    assert_equal(value, expected)
  assert_equal(resumed.carry['teacher'].variables, carry['teacher'].variables)


def test_a_process_of_another_space_is_refused(recipe, carry):
  searched = process_lib.to_arrays(process_lib.from_json(REPLAYED))
  other = pathways.all_pairs(
    transforms=('T4',), student=('group1.pre', 'group2'), teacher=('group2',)
  )
  (make,) = distpro.distpro_retrain(recipe, space=other)
  with pytest.raises(UsageError, match=r'pathway 0 .* by T4, .* by T1'):
    make({**carry, 'process': searched})


def test_the_student_of_the_search_is_not_handed_on(recipe, carry):
  method = distpro.distpro(recipe, search_epochs=1, **SEARCH)
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  trained = jax.tree.map(lambda x: x + 1, state.variables)
  knots = state.knots._replace(taken=jnp.array([2]))
  last_state = state._replace(variables=trained, knots=knots)
  after = phase.finish(last_state, frozen, carry)
  assert after['student'] is carry['student']
  # Its best epoch must not count as the best epoch of the student.
  assert set(phase.eval_models) == {'searched'}


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (
      lambda r: distpro.distpro_search(r, hypergradient='exakt'),
      "unknown hypergradient 'exakt'; did you mean 'exact'?",
    ),
    (
      lambda r: distpro.distpro_search(r, order='keeps'),
      "unknown order 'keeps'",
    ),
    (
      lambda r: distpro.distpro_search(r, normalization='sofmax'),
      "unknown normalization 'sofmax'; did you mean 'softmax'?",
    ),
    (
      lambda r: distpro.distpro_search(r, validation=1.0),
      'validation: expected a number in (0, 1), got 1.0',
    ),
    (
      lambda r: distpro.distpro_search(r, validation=0.01),
      'validation: expected a fraction of 24 examples',
    ),
    (
      lambda r: distpro.distpro_search(r, validation=0.9),
      'batch_size: expected a whole number from 1 to',
    ),
    (
      lambda r: distpro.distpro_search(r, search_epochs=0, **SEARCH),
      'search_epochs: expected a number above 0, got 0',
    ),
    (
      lambda r: distpro.distpro_search(r, search_epochs=float('inf'), **SEARCH),
      'search_epochs: expected a number above 0, got inf',
    ),
    (
      lambda r: distpro.distpro_search(r, search_epochs=2, knots=0, **SEARCH),
      'knots: expected a whole number of at least 1, got 0',
    ),
    (lambda r: distpro.distpro_retrain(r, use='none'), "unknown use 'none'"),
    (lambda r: distpro.distpro(r, use='equal'), 'needs no search'),
    (
      lambda r: distpro.distpro_retrain(r, start=1.0),
      'start: expected a number in [0, 1), got 1.0',
    ),
    (
      lambda r: distpro.distpro_retrain(r, use='equal', start=0.5),
      "start: expected 0 with use='equal', which replays no process, got 0.5",
    ),
    (
      lambda r: distpro.distpro(r, use=('last',), start=0.5),
      "start: expected 0 with use='last'",
    ),
    (
      lambda r: distpro.distpro_retrain(r, segments=0),
      'segments: expected a whole number',
    ),
    (
      lambda r: distpro.distpro_retrain(r, segments=2.5),
      'of at least 1, got 2.5',
    ),
    (
      lambda r: distpro.distpro_retrain(r, segments=True),
      'of at least 1, got True',
    ),
    (lambda r: distpro.distpro_retrain(r, weight=-1.0), '1e+09], got -1.0'),
    (lambda r: distpro.distpro_retrain(r, weight='1'), "1e+09], got '1'"),
    (
      lambda r: distpro.distpro_retrain(r, label_weight=float('nan')),
      'label_weight: expected a number in [0, 1e+09], got nan',
    ),
    (
      lambda r: distpro.distpro_retrain(r, threshold=float('nan')),
      'threshold: expected a number, got nan',
    ),
    (lambda r: distpro.distpro_retrain(r, process='none.json'), "'none.json'"),
    (
      lambda r: distpro.distpro_retrain(r, process={}),
      'process: expected the content of a process file',
    ),
    (
      lambda r: distpro.distpro_retrain(r, space=SPACE),
      'process: expected a file that a search wrote',
    ),
    (
      lambda r: distpro.distpro_retrain(r, process=REPLAYED),
      'expected 12 pathways, as the networks have',
    ),
    (
      lambda r: distpro.distpro_retrain(r, process=REPLAYED, teacher='nobody'),
      "role 'nobody'",
    ),
  ],
)
def test_invalid_arguments_are_refused(make, words, recipe, carry):
  with pytest.raises(UsageError) as caught:
    make(recipe)[0](carry)
  assert words in str(caught.value)
