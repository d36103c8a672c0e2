"""SSKD: what moves in each stage, what it is looked at through, its rivals."""

import functools
import itertools

import jax
import numpy as np
import pytest

from jaxdistill import optimizers, recipes
from jaxdistill.data import arrays
from jaxdistill.methods import joint, sskd
from jaxdistill.networks import NETWORKS, layers, staged, vgg, vit
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))
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
  return recipes.recipe(
    dataset, classification.classification(), epochs=4, batch_size=8
  )


def model(network, seed, recipe):
  image = {'image': recipe.example['image']}
  return Model(network, staged.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='module')
def carry(recipe):
  return {
    'student': model(tiny(2, 2, 4), 0, recipe),
    'teacher': model(tiny(2, 2, 4), 1, recipe),
  }


@pytest.fixture(scope='module')
def unlike(carry, recipe):
  """A teacher of other channels, and of maps twice as large at the end."""
  return {**carry, 'teacher': model(tiny(3, 3, 5, pool=False), 1, recipe)}


@pytest.fixture(scope='module')
def after_each(recipe, carry, dataset):
  """What the student is before, and after each phase, of three stages."""
  method = sskd.sskd(recipe, cut=THREE, statistics_steps=3)
  found, now = [carry], carry
  for phase in method:
    now = loop.fit((phase,), now, dataset, options=SILENT).carry
    found.append(now)
  return found


def _moved(before, after, collection='params'):
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


def test_a_stage_moves_its_own_parameters_alone(after_each):
  steps = [_moved(a, b) for a, b in itertools.pairwise(after_each)]
  # Each stage is followed by the phase of its statistics.
  assert steps[0::2] == [{s} for s in STAGES] + [{'head'}]
  assert steps[1::2] == [set()] * 3


def test_a_stages_statistics_move_while_it_trains_and_when_it_ends(after_each):
  steps = [
    _moved(a, b, 'batch_stats') for a, b in itertools.pairwise(after_each)
  ]
  assert steps[0::2] == [{s} for s in STAGES] + [set()]
  assert steps[1::2] == [{s} for s in STAGES]


def test_the_teacher_does_not_move(after_each, carry):
  assert set(after_each[-1]) == {'student', 'teacher'}
  jax.tree.map(
    np.testing.assert_array_equal,
    after_each[-1]['teacher'].variables,
    carry['teacher'].variables,
  )


def test_the_epochs_are_shared_equally_unless_given(recipe, carry):
  """The recipe's four epochs are 16 steps."""

  def steps(method):
    return [phase(carry).num_steps for phase in method]

  assert steps(sskd.sskd(recipe, cut=THREE)) == [4, 200, 4, 200, 4, 200, 4]
  assert steps(sskd.multi_loss(recipe, cut=THREE)) == [12, 200, 4]
  given = {'stage_epochs': 2.0, 'statistics_steps': 3}
  assert steps(sskd.sskd(recipe, cut=THREE[1:], **given)) == [8, 3, 8, 3, 5]


def test_stages_and_head_have_the_papers_rates(recipe, carry, batch):
  """0.01 and 0.1, a tenth behind 0.3 of the phase; the first step is -rate
  times the gradient and the decayed parameters."""
  whole = recipe._replace(epochs=10.0, steps_per_epoch=4)
  options = {'cut': THREE[:1], 'stage_epochs': 10.0, 'head_epochs': 10.0}
  method = sskd.sskd(whole, **options)
  plain = sskd.sskd(
    whole, **options, stage_optimizer=PLAIN, head_optimizer=PLAIN
  )
  for index, rate, decay in ((0, 0.01, 5e-4), (2, 0.1, 1e-4)):
    changes = []
    for of in (method, plain):
      _, change = _loss_and_gradient(of[index:], carry, batch)
      changes.append(change)
    name = 'stem' if index == 0 else 'head'
    before = carry['student'].variables['params'][name]
    jax.tree.map(
      lambda ours, slope, p, r=rate, d=decay: np.testing.assert_allclose(
        ours, r * (slope - d * p), rtol=1e-3, atol=1e-7
      ),
      changes[0][name],
      changes[1][name],
      before,
    )


def test_one_stage_is_multi_loss(recipe, carry, dataset):
  options = {'num_stages': 1, 'statistics_steps': 2}
  ends = [
    loop.fit(make(recipe, **options), carry, dataset, options=SILENT).carry
    for make in (sskd.sskd, sskd.multi_loss)
  ]
  jax.tree.map(
    np.testing.assert_array_equal,
    *(end['student'].variables for end in ends),
  )


def _loss_and_gradient(method, carry, batch):
  """The first phase's loss, and the change of its first plain SGD step."""
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


