"""Masked layers: what changes in each phase, the noise, and the masks."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.methods.masked_layer import layer_phases, noise
from jaxdistill.methods.masked_layer import method as masked_layer
from jaxdistill.networks import NETWORKS, graph, initial, layers
from jaxdistill.networks.models import resnet, vgg
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)
# The student has one block fewer in its first group.
SHARED = (('group1', 'group1'), ('group2', 'group2'))
LENGTHS = {'mask_epochs': 1, 'local_epochs': 2, 'statistics_steps': 2}


def tiny(blocks, last=4, num_classes=3):
  units = [
    *(Stage(f'group1.conv{i + 1}', vgg.VGGUnit(3)) for i in range(blocks)),
    Stage('group2.conv1', vgg.VGGUnit(last, pool=True)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(num_classes)),
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
  return recipes.recipe(dataset, classification(), epochs=1, batch_size=8)


def model(network, seed, recipe):
  image = {'image': recipe.example['image']}
  return Model(network, graph.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='module')
def carry(recipe):
  return {
    'student': model(tiny(1), 0, recipe),
    'teacher': model(tiny(2), 1, recipe),
  }


@pytest.fixture(scope='module')
def batch(dataset, recipe):
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  return recipe.stream.augment(jax.random.key(0), raw)


@pytest.fixture(scope='module')
def method(recipe):
  return masked_layer.masked_layer(
    recipe,
    method=joint.kd(recipe),
    label_epochs=0.5,
    # The rate is high enough to have an effect in four steps.
    mask_optimizer=optimizers.sgd(optimizers.constant(rate=30.0)),
    **LENGTHS,
  )


@pytest.fixture(scope='module')
def after_each(method, carry, dataset):
  """The results before, and after each phase."""
  results = [loop.Fitted(carry, {}, {}, 0, 0.0, {})]
  for phase in method:
    fitted = loop.fit((phase,), results[-1].carry, dataset, options=SILENT)
    results.append(fitted)
  return results


def changed(before, after, role='student', collection='params'):
  """Returns the stages in which any variable differs."""
  old, new = (x.carry[role].variables[collection] for x in (before, after))
  return {
    name
    for name in old
    if any(
      (np.asarray(a) != np.asarray(b)).any()
      for a, b in zip(jax.tree.leaves(old[name]), jax.tree.leaves(new[name]))
    )
  }


def assert_same(*trees):
  jax.tree.map(np.testing.assert_array_equal, *trees)


def test_the_phases_have_the_expected_order_and_length(method, after_each):
  phases = [make(before.carry) for make, before in zip(method, after_each)]
  assert [(p.name, p.num_steps) for p in phases] == [
    ('start', 0),
    ('masks', 4),
    ('local', 8),
    ('local_statistics', 2),
    ('keep_layers', 0),
    ('kd', 4),
    ('labels', 2),
  ]


def test_the_mask_phase_changes_only_the_masks(after_each):
  before, after = after_each[1], after_each[2]
  assert changed(before, after, 'masks') == {'group1', 'group2'}
  for role in ('student', 'teacher'):
    assert_same(before.carry[role].variables, after.carry[role].variables)


def test_masks_stay_within_zero_and_one(after_each):
  """Some of them reach each of the two limits."""
  masks = noise.masks_of(after_each[2].carry['masks'].variables)
  ends = [(float(m.min()), float(m.max())) for m in masks.values()]
  assert min(low for low, _ in ends) == 0.0
  assert max(high for _, high in ends) == 1.0


def test_the_local_phase_changes_only_the_groups(after_each):
  before, after = after_each[2], after_each[3]
  groups = {'group1.conv1', 'group2.conv1'}
  assert changed(before, after) == groups
  assert changed(before, after, collection='batch_stats') == groups
  for role in ('masks', 'teacher'):
    assert_same(before.carry[role].variables, after.carry[role].variables)
  # Then their statistics change, and finally the whole student.
  assert changed(*after_each[3:5]) == set()
  assert changed(*after_each[3:5], collection='batch_stats') == groups
  assert changed(*after_each[5:7]) == groups | {'head'}
  assert changed(*after_each[6:8]) == groups | {'head'}
  assert_same(
    after_each[-1].carry['teacher'].variables, after.carry['teacher'].variables
  )


def test_the_student_before_the_method_is_kept_as_layers(after_each):
  kept = after_each[-1].carry['layers'].variables
  assert_same(kept, after_each[4].carry['student'].variables)


def test_the_student_starts_with_the_teachers_head(carry, after_each, recipe):
  before, after = after_each[:2]
  assert changed(before, after) == {'head'}
  assert_same(*(after.carry[r].variables['params']['head'] for r in carry))
  method = masked_layer.masked_layer(recipe, copy_head=False)
  end = start(method, carry)
  assert_same(end['student'].variables, carry['student'].variables)


def start(method, carry):
  """Returns the carry after the first phase."""
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  return phase.finish(state, frozen, carry)


def test_a_head_with_other_stages_is_not_copied(carry, recipe):
  deeper = Network(
    (
      *tiny(2).stages[:-1],
      Stage('hidden', layers.Hidden(5)),
      tiny(2).stages[-1],
    )
  )
  other = {**carry, 'teacher': model(deeper, 1, recipe)}
  end = start(masked_layer.masked_layer(recipe), other)
  assert_same(end['student'].variables, carry['student'].variables)


def test_the_head_is_copied_if_the_teacher_has_more_stages_before_it(
  carry, recipe
):
  cut = (('group1', 'group1'),)
  deeper = Network(
    (
      *tiny(2).stages[:-2],
      Stage('group2.conv2', layers.ConvUnit(4)),
      *tiny(2).stages[-2:],
    )
  )
  other = {**carry, 'teacher': model(deeper, 1, recipe)}
  end = start(masked_layer.masked_layer(recipe, cut=cut), other)
  old, new = (models['student'].variables['params'] for models in (carry, end))
  assert_same(new['head'], other['teacher'].variables['params']['head'])
  assert old.keys() == new.keys()
  assert_same(*({k: p[k] for k in old if k != 'head'} for p in (old, new)))


def test_remaining_stages_are_inherited_after_the_masks(carry, recipe):
  """The noise is that of the untrained student."""
  method = masked_layer.masked_layer(recipe, inherit=True, copy_head=False)
  names = []
  for make in method[:3]:
    phase = make(carry)
    names.append(phase.name)
    state, frozen = phase.init(jax.random.key(0), carry)
    end = phase.finish(state, frozen, carry)
    if names[-1] != 'inherit':
      assert_same(end['student'].variables, carry['student'].variables)
    carry = end
  assert names == ['start', 'masks', 'inherit']
  for collection, tree in end['student'].variables.items():
    for stage, variables in tree.items():
      assert_same(variables, carry['teacher'].variables[collection][stage])


def test_with_masks_of_one_the_noised_teacher_is_the_teacher(
  recipe, carry, batch
):
  method = masked_layer.masked_layer(recipe, mask_value=1.0)
  started = start(method, carry)
  phase = method[1](started)
  state, frozen = phase.init(jax.random.key(0), started)
  noised = phase.eval_models['noised'](state, frozen)
  clean = graph.apply(*carry['teacher'], batch['image'])
  np.testing.assert_array_equal(graph.apply(*noised, batch['image']), clean)
  clean_model = phase.eval_models['clean'](state, frozen)
  np.testing.assert_array_equal(
    graph.apply(*clean_model, batch['image']), clean
  )
  # With lower masks it is not.
  method = masked_layer.masked_layer(recipe, mask_value=0.9)
  started = start(method, carry)
  state, frozen = method[1](started).init(jax.random.key(0), started)
  noised = method[1](started).eval_models['noised'](state, frozen)
  assert (graph.apply(*noised, batch['image']) != clean).all()


def test_the_noise_uses_the_statistics_of_the_batch(after_each, method, batch):
  """Therefore scaling the student's kernels has no effect."""
  carry = after_each[2].carry
  student, teacher = carry['student'], carry['teacher']
  masks = noise.masks_of(carry['masks'].variables)
  h = batch['image']
  for i, (stages, teacher_stages) in enumerate(
    (
      (('group1.conv1',), ('group1.conv1', 'group1.conv2')),
      (('group2.conv1',), ('group2.conv1',)),
    )
  ):
    start = f'group{i}' if i else 'image'
    a, _ = graph.run(*teacher, {start: h}, only=teacher_stages)
    n, _ = graph.run(*student, {start: h}, only=stages, train=True)
    name = f'group{i + 1}'
    h = a[name] + (1 - masks[name])[None] * n[name]
  expected, _ = graph.run(*teacher, {'group2': h}, only=('pool', 'head'))
  scaled = jax.tree.map(
    lambda x: 10 * x if x.ndim == 4 else x, student.variables
  )
  phase = method[1](carry)
  frozen = {'student': scaled, 'teacher': teacher.variables}
  state, _ = phase.init(jax.random.key(0), carry)
  logits = graph.apply(
    *phase.eval_models['noised'](state, frozen), batch['image']
  )
  np.testing.assert_allclose(logits, expected['head'], rtol=1e-3, atol=1e-4)


