"""Neighbourhood Distillation: each part by itself, and all parts at once."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.transforms import augment
from jaxdistill.methods.neighbourhood import (
  forward,
  layouts,
  moments,
  piece_phases,
  quality,
  stacking,
  student_search,
)
from jaxdistill.methods.neighbourhood import method as neighbourhood
from jaxdistill.methods.neighbourhood.plan import (
  FORMS,
  INPUTS,
  Plan,
  train_recipe,
)
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet
from jaxdistill.networks.surgery import layerwise
from jaxdistill.phases import joint
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
BLOCKS = ('group1.block1', 'group2.block1')
# A boundary inside the second block, which the shortcut of the block bypasses.
PAST_THE_SHORTCUT = (
  ('stem', 'stem'),
  ('group2.block1.conv1', 'group2.block1.conv1'),
  ('group2', 'group2'),
)
NOISE = [kind for kind in INPUTS if kind != 'data']
PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)


def network(*inner):
  """Two blocks of 3 and 4 channels, with these numbers of inner channels."""
  return Network(
    (
      Stage('stem', layers.ConvUnit(3)),
      Stage(BLOCKS[0], resnet.BasicBlock(3, inner[0])),
      Stage(BLOCKS[1], resnet.BasicBlock(4, inner[1], stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )


def whole(recipe):
  """A student that is as wide as the teacher."""
  image = {'image': recipe.example['image']}
  wide = network(0, 0)
  return Model(wide, graph.init(wide, jax.random.key(3), image))


@pytest.fixture(scope='module')
def carry(recipe):
  image = {'image': recipe.example['image']}

  def model(network, seed):
    return Model(network, graph.init(network, jax.random.key(seed), image))

  teacher = model(network(0, 0), 1)
  # The running statistics differ from those of any batch.
  statistics = jax.tree.map(lambda x: x + 0.3, teacher.variables['batch_stats'])
  variables = graph.merge(teacher.variables, {'batch_stats': statistics})
  return {
    'student': model(network(2, 1), 0),
    'teacher': Model(teacher.network, variables),
  }


def _plan(recipe, **arguments):
  recipe = recipe._replace(optimizer=PLAIN)
  return Plan(recipe, **arguments)


def _step(phase, carry, batches, count=1):
  """Returns (state before, state after, metrics of the last step)."""
  before, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  after = before
  for i in range(count):
    rng = jax.random.fold_in(jax.random.key(1), i)
    after, metrics = step(after, frozen, batches, rng)
  return before, after, metrics


def _assert_close(tree, expected, rtol=1e-4, atol=1e-6):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    tree,
    expected,
  )


@pytest.fixture(scope='module')
def one_step(recipe, carry, batch):
  """A step of plain SGD at rate 1 that looks two parts ahead."""
  plan = _plan(recipe, look_ahead=(0.5, 0.25))
  phase = piece_phases.train_phase(plan, carry, ('student',))
  return _step(phase, carry, {'train': batch})


def _by_hand(carry, batch):
  """The losses of both parts as functions of their parameters."""
  student, teacher = carry['student'], carry['teacher']
  teacher_features, _ = graph.run(*teacher, {'image': batch['image']})

  def output(params, name, source):
    variables = graph.merge(student.variables, {'params': {name: params}})
    features, _ = graph.run(
      student.network,
      variables,
      {source: teacher_features[source]},
      only=[name],
      train=True,
    )
    return features[name]

  def first(params):
    value = output(params, BLOCKS[0], 'stem')
    ahead, _ = graph.run(*teacher, {BLOCKS[0]: value}, only=[BLOCKS[1]])
    near = jnp.mean((value - teacher_features[BLOCKS[0]]) ** 2)
    far = jnp.mean((ahead[BLOCKS[1]] - teacher_features[BLOCKS[1]]) ** 2)
    # There is no third part for the weight of 0.25.
    return near + 0.5 * far

  def second(params):
    value = output(params, BLOCKS[1], BLOCKS[0])
    return jnp.mean((value - teacher_features[BLOCKS[1]]) ** 2)

  return first, second


def test_each_neighbourhood_has_its_own_loss_and_gradient(
  one_step, carry, batch
):
  before, after, metrics = one_step
  total = 0.0
  for name, loss in zip(BLOCKS, _by_hand(carry, batch)):
    params = carry['student'].variables['params'][name]
    value, gradient = jax.value_and_grad(loss)(params)
    total += value
    change = jax.tree.map(
      lambda a, b: a - b,
      after.variables['student']['params'][name],
      before.variables['student']['params'][name],
    )
    _assert_close(change, jax.tree.map(lambda g: -g, gradient))
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-5)


def test_only_the_neighbourhoods_change(one_step):
  before, after, _ = one_step
  for collection in ('params', 'batch_stats'):
    trees = [s.variables['student'][collection] for s in (before, after)]
    changed = {
      name
      for name in trees[0]
      if any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(*(jax.tree.leaves(t[name]) for t in trees))
      )
    }
    assert changed == {*BLOCKS}


def test_training_all_parts_at_once_equals_training_each_alone(
  recipe, carry, batch
):
  """This holds with momentum and weight decay; the others stay as they are."""
  options = {'momentum': 0.9, 'weight_decay': 1e-2}
  recipe = recipe._replace(
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1), **options)
  )
  plan = Plan(recipe)
  phase = piece_phases.train_phase(plan, carry, ('student',))
  start, together, _ = _step(phase, carry, {'train': batch}, count=3)
  for name in BLOCKS:
    phase = piece_phases.train_phase(plan, carry, ('student',), name)
    before, after, _ = _step(phase, carry, {'train': batch}, count=3)
    assert set(before.optimizer[2][0].trace['student']) == {name}
    for collection, expected in together.variables['student'].items():
      trained = after.variables['student'][collection]
      _assert_close(trained.get(name), expected.get(name))
      for other in set(trained) - {name}:
        initial = start.variables['student'][collection][other]
        _assert_close(trained[other], initial, rtol=0, atol=0)


@pytest.mark.parametrize('inputs', NOISE)
def test_parts_learn_from_noise_in_training_mode(recipe, carry, inputs):
  plan = _plan(recipe, inputs=inputs, look_ahead=(1.0,))
  phase = piece_phases.train_phase(plan, carry, ('student',))
  assert phase.streams == {}
  before, after, metrics = _step(phase, carry, {})
  assert float(metrics['loss']) > 0
  for name in BLOCKS:
    for collection in ('params', 'batch_stats'):
      old, new = (
        state.variables['student'][collection][name]
        for state in (before, after)
      )
      assert any(
        np.abs(x - y).max() > 1e-6
        for x, y in zip(jax.tree.leaves(old), jax.tree.leaves(new))
      )


def test_the_statistics_of_noise_give_the_map_that_learned_from_it(
  recipe, carry
):
  """Evaluation computes what training mode computes on the same noise."""
  plan = _plan(recipe, inputs='gaussian')
  layout = piece_phases.layout_of(plan, carry, 'student')
  rng = jax.random.key(5)
  boundaries = forward.boundary_features(
    plan, layout, carry['teacher'], {}, rng
  )
  phase = piece_phases.statistics_phase(plan, carry, 'student', 1)
  state, frozen = phase.init(jax.random.key(0), carry)
  state, _ = jax.jit(functools.partial(phase.step, static=None))(
    state, frozen, {}, rng
  )
  ready = phase.finish(state, frozen, carry)
  for piece in layout.trained:
    trained, _ = forward.outputs_of(
      *(plan, layout, piece, {'student': carry['student']}, boundaries, rng),
      train=True,
    )
    evaluated, _ = forward.outputs_of(
      *(plan, layout, piece, {'student': ready['student']}, boundaries, rng),
      train=False,
    )
    _assert_close(trained, evaluated, atol=1e-4)


def test_noise_of_moments_has_the_means_and_deviations_of_the_norms(recipe):
  """With means far above 0 the ReLUs change nothing."""
  teacher = whole(recipe)
  params = dict(teacher.variables['params'])
  for stage, norm, mean, deviation in (
    ('stem', 'norm', 20.0, 0.5),
    (BLOCKS[0], 'norm2', 7.0, 2.0),
  ):
    shape = params[stage][norm]['scale'].shape
    moments_of_norm = {
      'scale': jnp.full(shape, deviation),
      'bias': jnp.full(shape, mean),
    }
    params[stage] = {**params[stage], norm: moments_of_norm}
  variables = {**teacher.variables, 'params': params}
  image = jnp.zeros((256, *recipe.example['image'].shape[1:]))
  features = moments.noise_features(
    Model(teacher.network, variables), image, 'group1', jax.random.key(0)
  )
  assert 'group2' not in features
  np.testing.assert_array_equal(features['group1'], features[BLOCKS[0]])
  np.testing.assert_allclose(features['stem'].mean((0, 1, 2)), 20.0, atol=0.05)
  np.testing.assert_allclose(features['stem'].std((0, 1, 2)), 0.5, atol=0.05)
  np.testing.assert_allclose(features['group1'].mean(), 27.0, atol=0.1)
  np.testing.assert_allclose(features['group1'].std(), 4.25**0.5, atol=0.1)


def test_moments_need_stages_that_end_with_a_norm_and_a_relu(recipe):
  image = jnp.zeros(recipe.example['image'].shape)
  pooled = Network(
    (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))
  )
  variables = graph.init(pooled, jax.random.key(0), {'image': image})
  with pytest.raises(UsageError, match=r"inputs='moments'.*stage 'pool'"):
    moments.noise_features(
      Model(pooled, variables), image, 'pool', jax.random.key(0)
    )


def test_noise_differs_between_steps_and_kinds(recipe, carry):
  def loss(seed, inputs='gaussian', look_ahead=()):
    plan = _plan(recipe, inputs=inputs, look_ahead=look_ahead)
    phase = piece_phases.train_phase(plan, carry, ('student',))
    state, frozen = phase.init(jax.random.key(0), carry)
    step = jax.jit(functools.partial(phase.step, static=None))
    return float(step(state, frozen, {}, jax.random.key(seed))[1]['loss'])

  first = loss(0)
  assert loss(0) == first
  assert abs(loss(1) - first) > 1e-3 * first
  assert abs(loss(0, 'rectified') - first) > 1e-3 * first
  assert loss(0, look_ahead=(1.0,)) > 1.001 * first


def test_the_default_optimizer_is_the_papers(recipe):
  """It is SGD with momentum 0.9, rate 1e-3 and weight decay 1e-4."""
  piece_recipe = train_recipe(recipe, None, None)
  assert piece_recipe.epochs == recipe.epochs
  optimizer = piece_recipe.optimizer(10)
  params = {'kernel': jnp.full((2, 2), 3.0)}
  gradient = jax.tree.map(jnp.ones_like, params)
  state, trace = optimizer.init(params), 0.0
  for _ in range(2):
    update, state = optimizer.update(gradient, state, params)
    trace = 0.9 * trace + 1 + 1e-4 * 3
    np.testing.assert_allclose(update['kernel'], -1e-3 * trace, rtol=1e-6)


def test_statistics_on_noise_are_those_of_the_students_convolutions(
  recipe, carry
):
  plan = _plan(recipe, inputs='gaussian')
  phase = piece_phases.statistics_phase(plan, carry, 'student', 2)
  assert phase.streams == {}
  _, after, _ = _step(phase, carry, {}, count=2)
  statistics = after.variables['batch_stats'][BLOCKS[0]]
  kernel = carry['student'].variables['params'][BLOCKS[0]]['conv1']['kernel']
  expected = (np.asarray(kernel) ** 2).sum((0, 1, 2))
  np.testing.assert_allclose(statistics['norm1']['var'], expected, rtol=0.5)


@pytest.mark.parametrize('devices', [1, 2])
def test_stacked_candidates_learn_like_unrolled_ones(
  recipe, carry, batch, devices, monkeypatch
):
  """Inner widths 1, 2, 3 are padded to 3, and 3 candidates to 4."""
  if devices > 1:
    monkeypatch.setattr(stacking, 'devices', lambda: devices)
    monkeypatch.setattr(stacking, 'spread', lambda tree: tree)
  image = {'image': recipe.example['image']}
  roles = {}
  for i, inner in enumerate(((1, 1), (2, 3), (3, 4))):
    candidate = network(*inner)
    variables = graph.init(candidate, jax.random.key(i), image)
    roles[f'k {i}'] = Model(candidate, variables)
  results = {}
  for form in FORMS:
    recipe = recipe._replace(
      optimizer=optimizers.sgd(optimizers.constant(rate=0.1))
    )
    plan = Plan(recipe, form=form, look_ahead=(1.0,))
    all_models = {**carry, **roles}
    phase = piece_phases.train_phase(plan, all_models, tuple(roles))
    _, after, metrics = _step(phase, all_models, {'train': batch}, count=2)
    results[form] = (after.variables, metrics)
  _assert_close(results['stack'], results['unroll'], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ('inner', 'shortcut', 'message'),
  [
    (3, 'A', 'differ only in width'),
    (None, 'B', 'the widest everywhere'),
  ],
)
def test_candidates_that_cannot_be_stacked_are_refused(
  inner, shortcut, message
):
  x = jnp.zeros((1, 4, 4, 2))

  def variables(module):
    return jax.eval_shape(
      lambda: module.init(jax.random.key(0), x, train=False)
    )

  trees = [variables(resnet.BasicBlock(3, 2))]
  if inner:
    trees.append(variables(resnet.BasicBlock(3, inner, shortcut=shortcut)))
  else:
    trees.append(variables(resnet.BasicBlock(4, 1)))
  with pytest.raises(UsageError, match=message):
    stacking.widest(trees)


@pytest.fixture(scope='module')
def fitted(recipe, carry, dataset):
  """A run that ends with fine-tuning on the labels."""
  method = neighbourhood.neighbourhood(
    recipe,
    neighbourhood_optimizer=PLAIN,
    neighbourhood_epochs=1,
    statistics_steps=2,
    fine_tune=joint.supervised(recipe),
  )
  return loop.fit(method, carry, dataset, options=SILENT)


def test_the_student_is_kept_before_each_further_phase(fitted, carry):
  kept = fitted.carry
  assert set(kept) == {'student', 'teacher', 'distilled', 'reestimated'}
  params = [kept[k].variables['params'] for k in ('distilled', 'reestimated')]
  _assert_close(*params, rtol=0, atol=0)
  stats = [
    kept[k].variables['batch_stats'] for k in ('distilled', 'reestimated')
  ]
  gap = jax.tree.map(lambda a, b: float(abs(a - b).max()), *stats)
  assert max(jax.tree.leaves(gap)) > 1e-3
  heads = [
    kept[k].variables['params']['head'] for k in ('distilled', 'teacher')
  ]
  _assert_close(*heads, rtol=0, atol=0)
  tuned = kept['student'].variables['params']['head']['linear']['kernel']
  assert (tuned != heads[0]['linear']['kernel']).any()
  assert kept['teacher'] is carry['teacher']


def test_parts_of_layers_begin_with_the_teachers_weights(
  recipe, carry, dataset
):
  """Both are split into layers; at rate 1e-12 the student stays the teacher."""
  same = {**carry, 'student': whole(recipe)}
  method = neighbourhood.neighbourhood(
    recipe,
    by_layers=True,
    initial='teacher',
    neighbourhood_epochs=1,
    statistics_steps=0,
    neighbourhood_optimizer=optimizers.sgd(
      optimizers.constant(rate=1e-12), weight_decay=0.0
    ),
  )
  end = loop.fit(method, same, dataset, options=SILENT).carry
  assert set(end) == {'student', 'teacher'}
  layered = layerwise.by_layers(carry['teacher'])
  assert end['student'].network == layered.network
  _assert_close(
    end['student'].variables['params'], layered.variables['params'], rtol=1e-5
  )


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'initial': 'zero'}, "unknown initial 'zero'"),
    ({'inputs': 'images'}, "unknown inputs 'images'"),
    ({'look_ahead': (-1.0,)}, 'look_ahead: expected a number of at least 0'),
    ({'cut': (('stem', 'stem'),)}, 'at least two boundaries, got 1'),
    (
      {'by_layers': True, 'cut': PAST_THE_SHORTCUT},
      f"'{BLOCKS[1]}.conv2' of the student reads '{BLOCKS[1]}.shortcut', which",
    ),
  ],
)
def test_invalid_choices_are_refused(recipe, carry, arguments, message):
  method = neighbourhood.neighbourhood(recipe, **arguments)
  with pytest.raises(UsageError, match=message):
    method[0]({**carry, 'student': whole(recipe)})


def test_parts_with_other_numbers_of_stages_copy_nothing(recipe, carry):
  """The student's first group has two blocks, that of the teacher has one."""
  extra = Stage('group1.block2', resnet.BasicBlock(3))
  stages = network(2, 1).stages
  deeper = Network((*stages[:2], extra, *stages[2:]))
  image = {'image': recipe.example['image']}
  new_variables = graph.init(deeper, jax.random.key(0), image)
  cut = tuple((name, name) for name in ('stem', 'group1', 'group2'))
  phase = piece_phases.compose_phase(
    _plan(recipe, cut=cut),
    carry,
    lambda rng, carry: {'student': Model(deeper, new_variables)},
    from_teacher=('student',),
  )
  state, _ = phase.init(jax.random.key(0), carry)
  composed, teacher_variables = state['student'], carry['teacher'].variables
  _assert_close(
    composed['params'][BLOCKS[0]],
    new_variables['params'][BLOCKS[0]],
    rtol=0,
    atol=0,
  )
  _assert_close(
    composed['params'][BLOCKS[1]]['norm2'],
    teacher_variables['params'][BLOCKS[1]]['norm2'],
    rtol=0,
    atol=0,
  )


