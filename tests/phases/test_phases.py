"""Gradient, setup and statistics phases: what changes and what does not."""

import functools
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import phases
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers

TRAINED = ('group2.block1', 'head')
RNG = jax.random.key(0)


def assert_same(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


def all_changed(before, after) -> bool:
  return all(
    not np.array_equal(a, b)
    for a, b in zip(
      jax.tree.leaves(before), jax.tree.leaves(after), strict=True
    )
  )


def cross_entropy(logits, batch):
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch['label'])
  return loss.mean()


def loss_of(network, variables, batches, rng, progress):
  """All stages run in training mode, even those that do not train."""
  del rng, progress
  features, updates = graph.run(
    network,
    variables['student'],
    {'image': batches['train']['image']},
    train=True,
  )
  return cross_entropy(features['head'], batches['train']), (
    {'student': updates},
    {},
  )


@pytest.fixture(scope='module')
def partial(student, batch):
  """Three steps with weight decay in which two stages train."""
  phase = phases.gradient_phase(
    'partial',
    functools.partial(loss_of, student.network),
    optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05, 0.9)),
    num_steps=3,
    streams={},
    networks={'student': student.network},
    trainable={'student': TRAINED},
  )
  carry = {'student': student}
  state, frozen = phase.init(RNG, carry)
  # The state is donated, as it is by the training loop.
  step = jax.jit(lambda *a: phase.step(*a, static=None), donate_argnums=0)
  losses = []
  for _ in range(3):
    state, metrics = step(state, frozen, {'train': batch}, RNG)
    losses.append(float(metrics['loss']))
  return phase, state, frozen, carry, losses


def test_frozen_stages_do_not_change_by_a_bit(partial, student):
  _, state, _, _, _ = partial
  new = state.variables['student']
  constant = [
    name for name in graph.stage_names(student.network) if name not in TRAINED
  ]
  assert_same(
    graph.select(new, constant), graph.select(student.variables, constant)
  )


def test_parameters_and_statistics_of_trained_stages_change(partial, student):
  _, state, _, _, _ = partial
  new = graph.select(state.variables['student'], TRAINED)
  assert set(new) == {'params', 'batch_stats'}
  assert all_changed(new, graph.select(student.variables, TRAINED))


def test_the_optimizer_has_no_state_for_frozen_stages(partial, student):
  _, state, _, _, _ = partial
  trained = graph.select(student.variables, TRAINED)['params']
  leaves = [x for x in jax.tree.leaves(state.optimizer) if x.ndim]
  assert len(leaves) == len(jax.tree.leaves(trained))


def test_steps_lower_the_loss_on_a_fixed_batch(partial):
  losses = partial[-1]
  assert losses[2] < losses[1] < losses[0]


def test_the_arrays_of_the_carry_survive_donation(partial, student):
  _, _, _, carry, _ = partial
  for leaf in jax.tree.leaves(carry['student'].variables):
    assert not leaf.is_deleted()
  assert carry['student'] is student


def test_the_steps_taken_are_counted(partial):
  _, state, _, _, _ = partial
  assert (int(state.step), state.step.dtype) == (3, jnp.int32)


def test_finish_updates_the_trained_model_and_keeps_everything_else(partial):
  phase, state, frozen, carry, _ = partial
  masks = {'a': jnp.ones(2)}
  out = phase.finish(state, frozen, {**carry, 'masks': masks})
  assert set(out) == {'student', 'masks'}
  assert out['masks'] is masks
  assert out['student'].network == carry['student'].network
  assert_same(out['student'].variables, state.variables['student'])
  assert_same(
    phase.eval_models['student'](state, frozen).variables,
    out['student'].variables,
  )


def test_an_unknown_stage_to_train_is_refused(student):
  with pytest.raises(UsageError, match=r"'haed'; did you mean 'head'\?"):
    phases.gradient_phase(
      'x',
      functools.partial(loss_of, student.network),
      optax.sgd(0.1),
      num_steps=1,
      streams={},
      networks={'student': student.network},
      trainable={'student': ('haed',)},
    )


LINEAR = Network(
  (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))
)
ADAPTERS = Network(
  (
    Stage('norm', layers.NormPool('norm.pre'), ('student/image',)),
    Stage('map', layers.Classifier(2), ('norm',)),
  )
)