def test_training_and_evaluation_use_the_same_noised_teacher(
  recipe, after_each, method, batch
):
  carry = after_each[2].carry
  phase = method[1](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  noised = phase.eval_models['noised'](state, frozen)
  _, metrics = step_of(phase)(
    state, frozen, {'train': batch}, jax.random.key(1)
  )
  logits = graph.apply(*noised, batch['image'])
  score = joint.score(recipe, logits, batch)
  np.testing.assert_allclose(metrics['top1'], score['top1'], rtol=1e-6)
  masks = noise.masks_of(carry['masks'].variables)
  loss = layer_phases.mask_loss(
    recipe.task.loss(logits, batch), tuple(masks.values()), alpha=3e-3
  )
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)


def step_of(phase):
  return jax.jit(functools.partial(phase.step, static=None))


def test_the_loss_of_the_masks_agrees_with_a_hand_calculation():
  """It is (1 + 3) / 2 + 0.1 * (|(3, 4)| + |(0, 0)|) = 2.5."""
  masks = (jnp.array([[3.0], [4.0]]), jnp.zeros((2,)))
  value, slope = jax.value_and_grad(
    lambda m: layer_phases.mask_loss(jnp.array([1.0, 3.0]), m, alpha=0.1)
  )(masks)
  np.testing.assert_allclose(value, 2.5, rtol=1e-6)
  np.testing.assert_allclose(slope[0], [[0.06], [0.08]], rtol=1e-6)
  np.testing.assert_array_equal(slope[1], 0.0)