def test_the_first_stage_is_a_neighbourhoods_problem(recipe, carry, batch):
  """Its loss is the mean of squares but for the number of channels, 2."""
  by = {}
  for reduction in ('mean', 'position_mean'):
    method = sskd.sskd(
      recipe, cut=THREE, stage_optimizer=PLAIN, reduction=reduction
    )
    by[reduction] = _loss_and_gradient(method, carry, batch)
  (mean, slope), (total, slopes) = by['mean'], by['position_mean']
  np.testing.assert_allclose(2 * mean['loss'], total['loss'], rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-4, atol=1e-6),
    slope['stem'],
    slopes['stem'],
  )
  # By hand: the teacher in inference mode, the student with the batch's norm.
  image = {'image': batch['image']}
  theirs, _ = staged.run(*carry['teacher'], image, only=['stem'])

  def neighbourhood(params):
    variables = staged.merge(
      carry['student'].variables, {'params': {'stem': params}}
    )
    network = carry['student'].network
    ours, _ = staged.run(network, variables, image, only=['stem'], train=True)
    return ((ours['stem'] - theirs['stem']) ** 2).mean()

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


def test_what_is_done_is_in_inference_mode(after_each, recipe, batch):
  """Its statistics are not those of the batch; those of the stage are."""
  network, variables = after_each[2]['student']
  shifted = jax.tree.map(
    lambda x: x + 0.5, staged.select(variables, ['stem'])['batch_stats']
  )
  variables = staged.merge(variables, {'batch_stats': shifted})
  carry = {**after_each[2], 'student': Model(network, variables)}
  image = {'image': batch['image']}
  method = sskd.sskd(recipe, cut=THREE, stage_optimizer=PLAIN)
  metrics, _ = _loss_and_gradient(method[2:], carry, batch)
  theirs, _ = staged.run(*carry['teacher'], image)
  by_hand = {}
  for mode, train in (('done', ['group1.conv1']), ('all', True)):
    ours, _ = staged.run(*carry['student'], image, train=train)
    error = (ours['group1'] - theirs['group1']) ** 2
    by_hand[mode] = float(error.sum(-1).mean())
  np.testing.assert_allclose(metrics['loss'], by_hand['done'], rtol=1e-5)
  assert abs(by_hand['all'] - by_hand['done']) > 1e-3 * by_hand['done']


def test_the_head_sees_the_backbone_in_inference_mode(
  after_each, recipe, batch
):
  carry = after_each[-2]
  metrics, _ = _loss_and_gradient(
    sskd.sskd(recipe, cut=THREE)[-1:], carry, batch
  )
  logits = staged.apply(*carry['student'], batch['image'])
  expected = recipe.task.loss(logits, batch).mean()
  np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)


def test_all_losses_are_summed_in_multi_loss(recipe, carry, batch):
  metrics, change = _loss_and_gradient(
    sskd.multi_loss(recipe, cut=THREE, stage_optimizer=PLAIN), carry, batch
  )
  parts = [metrics[f'distance/{s}'] for s, _ in THREE]
  np.testing.assert_allclose(metrics['loss'], sum(parts), rtol=1e-6)
  assert (change['head']['linear']['kernel'] == 0).all()
  assert (change['stem']['conv']['kernel'] != 0).any()


def test_another_teacher_is_matched_behind_an_adapter(unlike, recipe, dataset):
  """The deepest stage has half the size and other channels."""
  method = sskd.sskd(
    recipe._replace(epochs=12), num_stages=1, statistics_steps=0
  )
  phase = method[0](unlike)
  state, frozen = phase.init(jax.random.key(0), unlike)
  assert set(state.variables['helpers']['params']) == {'adapter0'}
  # A random one pushes what is before it to zero.
  adapter = state.variables['helpers']['params']['adapter0']['conv']
  assert not np.any(adapter['kernel'])
  seen = phase.views['partial'](state, frozen)
  names = staged.stage_names(seen.network)
  # The adapter stands between the student and the teacher's own end.
  assert names[-3:] == ('adapter0', 'pool', 'head')
  image = recipe.example['image']
  logits = staged.apply(*seen, np.zeros(image.shape, np.float32))
  assert logits.shape == (8, 3)
  end = loop.fit(method, unlike, dataset, options=SILENT)
  assert set(end.carry) == {'student', 'teacher'}
  for tree in end.carry['student'].variables.values():
    assert 'adapter0' not in tree


def test_a_partial_student_equal_to_its_teacher_answers_like_it(
  recipe, carry, batch
):
  same = {**carry, 'student': carry['teacher']}
  for phase in sskd.sskd(recipe, cut=THREE)[:-1:2]:
    made = phase(same)
    state, frozen = made.init(jax.random.key(0), same)
    seen = made.views['partial'](state, frozen)
    np.testing.assert_array_equal(
      staged.apply(*seen, batch['image']),
      staged.apply(*same['teacher'], batch['image']),
    )


def test_a_trained_network_gets_a_new_classifier(recipe, carry, dataset):
  method = sskd.fixed_backbone(recipe, method=joint.supervised(recipe))
  whole = loop.fit(method[:1], carry, dataset, options=SILENT).carry
  renewed = loop.fit(method[1:2], whole, dataset, options=SILENT).carry
  assert _moved(whole, renewed) == {'head'}
  end = loop.fit(method[2:], renewed, dataset, options=SILENT).carry
  assert _moved(renewed, end) == {'head'}
  assert _moved(renewed, end, 'batch_stats') == set()