@pytest.fixture(scope='module')
def linear(batch):
  image = {'image': batch['image']}
  return Model(LINEAR, graph.init(LINEAR, jax.random.key(0), image))


@pytest.fixture(scope='module')
def with_adapters(linear, batch):
  """Four steps of a student and adapters with a constant teacher."""

  def loss_fn(variables, batches, rng, progress):
    image = {'image': batches['train']['image']}
    student_features, updates = graph.run(
      LINEAR, variables['student'], image, train=True
    )
    teacher_features, ignored_updates = graph.run(
      LINEAR, variables['teacher'], image, train=True
    )
    features = {'student/image': image['image']}
    adapted, changed = graph.run(
      ADAPTERS, variables['adapters'], features, train=True
    )
    loss = ((student_features['head'] - teacher_features['head']) ** 2).mean()
    loss += (adapted['map'] ** 2).mean()
    return loss, (
      {'student': updates, 'teacher': ignored_updates, 'adapters': changed},
      {'progress': progress, 'loss': jnp.zeros(())},
    )

  phase = phases.gradient_phase(
    'adapted',
    loss_fn,
    optax.sgd(0.1),
    num_steps=4,
    streams={},
    networks={'student': LINEAR, 'teacher': LINEAR},
    trainable={'student': None},
    adapters=(ADAPTERS, {'student/image': batch['image']}),
  )
  teacher = Model(LINEAR, jax.tree.map(lambda x: x + 1, linear.variables))
  carry = {'student': linear, 'teacher': teacher}
  first, frozen = phase.init(RNG, carry)
  step = jax.jit(lambda *a: phase.step(*a, static=None))
  states, metrics = [first], []
  for _ in range(4):
    state, step_metrics = step(states[-1], frozen, {'train': batch}, RNG)
    states.append(state)
    metrics.append(step_metrics)
  return phase, states, frozen, carry, metrics


def test_adapters_train_and_update_their_statistics(with_adapters):
  _, states, _, _, _ = with_adapters
  old, new = (s.variables['adapters'] for s in states[:2])
  assert set(old) == {'params', 'batch_stats'}
  assert all_changed(old, new)


def test_the_weights_of_adapters_depend_on_the_key(with_adapters):
  phase, states, _, carry, _ = with_adapters
  again, _ = phase.init(RNG, carry)
  assert_same(again.variables, states[0].variables)
  other, _ = phase.init(jax.random.key(9), carry)
  kernel = other.variables['adapters']['params']['map']['linear']['kernel']
  first = again.variables['adapters']['params']['map']['linear']['kernel']
  assert not np.array_equal(kernel, first)
  assert_same(other.variables['student'], again.variables['student'])


def test_adapters_are_neither_handed_on_nor_evaluated(with_adapters):
  phase, states, frozen, carry, _ = with_adapters
  assert set(phase.finish(states[-1], frozen, carry)) == {'student', 'teacher'}
  assert set(phase.eval_models) == {'student'}


def test_the_teacher_is_constant_and_handed_on_unchanged(with_adapters):
  phase, states, frozen, carry, _ = with_adapters
  assert set(states[-1].variables) == {'student', 'adapters'}
  assert frozen['teacher'] is carry['teacher'].variables
  out = phase.finish(states[-1], frozen, carry)
  assert out['teacher'] is carry['teacher']


def test_progress_is_the_fraction_of_steps_taken(with_adapters):
  metrics = with_adapters[-1]
  assert [float(m['progress']) for m in metrics] == [0, 0.25, 0.5, 0.75]


def test_a_metric_called_loss_does_not_replace_the_loss(with_adapters):
  assert all(m['loss'] > 0 for m in with_adapters[-1])


def test_a_step_applies_the_optimizer_to_the_gradient(linear, batch):
  """The step agrees with SGD in NumPy."""

  def loss_fn(variables, batches, rng, progress):
    features, _ = graph.run(
      LINEAR, variables['student'], {'image': batches['train']['image']}
    )
    return cross_entropy(features['head'], batches['train']), ({}, {})

  phase = phases.gradient_phase(
    'x',
    loss_fn,
    optax.sgd(0.5),
    num_steps=1,
    streams={},
    networks={'student': LINEAR},
    trainable={'student': None},
  )
  state, frozen = phase.init(RNG, {'student': linear})
  state, _ = phase.step(state, frozen, {'train': batch}, RNG, None)
  params = linear.variables['params']['head']['linear']
  old = {k: np.asarray(v, np.float64) for k, v in params.items()}
  x = np.asarray(batch['image'], np.float64).mean((1, 2))
  logits = x @ old['kernel'] + old['bias']
  probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  error = (probabilities - np.eye(3)[np.asarray(batch['label'])]) / len(x)
  new = state.variables['student']['params']['head']['linear']
  np.testing.assert_allclose(
    new['kernel'], old['kernel'] - 0.5 * x.T @ error, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    new['bias'], old['bias'] - 0.5 * error.sum(0), rtol=1e-5, atol=1e-6
  )


