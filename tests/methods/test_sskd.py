"""SSKD: what changes in each stage, how it is evaluated, and its rivals."""

import functools
import itertools

import jax
import numpy as np
import pytest

from jaxdistill import methods, optimizers, tasks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.networks import NETWORKS, graph, layers
from jaxdistill.networks.models import vgg, vit
from jaxdistill.networks.surgery.embedding import embedded
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
STAGES = ('stem', 'group1.conv1', 'group2.conv1')
THREE = (('stem', 'stem'), ('group1', 'group1'), ('group2', 'group2'))


def tiny(*widths, pool=True):
  units = [
    Stage('stem', vgg.VGGUnit(widths[0])),
    Stage('group1.conv1', vgg.VGGUnit(widths[1])),
    Stage('group2.conv1', vgg.VGGUnit(widths[2], pool=pool)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(3)),
  ]
  return Network(tuple(units))


@pytest.fixture(scope='module')
def dataset():
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (32, 8, 8, 1), np.uint8)
  label = np.arange(32) % 3
  return arrays.from_arrays(image, label, image, label, validation=0)


@pytest.fixture(scope='module')
def recipe(dataset):
  """One epoch is four steps."""
  return recipes.recipe(dataset, classification(), epochs=4, batch_size=8)


def model(network, seed, recipe):
  image = {'image': recipe.example['image']}
  return Model(network, graph.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='module')
def carry(recipe):
  return {
    'student': model(tiny(2, 2, 4), 0, recipe),
    'teacher': model(tiny(2, 2, 4), 1, recipe),
  }


@pytest.fixture(scope='module')
def unlike(carry, recipe):
  """A carry whose teacher has other channels and larger maps at the end."""
  return {**carry, 'teacher': model(tiny(3, 3, 5, pool=False), 1, recipe)}


@pytest.fixture(scope='module')
def after_each(recipe, carry, dataset):
  """The carry before, and after each phase, of three stages."""
  method = methods.sskd(recipe, cut=THREE, statistics_steps=3)
  carries = [carry]
  for phase in method:
    fitted = loop.fit((phase,), carries[-1], dataset, options=SILENT)
    carries.append(fitted.carry)
  return carries


def _changed(before, after, collection='params'):
  """Returns the student's stages in which any variable has changed."""
  before, after = (x['student'].variables[collection] for x in (before, after))
  return {
    name
    for name in before
    if any(
      (np.asarray(a) != np.asarray(b)).any()
      for a, b in zip(
        jax.tree.leaves(before[name]), jax.tree.leaves(after[name])
      )
    )
  }


def test_a_stage_changes_only_its_own_parameters(after_each):
  steps = [_changed(a, b) for a, b in itertools.pairwise(after_each)]
  # Each stage is followed by the phase that re-estimates its statistics.
  assert steps[0::2] == [{s} for s in STAGES] + [{'head'}]
  assert steps[1::2] == [set()] * 3


def test_a_stages_statistics_change_in_its_own_phases_only(after_each):
  steps = [
    _changed(a, b, 'batch_stats') for a, b in itertools.pairwise(after_each)
  ]
  assert steps[0::2] == [{s} for s in STAGES] + [set()]
  assert steps[1::2] == [{s} for s in STAGES]


def test_the_teacher_does_not_change(after_each, carry):
  assert set(after_each[-1]) == {'student', 'teacher'}
  jax.tree.map(
    np.testing.assert_array_equal,
    after_each[-1]['teacher'].variables,
    carry['teacher'].variables,
  )


def test_epochs_are_divided_equally_by_default(recipe, carry):
  """The recipe has four epochs, which are 16 steps."""

  def steps(method):
    return [phase(carry).num_steps for phase in method]

  assert steps(methods.sskd(recipe, cut=THREE)) == [4, 200, 4, 200, 4, 200, 4]
  assert steps(methods.multi_loss(recipe, cut=THREE)) == [12, 200, 4]
  options = {'stage_epochs': 2.0, 'statistics_steps': 3}
  assert steps(methods.sskd(recipe, cut=THREE[1:], **options)) == [
    8,
    3,
    8,
    3,
    5,
  ]