def test_masks_are_reported(after_each):
  report = after_each[2].reports['masks.json']
  mask = np.asarray(
    noise.masks_of(after_each[2].carry['masks'].variables)['group2']
  )
  summary = report['group2']
  assert summary['above_half'] == pytest.approx((mask > 0.5).mean())
  np.testing.assert_allclose(summary['channels'], mask.mean((0, 1)), atol=1e-4)
  np.testing.assert_allclose(summary['pixels'], mask.mean(-1), atol=1e-4)


class Smooth(nn.Module):
  """A convolution and tanh in float64."""

  width: int
  zero: bool = False

  @nn.compact
  def __call__(self, x, train):
    del train
    kernel = nn.initializers.zeros if self.zero else nn.initializers.normal(0.5)
    bias = nn.initializers.normal(0.5)
    options = {'kernel_init': kernel, 'bias_init': bias}
    return nn.tanh(
      nn.Conv(self.width, (3, 3), param_dtype=jnp.float64, **options)(x)
    )


class Linear(nn.Module):
  """A classifier in float64."""

  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.Dense(3, param_dtype=jnp.float64)(x)


def smooth(blocks, zero=False):
  return Network(
    (
      *(Stage(f'group1.block{i}', Smooth(2)) for i in range(blocks)),
      Stage('group2.block', Smooth(3, zero)),
      Stage('pool', layers.Pool()),
      Stage('head', Linear()),
    )
  )