def _after(count):
  asked = iter(range(10**6))
  return lambda: next(asked) >= count


@pytest.mark.parametrize(
  ('stage', 'plateau'), [(3, False), (1, True)], ids=['stage 3', 'plateau']
)
def test_a_run_resumes_bit_for_bit(
  stage, plateau, recipe, unlike, dataset, tmp_path
):
  schedule = optimizers.step(rate=0.01)
  if plateau:  # of two epochs in vain, at 0.02 and at 0.01
    schedule = optimizers.plateau(
      rate=0.02, factor=0.5, patience=1, window=4, final=0.01, threshold=0.9
    )
  method = sskd.sskd(
    recipe,
    cut=THREE,
    stage_epochs=10.0 if plateau else 2.0,
    head_epochs=1.0,
    stage_optimizer=optimizers.sgd(schedule),
    statistics_steps=2,
  )[: 2 * stage]
  whole = loop.fit(method, unlike, dataset, options=SILENT)
  # A stage is 8 steps and 2 for its statistics; a plateau 3 epochs of 4.
  assert whole.steps == (14 if plateau else 30)
  with pytest.raises(loop.Interrupted):
    # Behind the first reduction, which is at step 8; in the third stage.
    stops = SILENT._replace(interrupted=_after(9 if plateau else 24))
    stops = stops._replace(directory=str(tmp_path))
    loop.fit(method, unlike, dataset, options=stops)
  options = SILENT._replace(directory=str(tmp_path))
  again = loop.fit(method, unlike, dataset, options=options)
  assert again.steps == whole.steps
  jax.tree.map(
    np.testing.assert_array_equal,
    again.carry['student'].variables,
    whole.carry['student'].variables,
  )


def test_an_early_stage_costs_a_small_part_of_a_step_of_kd(recipe):
  """Nothing behind the stage is there, and no gradient in front of it."""
  image = jax.ShapeDtypeStruct((8, 32, 32, 3), np.float32)
  recipe = recipe._replace(example={**recipe.example, 'image': image})
  kinds = {'student': 'resnet20', 'teacher': 'resnet56'}
  carry = {}
  for role, kind in kinds.items():
    network = NETWORKS[kind](num_classes=3)
    carry[role] = Model(
      network, staged.variable_shapes(network, {'image': image})
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
  assert cost(sskd.sskd(recipe)) < 0.4 * whole
  # The teacher and no backward pass in front of the third of the student:
  # 126 + 28 + 3 * 13 million multiply-adds of KD's 126 + 3 * 41.
  assert cost(sskd.sskd(recipe)[4:]) < 0.85 * whole


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'cut': (('stem', 'group7'),)}, "teacher feature 'group7'"),
    ({'cut': (('group7', 'stem'),)}, "student feature 'group7'"),
    (
      {'cut': (('group1', 'stem'), ('stem', 'group1'))},
      "of the student, feature 'stem' is not computed after 'group1'",
    ),
    (
      {'cut': (('stem', 'group2'), ('group1', 'group1'))},
      "of the teacher, feature 'group1' is not computed after 'group2'",
    ),
    ({'cut': (('group2.pre', 'group2'),)}, "boundary between stages 'group2.p"),
    ({'cut': (('head', 'head'),)}, 'no head is left'),
    ({'cut': ()}, 'at least one'),
    ({'num_stages': 4}, 'num_stages: 4; the student has 2 groups of maps'),
    ({'num_stages': 0}, 'num_stages: 0 is below 1'),
    ({'num_stages': -1}, 'num_stages: -1 is below 1'),
    ({'cut': (('stem',),)}, "('stem',) is no pair"),
    ({'reduction': 'max'}, "unknown reduction 'max'"),
  ],
)
def test_wrong_boundaries_are_refused(arguments, words, recipe, carry):
  with pytest.raises(UsageError) as caught:
    sskd.sskd(recipe, **arguments)[0](carry)
  assert words in str(caught.value)


def test_a_teacher_with_fewer_stages_is_refused(recipe, carry):
  stages = tiny(2, 2, 4).stages
  shallow = Network((*stages[:2], *stages[3:]))
  carry = {**carry, 'teacher': model(shallow, 0, recipe)}
  with pytest.raises(UsageError, match='and the teacher 1: choose 1 to 1'):
    sskd.sskd(recipe, num_stages=2)[0](carry)


def test_tokens_of_another_width_are_refused(recipe, carry):
  networks = {
    role: vit.vit(width, 2, 1, num_classes=3, patch=4)
    for role, width in (('student', 4), ('teacher', 8))
  }
  carry = {k: model(v, 0, recipe) for k, v in networks.items()}
  cut = ((staged.stage_names(networks['student'])[-3],) * 2,)
  with pytest.raises(UsageError, match='only maps and vectors'):
    sskd.sskd(recipe, cut=cut)[0](carry)