def test_the_optimizer_receives_the_loss(linear, batch):
  def loss_fn(variables, batches, rng, progress):
    del variables, batches, rng, progress
    return jnp.asarray(3.5), ({}, {})

  def update(updates, state, params=None, *, value, **extra):
    del params, extra
    return updates, value

  optimizer = optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros(()), update
  )
  phase = phases.gradient_phase(
    'x',
    loss_fn,
    optimizer,
    num_steps=1,
    streams={},
    networks={'student': LINEAR},
    trainable={'student': None},
  )
  state, frozen = phase.init(RNG, {'student': linear})
  state, _ = phase.step(state, frozen, {'train': batch}, RNG, None)
  assert float(state.optimizer) == 3.5


def test_a_setup_phase_takes_no_steps_and_adds_its_models(linear):
  phase = phases.setup_phase('new', lambda rng, carry: {'assistant': linear})
  assert (phase.num_steps, phase.streams) == (0, {})
  state, frozen = phase.init(RNG, {'student': linear})
  out = phase.finish(state, frozen, {'student': linear})
  assert out['student'] is linear
  assert out['assistant'].network == LINEAR
  assert_same(out['assistant'].variables, linear.variables)


def test_statistics_become_the_means_over_batches(student, dataset, recipe):
  """The momentum of batch norm is 0.9, so that statistics that start at zero
  become a tenth of those of the batch."""
  stages = ('group2.block1',)
  phase = phases.statistics_phase(
    'again',
    student.network,
    stages,
    role='student',
    num_steps=3,
    stream=recipe.stream,
  )
  carry = {'student': student}
  state, frozen = phase.init(RNG, carry)
  split = dataset.splits['train']
  step = jax.jit(functools.partial(phase.step, static=None))
  expected = []
  zeros = jax.tree.map(
    jnp.zeros_like, graph.select(student.variables, stages)['batch_stats']
  )
  from_zero = graph.merge(student.variables, {'batch_stats': zeros})
  for i in range(3):
    raw = {k: v[8 * i : 8 * i + 8] for k, v in split.items()}
    batch = recipe.stream.augment(RNG, raw)
    state, _ = step(state, frozen, {'train': batch}, RNG)
    _, updates = graph.run(
      student.network, from_zero, {'image': batch['image']}, train=stages
    )
    expected.append(updates['batch_stats'])
  after = phase.finish(state, frozen, carry)['student'].variables
  mean = jax.tree.map(lambda *x: 10 * sum(x) / 3, *expected)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    graph.select(after, stages)['batch_stats'],
    mean,
  )
  others = [n for n in graph.stage_names(student.network) if n not in stages]
  assert_same(
    graph.select(after, others), graph.select(student.variables, others)
  )
  assert_same(after['params'], student.variables['params'])


def test_the_example_of_the_documentation_is_a_method_that_trains(
  student, teacher, recipe, batch
):
  """The code in the docstring of `jaxdistill.phases` runs as it is printed."""
  lines = phases.__doc__.split('\n')
  start = next(i for i, x in enumerate(lines) if 'import jaxdistill' in x)
  stop = next(i for i, x in enumerate(lines) if 'return (phase,)' in x)
  scope = {}
  exec(textwrap.dedent('\n'.join(lines[start : stop + 1])), scope)
  (phase_of,) = scope['match_logits'](recipe, weight=0.5)
  carry = {'student': student, 'teacher': teacher}
  phase = phase_of(carry)
  state, frozen = phase.init(RNG, carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  losses = []
  for _ in range(3):
    state, metrics = step(state, frozen, {'train': batch}, RNG)
    losses.append(float(metrics['loss']))
  assert losses[2] < losses[0]