@pytest.mark.parametrize(
  'make',
  [
    lambda r: methods.sskd(r, cut=THREE, head_epochs=0),
    lambda r: methods.multi_loss(r, cut=THREE, head_epochs=0.0),
    lambda r: methods.fixed_backbone(r, method=(), head_epochs=0),
  ],
  ids=['sskd', 'multi_loss', 'fixed_backbone'],
)
def test_a_head_without_epochs_stays_as_it_is(make, recipe, carry, dataset):
  *_, head = make(recipe)
  assert head(carry).num_steps == 0
  after = loop.fit((head,), carry, dataset, options=SILENT).carry
  jax.tree.map(
    np.testing.assert_array_equal,
    after['student'].variables,
    carry['student'].variables,
  )


def test_without_a_head_the_stages_share_all_epochs_and_read_no_labels(
  recipe, carry
):
  blind = recipe._replace(task=tasks.embedding(), epochs=6.0)
  with pytest.raises(UsageError, match='expected a task with targets'):
    methods.sskd(blind, cut=THREE)
  staged = methods.sskd(blind, cut=THREE, head=False)
  assert [make(carry).name for make in staged[::2]] == [
    'stage1',
    'stage2',
    'stage3',
  ]
  assert staged[0](carry).num_steps == 2 * 4
  at_once = methods.multi_loss(blind, cut=THREE, head=False)
  assert len(at_once) == 2
  assert at_once[0](carry).num_steps == 6 * 4


def test_the_last_stage_may_end_with_a_vector(recipe, carry):
  networks = {k: embedded(m.network, size=3) for k, m in carry.items()}
  models = {k: model(n, 0, recipe) for k, n in networks.items()}
  cut = (*THREE, ('embedding', 'embedding'))
  method = methods.sskd(recipe, cut=cut, head=False)
  phase = method[-2](models)
  assert phase.name == 'stage4'
  state = phase.init(jax.random.key(0), models)[0]
  assert {*state.variables['student']['params']} >= {'embedding'}
  assert not phase.eval_models  # a vector has no part of a teacher above it
  first = method[0](models).eval_models
  assert [*first] == ['partial']


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda r: methods.sskd(r, head=False, head_epochs=2), 'head_epochs: expe'),
    (
      lambda r: methods.multi_loss(r, head=False, head_optimizer=PLAIN),
      'head_optimizer: expected head=True with it',
    ),
    (lambda r: methods.sskd(r, head_epochs=-1), 'head_epochs: expected'),
    (lambda r: methods.sskd(r, stage_epochs=0), 'stage_epochs: expected'),
    (lambda r: methods.sskd(r, stage_epochs=-0.5), 'above 0, got -0.5'),
    (lambda r: methods.multi_loss(r, backbone_epochs=0), 'backbone_epochs: ex'),
  ],
)
def test_epochs_out_of_their_range_are_refused(make, words, recipe):
  with pytest.raises(UsageError) as caught:
    make(recipe)
  assert words in str(caught.value)


def test_stages_and_head_use_the_papers_learning_rates(recipe, carry, batch):
  """The first step is -rate times the sum of gradient and decayed weights."""
  whole = recipe._replace(epochs=10.0, steps_per_epoch=4)
  options = {'cut': THREE[:1], 'stage_epochs': 10.0, 'head_epochs': 10.0}
  method = methods.sskd(whole, **options)
  plain = methods.sskd(
    whole, **options, stage_optimizer=PLAIN, head_optimizer=PLAIN
  )
  for index, rate, decay in ((0, 0.01, 5e-4), (2, 0.1, 1e-4)):
    changes = []
    for variant in (method, plain):
      _, change = _loss_and_gradient(variant[index:], carry, batch)
      changes.append(change)
    name = 'stem' if index == 0 else 'head'
    before = carry['student'].variables['params'][name]
    jax.tree.map(
      lambda change, slope, p, r=rate, d=decay: np.testing.assert_allclose(
        change, r * (slope - d * p), rtol=1e-3, atol=1e-7
      ),
      changes[0][name],
      changes[1][name],
      before,
    )


def test_with_one_stage_sskd_equals_multi_loss(recipe, carry, dataset):
  options = {'num_stages': 1, 'statistics_steps': 2}
  ends = [
    loop.fit(make(recipe, **options), carry, dataset, options=SILENT).carry
    for make in (methods.sskd, methods.multi_loss)
  ]
  jax.tree.map(
    np.testing.assert_array_equal,
    *(end['student'].variables for end in ends),
  )