def test_any_method_can_begin_with_the_teachers_variables(recipe, carry):
  """They are copied where shapes agree: everywhere but in narrow layers."""
  method = neighbourhood.from_teacher(recipe, method=joint.supervised(recipe))
  phase = method[0](carry)
  state, _ = phase.init(jax.random.key(0), carry)
  student_params = state['student']['params']
  teacher_params = carry['teacher'].variables['params']
  _assert_close(student_params['stem'], teacher_params['stem'], rtol=0, atol=0)
  assert student_params[BLOCKS[0]]['conv1']['kernel'].shape[-1] == 2
  assert len(method) == 2


def test_a_student_that_consists_of_copies_is_refused(recipe, carry):
  same = {**carry, 'student': carry['teacher']}
  method = neighbourhood.neighbourhood(recipe, copy_same=True)
  with pytest.raises(UsageError, match='nothing is left to train'):
    method[0](same)


def test_a_negative_number_of_epochs_is_refused(recipe):
  with pytest.raises(
    UsageError, match='neighbourhood_epochs: expected a number'
  ):
    neighbourhood.neighbourhood(recipe, neighbourhood_epochs=-3)


def test_the_smallest_candidate_that_is_good_enough_is_chosen():
  scores = np.array([[0.5, 0.9, 0.89], [0.2, 0.3, 0.1]])
  sizes = np.array([[1, 3, 2], [1, 2, 3]])
  choose = functools.partial(quality.choose, scores, sizes, 0.9)
  # In the second row all lose more, so that the best one is chosen.
  assert choose(0.05) == [2, 1]
  assert choose(0.005) == [1, 1]
  assert choose(0.75) == [0, 0]