@pytest.fixture
def in_float64(recipe, batch):
  """A function that makes (phase, state, frozen, batches) in float64."""

  def loss(logits, batch):
    chosen = jax.nn.one_hot(batch['label'], 3, dtype=jnp.float64)
    return -(chosen * jax.nn.log_softmax(logits)).sum(-1)

  recipe = recipe._replace(task=recipe.task._replace(loss=loss))

  def make(name, zero=False, same=False, **arguments):
    teacher = model(smooth(2), 1, recipe)
    student = teacher if same else model(smooth(1, zero), 0, recipe)
    method = masked_layer.masked_layer(
      recipe, mask_optimizer=PLAIN, local_optimizer=PLAIN, **arguments
    )
    carry = start(method, {'student': student, 'teacher': teacher})
    (phase,) = (p for p in (make(carry) for make in method) if p.name == name)
    state, frozen = phase.init(jax.random.key(2), carry)
    image = jnp.asarray(batch['image'], jnp.float64)
    return phase, state, frozen, {'train': {**batch, 'image': image}}

  with jax.enable_x64(True):
    yield make


def slopes(phase, state, frozen, batches, role, names, metric):
  """Returns a directional derivative by the step, and by finite differences."""
  step, rng = step_of(phase), jax.random.key(3)
  after, _ = step(state, frozen, batches, rng)
  params = state.variables[role]['params']
  generator = np.random.default_rng(0)
  direction = {
    name: jax.tree.map(
      lambda x: jnp.asarray(generator.normal(size=x.shape)), tree
    )
    for name, tree in params.items()
    if name in names
  }

  def at(distance):
    new = {
      name: jax.tree.map(lambda x, d: x + distance * d, params[name], d)
      for name, d in direction.items()
    }
    variables = {
      **state.variables,
      role: graph.merge(state.variables[role], {'params': new}),
    }
    changed = state._replace(variables=variables)
    return step(changed, frozen, batches, rng)[1][metric]

  analytic = sum(
    float(jnp.vdot(old - new, d))
    for name in direction
    for old, new, d in zip(
      *(
        jax.tree.leaves(tree[name])
        for tree in (params, after.variables[role]['params'], direction)
      )
    )
  )
  return analytic, float(at(1e-5) - at(-1e-5)) / 2e-5


def test_the_gradient_of_the_masks_is_that_of_equation_5(in_float64):
  """It flows through the frozen later groups; the noise is constant here."""
  problem = in_float64('masks', zero=True, alpha=0.1)
  for name in ('group1', 'group2'):
    analytic, numeric = slopes(*problem, 'masks', (name,), 'loss')
    assert analytic == pytest.approx(numeric, rel=1e-6)


def test_no_gradient_flows_through_the_noise(in_float64):
  problem = in_float64('masks', alpha=0.0)
  analytic, numeric = slopes(*problem, 'masks', ('group1',), 'loss')
  assert abs(analytic - numeric) > 1e-3 * abs(numeric)
  analytic, numeric = slopes(*problem, 'masks', ('group2',), 'loss')
  assert analytic == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize('group_input', ['teacher', 'student'])
@pytest.mark.parametrize('distance', ['masked_l1', 'l2'])
def test_each_group_has_the_gradient_of_its_own_distance(
  distance, group_input, in_float64
):
  problem = in_float64('local', distance=distance, group_input=group_input)
  for name in ('group1', 'group2'):
    stages = (f'{name}.block0' if name == 'group1' else f'{name}.block',)
    derivatives = slopes(*problem, 'student', stages, f'distance/{name}')
    assert derivatives[0] == pytest.approx(derivatives[1], rel=1e-6)
  if group_input == 'student':  # Later groups give it no gradient.
    derivatives = slopes(*problem, 'student', ('group1.block0',), 'loss')
    assert abs(derivatives[0] - derivatives[1]) > 1e-3 * abs(derivatives[1])