def _loss_and_gradient(method, carry, batch):
  """Returns the metrics and the changes of the first phase's first step."""
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  after, metrics = step(state, frozen, {'train': batch}, jax.random.key(1))
  change = jax.tree.map(
    lambda a, b: np.asarray(a - b),
    after.variables['student']['params'],
    state.variables['student']['params'],
  )
  return metrics, change


PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)


@pytest.fixture(scope='module')
def batch(dataset, recipe):
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  return recipe.stream.augment(jax.random.key(0), raw)


def test_the_first_stage_has_the_loss_of_a_neighbourhood(recipe, carry, batch):
  """Its loss is the mean square times the number of channels, 2."""
  results = {}
  for reduction in ('mean', 'position_mean'):
    method = methods.sskd(
      recipe, cut=THREE, stage_optimizer=PLAIN, reduction=reduction
    )
    results[reduction] = _loss_and_gradient(method, carry, batch)
  (mean, slope), (total, slopes) = results['mean'], results['position_mean']
  np.testing.assert_allclose(2 * mean['loss'], total['loss'], rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-4, atol=1e-6),
    slope['stem'],
    slopes['stem'],
  )
  # The same by hand, with the teacher in inference mode.
  image = {'image': batch['image']}
  teacher_features, _ = graph.run(*carry['teacher'], image, only=['stem'])

  def neighbourhood(params):
    variables = graph.merge(
      carry['student'].variables, {'params': {'stem': params}}
    )
    network = carry['student'].network
    features, _ = graph.run(
      network, variables, image, only=['stem'], train=True
    )
    return ((features['stem'] - teacher_features['stem']) ** 2).mean()

  params = carry['student'].variables['params']['stem']
  value, gradient = jax.value_and_grad(neighbourhood)(params)
  np.testing.assert_allclose(mean['loss'], value, rtol=1e-5)
  jax.tree.map(
    lambda change, g: np.testing.assert_allclose(
      change, -g, rtol=1e-4, atol=1e-6
    ),
    slope['stem'],
    gradient,
  )


def test_finished_stages_are_in_inference_mode(after_each, recipe, batch):
  """They use their running statistics; the stage that trains does not."""
  network, variables = after_each[2]['student']
  shifted = jax.tree.map(
    lambda x: x + 0.5, graph.select(variables, ['stem'])['batch_stats']
  )
  variables = graph.merge(variables, {'batch_stats': shifted})
  carry = {**after_each[2], 'student': Model(network, variables)}
  image = {'image': batch['image']}
  method = methods.sskd(recipe, cut=THREE, stage_optimizer=PLAIN)
  metrics, _ = _loss_and_gradient(method[2:], carry, batch)
  teacher_features, _ = graph.run(*carry['teacher'], image)
  expected = {}
  for mode, train in (('stage', ['group1.conv1']), ('all', True)):
    features, _ = graph.run(*carry['student'], image, train=train)
    error = (features['group1'] - teacher_features['group1']) ** 2
    expected[mode] = float(error.sum(-1).mean())
  np.testing.assert_allclose(metrics['loss'], expected['stage'], rtol=1e-5)
  assert abs(expected['all'] - expected['stage']) > 1e-3 * expected['stage']


def test_the_head_sees_the_backbone_in_inference_mode(
  after_each, recipe, batch
):
  carry = after_each[-2]
  metrics, _ = _loss_and_gradient(
    methods.sskd(recipe, cut=THREE)[-1:], carry, batch
  )
  logits = graph.apply(*carry['student'], batch['image'])
  expected = recipe.task.loss(logits, batch).mean()
  np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)


def test_multi_loss_sums_the_losses_of_all_stages(recipe, carry, batch):
  metrics, change = _loss_and_gradient(
    methods.multi_loss(recipe, cut=THREE, stage_optimizer=PLAIN), carry, batch
  )
  parts = [metrics[f'distance/{s}'] for s, _ in THREE]
  np.testing.assert_allclose(metrics['loss'], sum(parts), rtol=1e-6)
  assert (change['head']['linear']['kernel'] == 0).all()
  assert (change['stem']['conv']['kernel'] != 0).any()