@pytest.fixture(scope='module')
def searched(recipe, carry, dataset):
  """(the run up to the measurement of candidates, the whole run)."""
  base = {**carry, 'student': whole(recipe)}
  one_batch = recipe.validation._replace(batch_size=10)
  method = student_search.student_search(
    recipe._replace(validation=one_batch),
    multipliers=(0.4, 1.0),
    drops=(0.01, 0.9),
    neighbourhood_epochs=1,
    statistics_steps=1,
  )
  measured = loop.fit(method[:3], base, dataset, options=SILENT)
  return measured, loop.fit(method[3:], measured.carry, dataset, options=SILENT)


def test_the_qualities_of_a_search_are_those_of_partial_models(
  searched, recipe, dataset
):
  """They are measured on the whole validation split, which is one batch."""
  measured, _ = searched
  report = measured.reports['student_search.json']
  teacher = measured.carry['teacher']
  raw = {k: jnp.asarray(v) for k, v in dataset.splits['validation'].items()}
  batch = augment.standardize(dataset.mean, dataset.std)(jax.random.key(0), raw)

  def accuracy(model):
    return float(
      (graph.apply(*model, batch['image']).argmax(-1) == batch['label']).mean()
    )

  assert report['teacher'] == pytest.approx(accuracy(teacher))
  example = {'image': recipe.example['image']}
  for role in ('k 0.4', 'k 1'):
    model = measured.carry[role]
    layout = layouts.layout(model.network, teacher.network, example)
    for i, name in enumerate(BLOCKS):
      partial = layouts.partial(layout, i, model, teacher)
      assert report['quality'][name][role] == pytest.approx(accuracy(partial))


