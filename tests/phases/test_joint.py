"""Supervised training, and methods of one phase that add loss terms to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.phases import joint

RNG = jax.random.key(0)


def linear_network(num_classes=3) -> Network:
  return Network(
    (
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def linear_model(batch, seed, num_classes=3) -> Model:
  network = linear_network(num_classes)
  image = {'image': batch['image']}
  return Model(network, graph.init(network, jax.random.key(seed), image))


def assert_same(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


def take_steps(method, carry, batch, count):
  """Returns (phase, states before and after each step, frozen, metrics)."""
  phase = method[0](carry)
  state, frozen = phase.init(RNG, carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  states, history = [state], []
  for _ in range(count):
    state, metrics = step(state, frozen, {'train': batch}, RNG)
    states.append(state)
    history.append({k: float(v) for k, v in metrics.items()})
  return phase, states, frozen, history


def deep_model(width, seed, batch) -> Model:
  stages = (
    Stage('stem', layers.ConvUnit(width)),
    Stage('middle', layers.ConvUnit(width, stride=2)),
  )
  network = Network((*stages, *linear_network().stages))
  image = {'image': batch['image']}
  return Model(network, graph.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='module')
def pair(batch):
  return {
    'student': deep_model(2, 0, batch),
    'teacher': deep_model(3, 1, batch),
  }


@pytest.fixture(scope='module')
def trained(pair, recipe, batch):
  """Three steps of each method on one batch."""
  methods = {
    'supervised': joint.supervised(recipe),
    'kd': joint.kd(recipe, weight=0.9, label_weight=0.1),
    'labels only': joint.kd(recipe, weight=0.0, label_weight=1.0),
  }
  return {k: take_steps(m, pair, batch, 3) for k, m in methods.items()}


@pytest.mark.parametrize('name', ['supervised', 'kd'])
def test_each_step_lowers_the_loss_on_a_fixed_batch(trained, name):
  losses = [metrics['loss'] for metrics in trained[name][-1]]
  assert losses[2] < losses[1] < losses[0]


def test_the_teacher_never_changes(trained, pair):
  teacher = pair['teacher']
  phase, states, frozen, _ = trained['kd']
  assert set(states[-1].variables) == {'student'}
  assert_same(frozen['teacher'], teacher.variables)
  carry = {'student': None, 'teacher': teacher}
  assert phase.finish(states[-1], frozen, carry)['teacher'] is teacher


def test_all_of_the_student_changes(trained, pair):
  changed = jax.tree.map(
    lambda a, b: not np.array_equal(a, b),
    trained['kd'][1][-1].variables['student'],
    pair['student'].variables,
  )
  assert all(jax.tree.leaves(changed))


def test_kd_with_weight_zero_equals_supervised_training(trained):
  # They agree up to rounding, because the compiler may fuse operations
  # differently.
  for value, expected in zip(
    jax.tree.leaves(trained['labels only'][1][-1].variables),
    jax.tree.leaves(trained['supervised'][1][-1].variables),
    strict=True,
  ):
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_the_metrics_are_the_loss_the_score_and_each_term(trained):
  assert set(trained['supervised'][-1][0]) == {'loss', 'top1'}
  metrics = trained['kd'][-1][0]
  assert set(metrics) == {'loss', 'top1', 'kd'}
  labels = trained['supervised'][-1][0]['loss']
  expected = 0.1 * labels + 0.9 * metrics['kd']
  assert metrics['loss'] == pytest.approx(expected, rel=1e-5)


def softmax(logits):
  powers = np.exp(logits - logits.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def plain(recipe):
  """A recipe with SGD at rate 1, so that a step is minus the gradient."""
  schedule = optimizers.constant(rate=1.0)
  optimizer = optimizers.sgd(schedule, momentum=0.0, weight_decay=0.0)
  return recipe._replace(optimizer=optimizer)


def test_the_loss_and_gradient_agree_with_numpy(recipe, batch):
  """The loss is label_weight * CE + weight * T**2 * KL, of a linear student."""
  student_model, teacher_model = linear_model(batch, 0), linear_model(batch, 1)
  label_weight, weight, temperature = 0.3, 0.6, 2.5
  method = joint.kd(
    plain(recipe),
    label_weight=label_weight,
    weight=weight,
    temperature=temperature,
  )
  carry = {'student': student_model, 'teacher': teacher_model}
  _, states, _, metrics = take_steps(method, carry, batch, 1)

  x = np.asarray(batch['image'], np.float64).mean((1, 2))
  logits = []
  for model in (student_model, teacher_model):
    linear = model.variables['params']['head']['linear']
    kernel, bias = (
      np.asarray(linear[k], np.float64) for k in ('kernel', 'bias')
    )
    logits.append(x @ kernel + bias)
  student, teacher = logits
  label = np.eye(3)[np.asarray(batch['label'])]
  soft = [softmax(v / temperature) for v in (student, teacher)]
  cross_entropy = -(label * np.log(softmax(student))).sum(-1).mean()
  divergence = (soft[1] * np.log(soft[1] / soft[0])).sum(-1).mean()
  loss = label_weight * cross_entropy + weight * temperature**2 * divergence
  assert metrics[0]['loss'] == pytest.approx(loss, rel=1e-5)

  error = label_weight * (softmax(student) - label)
  error += weight * temperature * (soft[0] - soft[1])
  error /= len(x)
  old, new = (
    state.variables['student']['params']['head']['linear'] for state in states
  )
  np.testing.assert_allclose(
    np.asarray(new['kernel']) - old['kernel'], -x.T @ error, atol=1e-6
  )
  np.testing.assert_allclose(
    np.asarray(new['bias']) - old['bias'], -error.sum(0), atol=1e-6
  )


def test_different_numbers_of_classes_are_refused(recipe, batch):
  carry = {
    'student': linear_model(batch, 0),
    'teacher': linear_model(batch, 0, num_classes=4),
  }
  with pytest.raises(
    UsageError, match=r'student\'s \(3,\) and the teacher\'s \(4,\)'
  ):
    joint.kd(recipe)[0](carry)


def test_a_missing_role_is_reported(recipe, batch):
  carry = {'student': linear_model(batch, 0)}
  with pytest.raises(UsageError, match=r"role 'teacher'; there are student"):
    joint.kd(recipe)[0](carry)
  with pytest.raises(UsageError, match="role 'pupil'"):
    joint.supervised(recipe, student='pupil')[0](carry)


def test_roles_may_have_any_names(recipe, batch):
  """Here two steps of a chain of teacher assistants."""
  carry = {k: linear_model(batch, i) for i, k in enumerate(('t', 'a', 's'))}
  first = joint.kd(recipe, student='a', teacher='t')
  second = joint.kd(recipe, student='s', teacher='a')
  phase, states, frozen, _ = take_steps(first, carry, batch, 1)
  out = phase.finish(states[-1], frozen, carry)
  assert set(phase.eval_models) == {'a'}
  assert out['t'] is carry['t'] and out['s'] is carry['s']
  assert out['a'] is not carry['a']
  assert [len(m) for m in (first, second, first + second)] == [1, 1, 2]
  assert set((first + second)[1](out).eval_models) == {'s'}


def constant_term(value, **options):
  def loss(features, batch, models):
    return value * jnp.ones(len(batch['label']))

  return lambda pair: objectives.Term(loss, **options)


def test_the_weight_of_a_term_rises_linearly(recipe, batch):
  carry = {k: linear_model(batch, 0) for k in ('student', 'teacher')}
  assert recipe.num_steps == 6
  method = joint.joint(
    recipe,
    terms={
      'early': constant_term(1.0, weight=3.0, warmup=0.5),
      'now': constant_term(10.0),
    },
    label_weight=0.0,
  )
  _, _, _, metrics = take_steps(method, carry, batch, 6)
  # Over half of the 6 steps, the weight 3 rises by thirds.
  expected = [10 + w for w in (0, 1, 2, 3, 3, 3)]
  np.testing.assert_allclose([m['loss'] for m in metrics], expected, rtol=1e-6)
  # The value of a term is logged without its weight.
  assert {m['early'] for m in metrics} == {1.0}


def term_with_adapters(name, width=1, **options):
  """The squared difference of linear maps of both pooled features."""

  def make(pair):
    assert pair.student_shapes['pool'].shape == (8, 1)
    stages = tuple(
      Stage(f'{name}_{role}', layers.Classifier(width), (f'{role}/pool',))
      for role in ('student', 'teacher')
    )

    def loss(features, batch, models):
      assert set(models) == {'student', 'teacher'}
      difference = features[f'{name}_student'] - features[f'{name}_teacher']
      return (difference**2).sum(-1)

    return objectives.Term(loss, adapters=stages, **options)

  return make


def test_the_adapters_of_a_term_train_and_are_dropped(recipe, batch):
  carry = {k: linear_model(batch, 0) for k in ('student', 'teacher')}
  method = joint.joint(
    plain(recipe), terms={'own': term_with_adapters('map')}, label_weight=0.0
  )
  phase, states, frozen, metrics = take_steps(method, carry, batch, 1)
  old, new = (s.variables['adapters']['params'] for s in states)
  assert set(new) == {'map_student', 'map_teacher'}
  x = np.asarray(batch['image'], np.float64).mean((1, 2))
  weights = {
    role: {
      k: np.asarray(v, np.float64)
      for k, v in old[f'map_{role}']['linear'].items()
    }
    for role in ('student', 'teacher')
  }
  student_output, teacher_output = (
    x @ weights[r]['kernel'] + weights[r]['bias']
    for r in ('student', 'teacher')
  )
  assert metrics[0]['own'] == pytest.approx(
    ((student_output - teacher_output) ** 2).mean()
  )
  # d/dw of the mean of (x w - t)**2
  gradient = 2 * x.T @ (student_output - teacher_output) / len(x)
  kernel = np.asarray(new['map_student']['linear']['kernel'])
  np.testing.assert_allclose(
    kernel, weights['student']['kernel'] - gradient, atol=1e-6
  )
  # Pooling has no parameters, so the student itself does not change.
  assert_same(states[1].variables['student'], states[0].variables['student'])
  assert set(phase.finish(states[-1], frozen, carry)) == set(carry)


def test_two_terms_have_separate_adapters(recipe, batch):
  carry = {k: linear_model(batch, 0) for k in ('student', 'teacher')}
  both = {
    'a': term_with_adapters('one'),
    'b': term_with_adapters('two', width=2),
  }
  phase = joint.joint(recipe, terms=both)[0](carry)
  state, _ = phase.init(RNG, carry)
  assert set(state.variables['adapters']['params']) == {
    f'{name}_{role}' for name in ('one', 'two') for role in carry
  }


def test_two_terms_with_adapters_of_the_same_name_are_refused(recipe, batch):
  carry = {k: linear_model(batch, 0) for k in ('student', 'teacher')}
  both = {'a': term_with_adapters('map'), 'b': term_with_adapters('map')}
  with pytest.raises(UsageError, match="'map_student'"):
    joint.joint(recipe, terms=both)[0](carry)


def test_a_term_that_reads_an_unknown_feature_is_refused(recipe, batch):
  carry = {k: linear_model(batch, 0) for k in ('student', 'teacher')}

  def make(pair):
    stage = Stage('map', layers.Classifier(1), ('student/pol',))
    return objectives.Term(lambda *a: jnp.zeros(()), adapters=(stage,))

  phase = joint.joint(recipe, terms={'x': make})[0](carry)
  with pytest.raises(UsageError, match="'map' reads 'student/pol'"):
    phase.init(RNG, carry)


def test_only_the_chosen_stages_train_and_use_batch_statistics(
  pair, recipe, batch
):
  student, names = pair['student'], ('middle', 'head')
  method = joint.joint(
    recipe,
    terms={'kd': objectives.kd(weight=0.9)},
    trainable=lambda pair: names,
  )
  _, states, _, metrics = take_steps(method, pair, batch, 1)
  new = states[-1].variables['student']
  assert_same(
    graph.select(new, ['stem']), graph.select(student.variables, ['stem'])
  )
  image = {'image': batch['image']}
  features, _ = graph.run(*student, image, only=['stem'])
  features, _ = graph.run(
    *student, features, only=('middle', 'pool', 'head'), train=True
  )
  loss = recipe.task.loss(features['head'], batch).mean()
  total = metrics[0]['loss'] - 0.9 * metrics[0]['kd']
  assert total == pytest.approx(float(loss), rel=1e-4)


def test_a_method_of_one_term_checks_the_arguments_of_the_term():
  with pytest.raises(TypeError, match='temprature'):
    joint.kd(None, temprature=3.0)