def test_two_boundaries_may_share_a_teacher_feature(recipe, carry, batch):
  cut = (('stem', 'stem'), ('group1', 'stem'))
  method = methods.multi_loss(
    recipe, cut=cut, stage_optimizer=PLAIN, reduction='mean'
  )
  metrics, _ = _loss_and_gradient(method, carry, batch)
  image = {'image': batch['image']}
  target = graph.run(*carry['teacher'], image, only=['stem'])[0]['stem']
  features, _ = graph.run(*carry['student'], image, only=STAGES[:2], train=True)
  for name, _ in cut:
    expected = ((features[name] - target) ** 2).mean()
    np.testing.assert_allclose(metrics[f'distance/{name}'], expected, rtol=1e-4)


def test_features_of_other_shapes_are_matched_through_an_adapter(
  unlike, recipe, dataset
):
  """The student's deepest maps have half the size and other channels."""
  method = methods.sskd(
    recipe._replace(epochs=12), num_stages=1, statistics_steps=0
  )
  phase = method[0](unlike)
  state, frozen = phase.init(jax.random.key(0), unlike)
  assert set(state.variables['adapters']['params']) == {'adapter0'}
  # A randomly initialised adapter would push the features before it to zero.
  adapter = state.variables['adapters']['params']['adapter0']['conv']
  assert not np.any(adapter['kernel'])
  partial = phase.eval_models['partial'](state, frozen)
  names = graph.stage_names(partial.network)
  # The adapter comes between the student's stages and those of the teacher.
  assert names[-3:] == ('adapter0', 'pool', 'head')
  image = recipe.example['image']
  logits = graph.apply(*partial, np.zeros(image.shape, np.float32))
  assert logits.shape == (8, 3)
  end = loop.fit(method, unlike, dataset, options=SILENT)
  assert set(end.carry) == {'student', 'teacher'}
  for tree in end.carry['student'].variables.values():
    assert 'adapter0' not in tree


def test_a_partial_student_equal_to_its_teacher_has_its_outputs(
  recipe, carry, batch
):
  same = {**carry, 'student': carry['teacher']}
  for phase_of in methods.sskd(recipe, cut=THREE)[:-1:2]:
    phase = phase_of(same)
    state, frozen = phase.init(jax.random.key(0), same)
    partial = phase.eval_models['partial'](state, frozen)
    np.testing.assert_array_equal(
      graph.apply(*partial, batch['image']),
      graph.apply(*same['teacher'], batch['image']),
    )


def test_fixed_backbone_trains_only_a_new_classifier(recipe, carry, dataset):
  method = methods.fixed_backbone(recipe, method=joint.supervised(recipe))
  whole = loop.fit(method[:1], carry, dataset, options=SILENT).carry
  renewed = loop.fit(method[1:2], whole, dataset, options=SILENT).carry
  assert _changed(whole, renewed) == {'head'}
  end = loop.fit(method[2:], renewed, dataset, options=SILENT).carry
  assert _changed(renewed, end) == {'head'}
  assert _changed(renewed, end, 'batch_stats') == set()


def _after(count):
  """Returns a function that returns True from its call number `count` on."""
  calls = iter(range(10**6))
  return lambda: next(calls) >= count


@pytest.mark.parametrize(
  ('stage', 'plateau'), [(3, False), (1, True)], ids=['stage 3', 'plateau']
)
def test_a_resumed_run_ends_with_the_same_bits(
  stage, plateau, recipe, unlike, dataset, tmp_path
):
  schedule = optimizers.step(rate=0.01)
  if plateau:  # It ends after two epochs without improvement, at each rate.
    schedule = optimizers.plateau(
      rate=0.02, factor=0.5, patience=1, window=4, final=0.01, threshold=0.9
    )
  method = methods.sskd(
    recipe,
    cut=THREE,
    stage_epochs=10.0 if plateau else 2.0,
    head_epochs=1.0,
    stage_optimizer=optimizers.sgd(schedule),
    statistics_steps=2,
  )[: 2 * stage]
  whole = loop.fit(method, unlike, dataset, options=SILENT)
  # A stage takes 8 steps and 2 for its statistics; with the plateau rule, it
  # takes 3 epochs of 4 steps.
  assert whole.steps == (14 if plateau else 30)
  with pytest.raises(loop.Interrupted):
    # The run is interrupted after the first reduction of the rate, which is at
    # step 8, or in the third stage.
    stops = SILENT._replace(interrupted=_after(9 if plateau else 24))
    stops = stops._replace(directory=str(tmp_path))
    loop.fit(method, unlike, dataset, options=stops)
  options = SILENT._replace(directory=str(tmp_path))
  resumed = loop.fit(method, unlike, dataset, options=options)
  assert resumed.steps == whole.steps
  jax.tree.map(
    np.testing.assert_array_equal,
    resumed.carry['student'].variables,
    whole.carry['student'].variables,
  )