@pytest.mark.parametrize('group_input', ['teacher', 'student'])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(
  group_input, in_float64
):
  phase, state, frozen, batches = in_float64(
    'local', same=True, group_input=group_input
  )
  after, metrics = step_of(phase)(state, frozen, batches, jax.random.key(0))
  assert metrics['loss'] == 0.0
  assert metrics['relative_l1/group2'] == 0.0
  assert_same(after.variables, state.variables)


def first_local_step(recipe, carry, batch, masks=None, **arguments):
  """Returns the metrics and the student after a step of plain SGD."""
  method = masked_layer.masked_layer(
    recipe, local_optimizer=PLAIN, mask_epochs=0.0, **arguments
  )
  started = start(method, carry)
  if masks is not None:
    started['masks'] = masks
  phase = method[1](started)
  state, frozen = phase.init(jax.random.key(0), started)
  after, metrics = step_of(phase)(
    state, frozen, {'train': batch}, jax.random.key(1)
  )
  return metrics, after.variables['student']


def test_distances_agree_with_a_direct_calculation(
  recipe, after_each, carry, batch
):
  """The groups read the teacher's features, and the masks are learned ones."""
  masks = after_each[2].carry['masks']
  values = noise.masks_of(masks.variables)
  image = {'image': batch['image']}
  teacher_features, _ = graph.run(*carry['teacher'], image)
  expected_losses = {'masked_l1': 0.0, 'l1': 0.0, 'l2': 0.0}
  relative = {}
  for start, stop, only in (
    ('image', 'group1', ['group1.conv1']),
    ('group1', 'group2', ['group2.conv1']),
  ):
    student_features, _ = graph.run(
      *carry['student'], {start: teacher_features[start]}, only=only, train=True
    )
    error = teacher_features[stop] - student_features[stop]
    weight = (1 - values[stop])[None]
    expected_losses['masked_l1'] += abs(weight * error).mean() / weight.mean()
    expected_losses['l1'] += abs(error).mean()
    expected_losses['l2'] += (error**2).mean()
    relative[stop] = abs(error).mean() / abs(teacher_features[stop]).mean()
  for distance, expected in expected_losses.items():
    metrics, _ = first_local_step(
      recipe, carry, batch, masks, distance=distance
    )
    np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)
    for stop, value in relative.items():
      np.testing.assert_allclose(
        metrics[f'relative_l1/{stop}'], value, rtol=1e-5
      )


def test_constant_masks_give_the_plain_l1_distance(recipe, carry, batch):
  plain = first_local_step(recipe, carry, batch, distance='l1')
  masked = first_local_step(recipe, carry, batch, mask_value=0.75)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    *(plain, masked),
  )


def test_with_masks_of_one_the_groups_learn_nothing(recipe, carry, batch):
  metrics, end = first_local_step(recipe, carry, batch, mask_value=1.0)
  before = start(masked_layer.masked_layer(recipe), carry)['student'].variables
  assert metrics['loss'] == 0.0
  assert_same(end['params'], before['params'])


def test_the_first_group_reads_the_image_whatever_the_group_input(
  recipe, carry, batch
):
  """This holds for a single group, and for the first of two groups."""
  cut = (('group2', 'group2'),)
  ends = [
    first_local_step(recipe, carry, batch, group_input=x, cut=cut)[1]
    for x in ('teacher', 'student')
  ]
  assert_same(*ends)
  fed_by_teacher, fed_by_student = (
    first_local_step(recipe, carry, batch, group_input=x)[1]['params']
    for x in ('teacher', 'student')
  )
  assert_same(fed_by_teacher['group1.conv1'], fed_by_student['group1.conv1'])
  kernels = (
    x['group2.conv1']['conv']['kernel']
    for x in (fed_by_teacher, fed_by_student)
  )
  assert (next(kernels) != next(kernels)).any()