def test_partial_outputs_are_those_of_each_partial_model(recipe, carry, batch):
  example = {'image': recipe.example['image']}
  teacher = carry['teacher']
  students = {
    f'k {i}': Model(net, graph.init(net, jax.random.key(i), example))
    for i, net in enumerate((network(1, 1), network(2, 3), network(3, 4)))
  }
  layout = layouts.layout(students['k 0'].network, teacher.network, example)
  outputs = forward.partial_outputs(
    _plan(recipe),
    layout,
    {**carry, **students},
    tuple(students),
    {'train': batch},
    jax.random.key(0),
  )
  for k, model in enumerate(students.values()):
    for i in range(2):
      partial = layouts.partial(layout, i, model, teacher)
      logits = graph.apply(*partial, batch['image'])
      _assert_close(outputs['candidates'][i, k], logits, atol=1e-5)
  logits = graph.apply(*teacher, batch['image'])
  _assert_close(outputs['teacher'], logits, atol=1e-5)
  assert len({*outputs['candidates'][:, :, 0, 0].ravel().tolist()}) == 6


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'look_ahead': (-1.0,)}, 'look_ahead: expected a number of at least 0'),
    ({'cut': (('stem', 'stem'),)}, 'at least two boundaries, got 1'),
    ({'form': 'row'}, "unknown form 'row'"),
  ],
)
def test_a_search_checks_the_arguments_of_its_neighbourhoods(
  recipe, carry, arguments, message
):
  method = student_search.student_search(
    recipe, multipliers=(1.0,), **arguments
  )
  with pytest.raises(UsageError, match=message):
    method[0]({**carry, 'student': whole(recipe)})