def test_an_early_stage_costs_a_small_fraction_of_a_step_of_kd(recipe):
  """Later stages do not run, and no gradient is computed before the stage."""
  image = jax.ShapeDtypeStruct((8, 32, 32, 3), np.float32)
  recipe = recipe._replace(example={**recipe.example, 'image': image})
  kinds = {'student': 'resnet20', 'teacher': 'resnet56'}
  carry = {}
  for role, kind in kinds.items():
    network = NETWORKS[kind](num_classes=3)
    carry[role] = Model(
      network, graph.variable_shapes(network, {'image': image})
    )

  def cost(method):
    phase = method[0](carry)
    state, frozen = jax.eval_shape(
      lambda rng, variables: phase.init(
        rng, {k: Model(carry[k].network, v) for k, v in variables.items()}
      ),
      jax.random.key(0),
      {k: v.variables for k, v in carry.items()},
    )
    step = jax.jit(functools.partial(phase.step, static=None))
    batches = {'train': dict(recipe.example)}
    lowered = step.lower(state, frozen, batches, jax.random.key(0))
    return lowered.cost_analysis()['flops']

  whole = cost(joint.kd(recipe))
  assert cost(methods.sskd(recipe)) < 0.4 * whole
  # The last stage costs the teacher, the student, and a backward pass of a
  # third of the student: 126 + 28 + 3 * 13 million multiply-adds, compared with
  # 126 + 3 * 41 for KD.
  assert cost(methods.sskd(recipe)[4:]) < 0.85 * whole


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'cut': (('stem', 'group7'),)}, "teacher feature 'group7'"),
    ({'cut': (('group7', 'stem'),)}, "student feature 'group7'"),
    (
      {'cut': (('group1', 'stem'), ('stem', 'group1'))},
      "in the student, feature 'stem' is not computed after 'group1'",
    ),
    (
      {'cut': (('stem', 'group2'), ('group1', 'group1'))},
      "in the teacher, feature 'group1' is not computed after 'group2'",
    ),
    (
      {'cut': (('group2.pre', 'group2'),)},
      "output of a stage or group 'group2.pre'",
    ),
    ({'cut': (('head', 'head'),)}, "got 'head', the end of the student"),
    ({'cut': ()}, 'at least one'),
    (
      {'num_stages': 4},
      'num_stages: expected 1 to 2, got 4; the student has 2 groups of maps',
    ),
    ({'num_stages': 0}, 'num_stages: expected a whole number of at least 1'),
    ({'num_stages': -1}, 'of at least 1, got -1'),
    (
      {'cut': (('stem',),)},
      "cut: expected pairs (student feature, teacher feature), got ('stem',)",
    ),
    ({'reduction': 'max'}, "unknown reduction 'max'"),
  ],
)
def test_invalid_boundaries_are_refused(arguments, words, recipe, carry):
  with pytest.raises(UsageError) as caught:
    methods.sskd(recipe, **arguments)[0](carry)
  assert words in str(caught.value)


def test_a_teacher_with_fewer_stages_is_refused(recipe, carry):
  stages = tiny(2, 2, 4).stages
  shallow = Network((*stages[:2], *stages[3:]))
  carry = {**carry, 'teacher': model(shallow, 0, recipe)}
  with pytest.raises(
    UsageError, match=r'expected 1 to 1, got 2; .* and the teacher 1'
  ):
    methods.sskd(recipe, num_stages=2)[0](carry)


def test_tokens_of_another_width_are_refused(recipe, carry):
  networks = {
    role: vit.vit(width, 2, 1, num_classes=3, patch=4)
    for role, width in (('student', 4), ('teacher', 8))
  }
  carry = {k: model(v, 0, recipe) for k, v in networks.items()}
  cut = ((graph.stage_names(networks['student'])[-3],) * 2,)
  with pytest.raises(UsageError, match='expected maps or vectors'):
    methods.sskd(recipe, cut=cut)[0](carry)