@pytest.fixture(scope='module')
def residual(recipe):
  """Both networks have one block; the student's kernels are all one."""
  stages = (
    Stage('stem', layers.ConvUnit(3)),
    Stage('group1.block1', resnet.BasicBlock(3)),
    *tiny(1).stages[-2:],
  )
  teacher = model(Network(stages), 1, recipe)
  ones = initial.normal(mean=1.0, std=0.0)(jax.random.key(0), teacher.variables)
  return {'student': Model(teacher.network, ones), 'teacher': teacher}


def test_equal_kernels_become_different_only_at_a_breakpoint(
  residual, recipe, batch
):
  """Inside a block all channels have the same gradient, whatever the masks."""

  def spread(kernel):
    return float(jnp.ptp(kernel, axis=-1).max())

  _, end = first_local_step(recipe, residual, batch, breakpoints='blocks')
  block = end['params']['group1.block1']
  assert spread(block['conv2']['kernel']) > 1e-3
  assert spread(block['conv1']['kernel']) < 1e-5
  _, end = first_local_step(recipe, residual, batch, breakpoints='layers')
  assert spread(end['params']['group1.block1.conv1']['conv']['kernel']) > 1e-3


def test_splitting_into_layers_does_not_change_the_outputs(
  residual, recipe, batch
):
  """Noise at a breakpoint also reaches the shortcut after it."""
  method = masked_layer.masked_layer(
    recipe, breakpoints='layers', mask_value=1.0, copy_head=False
  )
  started = start(method, residual)
  assert 'group1.block1.conv2' in graph.stage_names(started['student'].network)
  for role, whole in residual.items():
    np.testing.assert_allclose(
      graph.apply(*started[role], batch['image']),
      graph.apply(*whole, batch['image']),
      rtol=1e-5,
      atol=1e-6,
    )
  phase = method[1](started)
  state, frozen = phase.init(jax.random.key(0), started)
  masks = state.variables['masks']
  zeros = jax.tree.map(jnp.zeros_like, masks['params']['stem'])
  open_stem = graph.merge(masks, {'params': {'stem': zeros}})
  noised = phase.eval_models['noised'](
    state._replace(variables={'masks': open_stem}), frozen
  )
  image = {'image': batch['image']}
  n, a = (
    graph.run(*started[r], image, only=['stem'], train=r == 'student')[0]
    for r in ('student', 'teacher')
  )
  later_stages = graph.stage_names(residual['teacher'].network)[1:]
  h = {'stem': a['stem'] + n['stem']}
  expected, _ = graph.run(*residual['teacher'], h, only=later_stages)
  np.testing.assert_allclose(
    graph.apply(*noised, batch['image']), expected['head'], rtol=1e-4, atol=1e-5
  )


def test_distances_without_masks_skip_the_mask_phase(recipe, carry):
  for distance in ('l1', 'l2'):
    method = masked_layer.masked_layer(recipe, distance=distance)
    phases = [make(start(method[:1], carry)).name for make in method]
    assert phases == [
      *('start', 'local', 'local_statistics', 'keep_layers', 'refinery'),
    ]


def after(count):
  """Returns a function that returns True from its call number `count` on."""
  calls = iter(range(10**6))
  return lambda: next(calls) >= count


def resumed(method, carry, dataset, count, path):
  """Returns the result of a run that was stopped at a step and resumed."""
  with pytest.raises(loop.Interrupted):
    stops = SILENT._replace(interrupted=after(count), directory=str(path))
    loop.fit(method, carry, dataset, options=stops)
  options = SILENT._replace(directory=str(path))
  return loop.fit(method, carry, dataset, options=options)