def test_the_students_of_a_search_consist_of_candidates(searched):
  report = searched[0].reports['student_search.json']
  kept = searched[1].carry
  # Candidates have 3 or 1 channels in the first block, and 4 or 1 in the other.
  assert (
    report['parameters'][BLOCKS[0]]['k 1']
    > report['parameters'][BLOCKS[0]]['k 0.4']
  )
  smallest = report['chosen']['0.9']
  assert set(smallest.values()) == {'k 0.4'}
  for drop in ('0.01', '0.9'):
    model = kept[f'drop {drop}']
    for name, role in report['chosen'][drop].items():
      _assert_close(
        model.variables['params'][name],
        kept[role].variables['params'][name],
        rtol=0,
        atol=0,
      )
  assert kept['student'].network == kept['drop 0.9'].network


def test_the_statistics_of_all_kept_students_are_re_estimated(
  searched,
):
  measured, ended = searched
  for role in ('k 0.4', 'k 1'):
    before, after = (x.carry[role].variables for x in (measured, ended))
    chex.assert_trees_all_equal(after['params'], before['params'])
    changed = jax.tree.map(
      lambda a, b: np.abs(a - b).max() > 0,
      after['batch_stats'],
      before['batch_stats'],
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      {'multipliers': ()},
      'multipliers: expected at least one number, got none',
    ),
    ({'multipliers': (0.5, 0.5)}, 'multipliers: expected different numbers'),
    ({'drops': (1.5,)}, r'drops: expected a number in \(0, 1\), got 1.5'),
  ],
)
def test_invalid_candidates_or_drops_are_refused(recipe, arguments, message):
  with pytest.raises(UsageError, match=message):
    student_search.student_search(recipe, **arguments)


