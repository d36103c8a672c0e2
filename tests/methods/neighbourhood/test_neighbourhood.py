"""Neighbourhood Distillation: each part by itself, and all parts at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.neighbourhood import method as neighbourhood
from jaxdistill.methods.neighbourhood import piece_phases
from jaxdistill.methods.neighbourhood.plan import Plan, train_recipe
from jaxdistill.networks import graph
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
PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)


@pytest.fixture(scope='module')
def one_step(recipe, carry, batch, plan_of, take_steps):
  """A step of plain SGD at rate 1 that looks two parts ahead."""
  plan = plan_of(recipe, look_ahead=(0.5, 0.25))
  phase = piece_phases.train_phase(plan, carry, ('student',))
  return take_steps(phase, carry, {'train': batch})


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
  one_step, carry, batch, assert_close
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
    assert_close(change, jax.tree.map(lambda g: -g, gradient))
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
  recipe, carry, batch, take_steps, assert_close
):
  """This holds with momentum and weight decay; the others stay as they are."""
  options = {'momentum': 0.9, 'weight_decay': 1e-2}
  recipe = recipe._replace(
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1), **options)
  )
  plan = Plan(recipe)
  phase = piece_phases.train_phase(plan, carry, ('student',))
  start, together, _ = take_steps(phase, carry, {'train': batch}, count=3)
  for name in BLOCKS:
    phase = piece_phases.train_phase(plan, carry, ('student',), name)
    before, after, _ = take_steps(phase, carry, {'train': batch}, count=3)
    assert set(before.optimizer[2][0].trace['student']) == {name}
    for collection, expected in together.variables['student'].items():
      trained = after.variables['student'][collection]
      assert_close(trained.get(name), expected.get(name))
      for other in set(trained) - {name}:
        initial = start.variables['student'][collection][other]
        assert_close(trained[other], initial, rtol=0, atol=0)


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


def test_the_student_is_kept_before_each_further_phase(
  fitted, carry, assert_close
):
  kept = fitted.carry
  assert set(kept) == {'student', 'teacher', 'distilled', 'reestimated'}
  params = [kept[k].variables['params'] for k in ('distilled', 'reestimated')]
  assert_close(*params, rtol=0, atol=0)
  stats = [
    kept[k].variables['batch_stats'] for k in ('distilled', 'reestimated')
  ]
  gap = jax.tree.map(lambda a, b: float(abs(a - b).max()), *stats)
  assert max(jax.tree.leaves(gap)) > 1e-3
  heads = [
    kept[k].variables['params']['head'] for k in ('distilled', 'teacher')
  ]
  assert_close(*heads, rtol=0, atol=0)
  tuned = kept['student'].variables['params']['head']['linear']['kernel']
  assert (tuned != heads[0]['linear']['kernel']).any()
  assert kept['teacher'] is carry['teacher']


def test_parts_of_layers_begin_with_the_teachers_weights(
  recipe, carry, dataset, whole, assert_close
):
  """Both are split into layers; at rate 1e-12 the student stays the teacher."""
  same = {**carry, 'student': whole}
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
  assert_close(
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
def test_invalid_choices_are_refused(recipe, carry, arguments, message, whole):
  method = neighbourhood.neighbourhood(recipe, **arguments)
  with pytest.raises(UsageError, match=message):
    method[0]({**carry, 'student': whole})


def test_parts_with_other_numbers_of_stages_copy_nothing(
  recipe, carry, network, plan_of, assert_close
):
  """The student's first group has two blocks, that of the teacher has one."""
  extra = Stage('group1.block2', resnet.BasicBlock(3))
  stages = network(2, 1).stages
  deeper = Network((*stages[:2], extra, *stages[2:]))
  image = {'image': recipe.example['image']}
  new_variables = graph.init(deeper, jax.random.key(0), image)
  cut = tuple((name, name) for name in ('stem', 'group1', 'group2'))
  phase = piece_phases.compose_phase(
    plan_of(recipe, cut=cut),
    carry,
    lambda rng, carry: {'student': Model(deeper, new_variables)},
    from_teacher=('student',),
  )
  state, _ = phase.init(jax.random.key(0), carry)
  composed, teacher_variables = state['student'], carry['teacher'].variables
  assert_close(
    composed['params'][BLOCKS[0]],
    new_variables['params'][BLOCKS[0]],
    rtol=0,
    atol=0,
  )
  assert_close(
    composed['params'][BLOCKS[1]]['norm2'],
    teacher_variables['params'][BLOCKS[1]]['norm2'],
    rtol=0,
    atol=0,
  )


def test_any_method_can_begin_with_the_teachers_variables(
  recipe, carry, assert_close
):
  """They are copied where shapes agree: everywhere but in narrow layers."""
  method = neighbourhood.from_teacher(recipe, method=joint.supervised(recipe))
  phase = method[0](carry)
  state, _ = phase.init(jax.random.key(0), carry)
  student_params = state['student']['params']
  teacher_params = carry['teacher'].variables['params']
  assert_close(student_params['stem'], teacher_params['stem'], rtol=0, atol=0)
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