@pytest.mark.parametrize('index', [1, 3, 5], ids=['masks', 'statistics', 'kd'])
def test_a_resumed_phase_ends_with_the_same_bits(
  index, method, dataset, after_each, tmp_path
):
  phase, before = method[index : index + 1], after_each[index].carry
  resumed_run = resumed(phase, before, dataset, 1, tmp_path)
  whole = after_each[index + 1]
  for role in ('student', 'masks'):
    assert_same(resumed_run.carry[role].variables, whole.carry[role].variables)
  assert resumed_run.reports == whole.reports


def test_a_resumed_run_uses_the_saved_masks(method, carry, dataset, tmp_path):
  """The masks take steps 1 to 4, and the groups steps 5 to 12."""
  resumed_run = resumed(method[:3], carry, dataset, 7, tmp_path)
  whole = loop.fit(method[:3], carry, dataset, options=SILENT)
  assert resumed_run.steps == whole.steps == 12
  for role in ('student', 'masks'):
    assert_same(resumed_run.carry[role].variables, whole.carry[role].variables)
  assert resumed_run.reports == whole.reports


def test_a_deeper_student_learns_from_a_shallower_teacher(carry, recipe, batch):
  swapped = {'student': carry['teacher'], 'teacher': carry['student']}
  metrics, end = first_local_step(recipe, swapped, batch)
  before = swapped['student'].variables['params']
  for stage in ('group1.conv1', 'group1.conv2', 'group2.conv1'):
    kernels = (x[stage]['conv']['kernel'] for x in (end['params'], before))
    assert (next(kernels) != next(kernels)).any()
  assert {k for k in metrics if k.startswith('distance')} == {
    *('distance/group1', 'distance/group2'),
  }


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'alpha': -1e-3}, 'alpha: expected a number in [0, 1e+09], got -0.001'),
    (
      {'alpha': float('nan')},
      'alpha: expected a number in [0, 1e+09], got nan',
    ),
    ({'mask_value': 1.5}, 'mask_value: expected a number in [0, 1], got 1.5'),
    (
      {'statistics_steps': -1},
      'statistics_steps: expected a whole number of at least 0, got -1',
    ),
    ({'statistics_steps': 2.5}, 'of at least 0, got 2.5'),
    ({'local_epochs': -1}, 'local_epochs: expected a number of at least 0'),
    ({'distance': 'l3'}, "unknown distance 'l3'"),
    ({'group_input': 'both'}, "unknown group_input 'both'"),
    ({'breakpoints': 'all'}, "unknown breakpoints 'all'"),
    ({'cut': ()}, 'cut: expected at least one breakpoint'),
    ({'cut': (('group1', 'group9'),)}, "unknown teacher feature 'group9'"),
    (
      {'cut': (('group1', 'group2'),)},
      "cut: expected equal shapes, got (8, 8, 3) for 'group1' of the student "
      "and (4, 4, 4) for 'group2' of the teacher",
    ),
    ({'cut': SHARED[::-1]}, "'group1' is not computed after 'group2'"),
    ({'cut': (('group1.pre', 'group1.pre'),)}, "stage or group 'group1.pre'"),
    ({'cut': (('head', 'head'),)}, "got 'head', the end of the student"),
  ],
)
def test_invalid_arguments_are_refused(arguments, words, recipe, carry):
  with pytest.raises(UsageError) as caught:
    masked_layer.masked_layer(recipe, **arguments)[0](carry)
  assert words in str(caught.value)


def test_a_teacher_of_other_widths_or_groups_is_refused(recipe, carry):
  wide = {**carry, 'teacher': model(tiny(2, last=5), 1, recipe)}
  with pytest.raises(
    UsageError, match=r"got \(4, 4, 4\) for 'group2' of the .* \(4, 4, 5"
  ):
    masked_layer.masked_layer(recipe)[0](wide)
  more = NETWORKS['resnet8'](num_classes=3, widths=(3, 4, 4), stem_width=3)
  other = {**carry, 'teacher': model(more, 1, recipe)}
  with pytest.raises(UsageError, match='the teacher stem, group1, group2, gr'):
    masked_layer.masked_layer(recipe)[0](other)