def test_a_search_without_validation_is_refused(recipe):
  with pytest.raises(
    UsageError, match=r'data\.validation: student_search needs'
  ):
    student_search.student_search(recipe._replace(validation_steps=0))


def test_a_multiplier_that_leaves_no_channel_is_refused(recipe, carry):
  carry = {**carry, 'student': whole(recipe)}
  method = student_search.student_search(recipe, multipliers=(0.1, 1.0))
  with pytest.raises(UsageError, match=r'leaves .* none of its 3'):
    method[0](carry)


def test_sparse_candidates_reach_their_sparsity_and_keep_it(
  recipe, carry, dataset
):
  """All begin as the teacher; zeros do not count as parameters."""
  base = {**carry, 'student': whole(recipe)}
  method = student_search.student_search(
    recipe,
    sparsities=(0.0, 0.5),
    by_layers=True,
    drops=(0.9,),
    neighbourhood_epochs=2,
    statistics_steps=0,
  )
  start = loop.fit(method[:1], base, dataset, options=SILENT)
  kernel = layerwise.by_layers(carry['teacher']).variables['params']
  for role in ('sparsity 0', 'sparsity 0.5'):
    _assert_close(start.carry[role].variables['params'], kernel, rtol=0, atol=0)
  fitted = loop.fit(method, base, dataset, options=SILENT)
  for role, sparsity in (('sparsity 0', 0.0), ('sparsity 0.5', 0.5)):
    params = fitted.carry[role].variables['params'][f'{BLOCKS[1]}.conv2']
    kernel = np.asarray(params['conv']['kernel'])
    assert abs((kernel == 0).mean() - sparsity) < 0.01
  report = fitted.reports['student_search.json']
  assert set(report['chosen']['0.9'].values()) == {'sparsity 0.5'}


def test_a_stack_is_distributed_over_the_devices_of_a_mesh():
  """Three entries are distributed over an axis of one, two or four devices."""
  trees = [{'kernel': jnp.full((2, n), 1.0 + n)} for n in range(3)]

  def make(trees):
    stack = stacking.stack(trees, trees[2], stacking.devices())
    return stacking.spread(stack)['kernel']

  for count, constraints, entries in ((1, 0, 3), (2, 1, 4), (4, 1, 4)):
    mesh = jax.sharding.AbstractMesh(
      (1, count), ('data', 'model'), axis_types=(AxisType.Auto,) * 2
    )
    with jax.sharding.use_abstract_mesh(mesh):
      jaxpr = jax.make_jaxpr(make)(trees)
    assert str(jaxpr).count('sharding_constraint') == constraints
    assert jaxpr.out_avals[0].shape == (entries, 2, 2)
  stack = stacking.stack(trees, trees[2], 4)
  for tree, unstacked in zip(trees, stacking.unstack(stack, trees)):
    np.testing.assert_array_equal(unstacked['kernel'], tree['kernel'])
  assert not stack['kernel'][3].any()
