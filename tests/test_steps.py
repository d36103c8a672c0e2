"""Phases that minimise a loss: what moves and what does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import steps
from jaxdistill.networks import layers, staged
from jaxdistill.types import Model, Network, Stage, UsageError

TRAINED = ('group2.block1', 'head')
RNG = jax.random.key(0)


def assert_same(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def all_moved(ours, theirs) -> bool:
  return all(
    not np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  )


def cross_entropy(answer, batch):
  loss = optax.softmax_cross_entropy_with_integer_labels(answer, batch['label'])
  return loss.mean()


def loss_of(network, variables, batches, rng, progress):
  """All stages run in training mode, also those that do not train."""
  del rng, progress
  features, updates = staged.run(
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
  """Three steps in which two stages train, with weight decay."""
  phase = steps.gradient_phase(
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
  # The state is donated, as the loop does it.
  step = jax.jit(lambda *a: phase.step(*a, static=None), donate_argnums=0)
  losses = []
  for _ in range(3):
    state, metrics = step(state, frozen, {'train': batch}, RNG)
    losses.append(float(metrics['loss']))
  return phase, state, frozen, carry, losses


def test_frozen_stages_do_not_move_by_a_bit(partial, student):
  _, state, _, _, _ = partial
  new = state.variables['student']
  constant = [
    name for name in staged.stage_names(student.network) if name not in TRAINED
  ]
  assert_same(
    staged.select(new, constant), staged.select(student.variables, constant)
  )


def test_trained_stages_move_parameters_and_statistics(partial, student):
  _, state, _, _, _ = partial
  new = staged.select(state.variables['student'], TRAINED)
  assert set(new) == {'params', 'batch_stats'}
  assert all_moved(new, staged.select(student.variables, TRAINED))


def test_the_optimiser_holds_no_state_of_frozen_stages(partial, student):
  _, state, _, _, _ = partial
  trained = staged.select(student.variables, TRAINED)['params']
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


def test_finish_hands_on_the_trained_model_and_all_else(partial):
  phase, state, frozen, carry, _ = partial
  masks = {'a': jnp.ones(2)}
  out = phase.finish(state, frozen, {**carry, 'masks': masks})
  assert set(out) == {'student', 'masks'}
  assert out['masks'] is masks
  assert out['student'].network == carry['student'].network
  assert_same(out['student'].variables, state.variables['student'])
  assert_same(
    phase.views['student'](state, frozen).variables, out['student'].variables
  )


def test_an_unknown_stage_to_train_is_refused(student):
  with pytest.raises(UsageError, match=r"'haed' \(nearest: 'head'\)"):
    steps.gradient_phase(
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
HELPERS = Network(
  (
    Stage('norm', layers.NormPool('norm.pre'), ('student/image',)),
    Stage('map', layers.Classifier(2), ('norm',)),
  )
)


@pytest.fixture(scope='module')
def linear(batch):
  image = {'image': batch['image']}
  return Model(LINEAR, staged.init(LINEAR, jax.random.key(0), image))


@pytest.fixture(scope='module')
def helped(linear, batch):
  """One step of a student and a helper against a constant teacher."""

  def loss_fn(variables, batches, rng, progress):
    image = {'image': batches['train']['image']}
    ours, updates = staged.run(LINEAR, variables['student'], image, train=True)
    theirs, ignored = staged.run(
      LINEAR, variables['teacher'], image, train=True
    )
    features = {'student/image': image['image']}
    helped, changed = staged.run(
      HELPERS, variables['helpers'], features, train=True
    )
    loss = ((ours['head'] - theirs['head']) ** 2).mean()
    loss += (helped['map'] ** 2).mean()
    return loss, (
      {'student': updates, 'teacher': ignored, 'helpers': changed},
      {'progress': progress, 'loss': jnp.zeros(())},
    )

  phase = steps.gradient_phase(
    'helped',
    loss_fn,
    optax.sgd(0.1),
    num_steps=4,
    streams={},
    networks={'student': LINEAR, 'teacher': LINEAR},
    trainable={'student': None},
    helpers=(HELPERS, {'student/image': batch['image']}),
  )
  teacher = Model(LINEAR, jax.tree.map(lambda x: x + 1, linear.variables))
  carry = {'student': linear, 'teacher': teacher}
  first, frozen = phase.init(RNG, carry)
  step = jax.jit(lambda *a: phase.step(*a, static=None))
  states, metrics = [first], []
  for _ in range(4):
    state, found = step(states[-1], frozen, {'train': batch}, RNG)
    states.append(state)
    metrics.append(found)
  return phase, states, frozen, carry, metrics


def test_helpers_train_with_their_statistics(helped):
  _, states, _, _, _ = helped
  old, new = (s.variables['helpers'] for s in states[:2])
  assert set(old) == {'params', 'batch_stats'}
  assert all_moved(old, new)


def test_helpers_are_new_for_each_key(helped):
  phase, states, _, carry, _ = helped
  again, _ = phase.init(RNG, carry)
  assert_same(again.variables, states[0].variables)
  other, _ = phase.init(jax.random.key(9), carry)
  kernel = other.variables['helpers']['params']['map']['linear']['kernel']
  first = again.variables['helpers']['params']['map']['linear']['kernel']
  assert not np.array_equal(kernel, first)
  assert_same(other.variables['student'], again.variables['student'])


def test_finish_drops_helpers_and_no_view_shows_them(helped):
  phase, states, frozen, carry, _ = helped
  assert set(phase.finish(states[-1], frozen, carry)) == {'student', 'teacher'}
  assert set(phase.views) == {'student'}


def test_the_teacher_is_constant_and_handed_on_as_it_came(helped):
  phase, states, frozen, carry, _ = helped
  assert set(states[-1].variables) == {'student', 'helpers'}
  assert frozen['teacher'] is carry['teacher'].variables
  out = phase.finish(states[-1], frozen, carry)
  assert out['teacher'] is carry['teacher']


def test_progress_is_the_share_of_steps_behind(helped):
  metrics = helped[-1]
  assert [float(m['progress']) for m in metrics] == [0, 0.25, 0.5, 0.75]


def test_no_metric_of_the_loss_function_hides_the_loss(helped):
  assert all(m['loss'] > 0 for m in helped[-1])


def test_the_update_is_the_optimisers_on_the_gradient(linear, batch):
  """One step of SGD by hand."""

  def loss_fn(variables, batches, rng, progress):
    features, _ = staged.run(
      LINEAR, variables['student'], {'image': batches['train']['image']}
    )
    return cross_entropy(features['head'], batches['train']), ({}, {})

  phase = steps.gradient_phase(
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
  share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  error = (share - np.eye(3)[np.asarray(batch['label'])]) / len(x)
  new = state.variables['student']['params']['head']['linear']
  np.testing.assert_allclose(
    new['kernel'], old['kernel'] - 0.5 * x.T @ error, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    new['bias'], old['bias'] - 0.5 * error.sum(0), rtol=1e-5, atol=1e-6
  )


def test_the_optimiser_is_told_the_loss(linear, batch):
  def loss_fn(variables, batches, rng, progress):
    del variables, batches, rng, progress
    return jnp.asarray(3.5), ({}, {})

  def update(updates, state, params=None, *, value, **rest):
    del params, rest
    return updates, value

  optimizer = optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros(()), update
  )
  phase = steps.gradient_phase(
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


def test_a_setup_phase_takes_no_step_and_adds_its_models(linear):
  phase = steps.setup_phase('new', lambda rng, carry: {'assistant': linear})
  assert (phase.num_steps, phase.streams) == (0, {})
  state, frozen = phase.init(RNG, {'student': linear})
  out = phase.finish(state, frozen, {'student': linear})
  assert out['student'] is linear
  assert out['assistant'].network == LINEAR
  assert_same(out['assistant'].variables, linear.variables)


def test_statistics_become_the_means_over_batches(student, dataset, recipe):
  """Of the stages named, whatever they were; the batch norm's momentum is 0.9,
  so that from zero it keeps a tenth of a batch's."""
  stages = ('group2.block1',)
  phase = steps.statistics_phase(
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
  wanted = []
  zeros = jax.tree.map(
    jnp.zeros_like, staged.select(student.variables, stages)['batch_stats']
  )
  from_zero = staged.merge(student.variables, {'batch_stats': zeros})
  for i in range(3):
    raw = {k: v[8 * i : 8 * i + 8] for k, v in split.items()}
    batch = recipe.stream.augment(RNG, raw)
    state, _ = step(state, frozen, {'train': batch}, RNG)
    _, updates = staged.run(
      student.network, from_zero, {'image': batch['image']}, train=stages
    )
    wanted.append(updates['batch_stats'])
  after = phase.finish(state, frozen, carry)['student'].variables
  mean = jax.tree.map(lambda *x: 10 * sum(x) / 3, *wanted)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    staged.select(after, stages)['batch_stats'],
    mean,
  )
  others = [n for n in staged.stage_names(student.network) if n not in stages]
  assert_same(
    staged.select(after, others), staged.select(student.variables, others)
  )
  assert_same(after['params'], student.variables['params'])
