"""The masks: the noise that they hold back, their loss and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import objectives
from jaxdistill.methods.masked_layer import mask_phases, noise
from jaxdistill.methods.masked_layer import parts as parts_lib
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.networks import graph
from jaxdistill.objectives import cuts


def parts_of(recipe, carry):
  networks = (carry[role].network for role in ('student', 'teacher'))
  pair = objectives.pair_of(*networks, recipe)
  roles = {'student': 'student', 'teacher': 'teacher'}
  return parts_lib.parts_of(pair, cuts.breakpoints(pair, 'groups'), roles, 0.9)


def test_masks_stay_within_zero_and_one(after_each):
  """Some of them reach each of the two limits."""
  masks = noise.masks_of(after_each[2].carry['masks'].variables)
  ends = [(float(m.min()), float(m.max())) for m in masks.values()]
  assert min(low for low, _ in ends) == 0.0
  assert max(high for _, high in ends) == 1.0


def test_with_masks_of_one_the_noised_teacher_is_the_teacher(
  recipe, carry, batch, start
):
  method = masked_layer(recipe, masks=Masks(alpha=3e-3, value=1.0))
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
  method = masked_layer(recipe, masks=Masks(alpha=3e-3, value=0.9))
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
  recipe, after_each, method, batch, step_of
):
  carry = after_each[2].carry
  phase = method[1](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  noised = phase.eval_models['noised'](state, frozen)
  _, metrics = step_of(phase)(
    state, frozen, {'train': batch}, jax.random.key(1)
  )
  logits = graph.apply(*noised, batch['image'])
  score = recipe.task.progress(logits, batch)
  np.testing.assert_allclose(metrics['top1'], score['top1'], rtol=1e-6)
  masks = noise.masks_of(carry['masks'].variables)
  loss = mask_phases.mask_loss(
    recipe.task.loss(logits, batch), tuple(masks.values()), alpha=3e-3
  )
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)


def test_the_loss_of_the_masks_agrees_with_a_hand_calculation():
  """It is (1 + 3) / 2 + 0.1 * (|(3, 4)| + |(0, 0)|) = 2.5."""
  masks = (jnp.array([[3.0], [4.0]]), jnp.zeros((2,)))
  value, slope = jax.value_and_grad(
    lambda m: mask_phases.mask_loss(jnp.array([1.0, 3.0]), m, alpha=0.1)
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
  weights = 1 - mask
  assert summary['weight_variation'] == pytest.approx(
    weights.std() / weights.mean(), abs=1e-3
  )


def test_a_redrawn_student_makes_other_noise_in_each_step(
  recipe, carry, batch, start, step_of
):
  losses = {}
  for redrawn in (False, True):
    method = masked_layer(recipe, masks=Masks(alpha=3e-3, redrawn=redrawn))
    started = start(method, carry)
    phase = method[1](started)
    state, frozen = phase.init(jax.random.key(0), started)
    step = step_of(phase)
    losses[redrawn] = [
      float(step(state, frozen, {'train': batch}, jax.random.key(i))[1]['loss'])
      for i in range(3)
    ]
  assert len(set(losses[False])) == 1
  assert len(set(losses[True])) == 3


def test_redrawn_kernels_have_the_same_values_in_other_places(carry):
  variables = carry['student'].variables
  redrawn = noise.redrawn(variables, jax.random.key(0))
  flat, _ = jax.tree_util.tree_flatten_with_path(variables['params'])
  for (path, before), after in zip(flat, jax.tree.leaves(redrawn['params'])):
    if path[-1].key == 'kernel':
      assert (before != after).any()
      np.testing.assert_array_equal(
        *(np.sort(np.asarray(x), axis=None) for x in (before, after))
      )
    else:
      np.testing.assert_array_equal(before, after)


def test_the_gradient_of_the_masks_is_that_of_equation_5(in_float64, slopes):
  """It flows through the frozen later groups; the noise is constant here."""
  problem = in_float64('masks', zero=True, masks={'alpha': 0.1})
  for name in ('group1', 'group2'):
    analytic, numeric = slopes(*problem, 'masks', (name,), 'loss')
    assert analytic == pytest.approx(numeric, rel=1e-6)


def test_no_gradient_flows_through_the_noise(in_float64, slopes):
  problem = in_float64('masks', masks={'alpha': 0.0})
  analytic, numeric = slopes(*problem, 'masks', ('group1',), 'loss')
  assert abs(analytic - numeric) > 1e-3 * abs(numeric)
  analytic, numeric = slopes(*problem, 'masks', ('group2',), 'loss')
  assert analytic == pytest.approx(numeric, rel=1e-6)


def passes(network, variables, features, only, train=False):
  """Runs stages without any dropout."""
  return graph.run(network, variables, features, only=only, train=train)[0]


@pytest.mark.parametrize('source', ['noised', 'clean', 'student'])
@pytest.mark.parametrize(
  'at', [None, ('group1',), ('group2',)], ids=['all', 'first', 'last']
)
def test_the_noise_comes_from_the_chosen_features(
  source, at, after_each, recipe, batch
):
  carry = after_each[2].carry
  student, teacher = carry['student'], carry['teacher']
  masks = noise.masks_of(carry['masks'].variables)
  h = a = x = batch['image']
  for i, (stages, teacher_stages) in enumerate(
    (
      (('group1.conv1',), ('group1.conv1', 'group1.conv2')),
      (('group2.conv1',), ('group2.conv1',)),
    )
  ):
    before, name = f'group{i}' if i else 'image', f'group{i + 1}'
    n = passes(*student, {before: x}, stages, train=True)[name]
    h = passes(*teacher, {before: h}, teacher_stages)[name]
    a = passes(*teacher, {before: a}, teacher_stages)[name]
    if at is None or name in at:
      h = h + (1 - masks[name])[None] * n
    x = {'noised': h, 'clean': a, 'student': n}[source]
  expected = passes(*teacher, {'group2': h}, ('pool', 'head'))['head']
  logits = noise.noised_teacher(
    parts_of(recipe, carry),
    {role: carry[role].variables for role in ('student', 'teacher', 'masks')},
    batch['image'],
    jax.random.key(0),
    source=source,
    at=at,
  )
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_one_mask_at_a_time_has_the_gradient_of_its_own_noise(
  recipe, carry, batch, start
):
  """The mask phase takes the step of equation 5 for each mask by itself."""
  started = start(masked_layer(recipe), carry)
  parts = parts_of(recipe, carry)
  variables = {role: started[role].variables for role in started}
  rng = jax.random.key(0)

  def alone(masks, name):
    logits = noise.noised_teacher(
      parts, {**variables, 'masks': masks}, batch['image'], rng, at=(name,)
    )
    mask = noise.masks_of(masks)[name]
    return mask_phases.mask_loss(
      recipe.task.loss(logits, batch), (mask,), alpha=0.1
    )

  def together(masks):
    compute = mask_phases.objective(parts, Masks(one_at_a_time=True), recipe)
    return compute({**variables, 'masks': masks}, batch, rng, 0.1)[0]

  joint_slope = jax.jit(jax.grad(together))(variables['masks'])
  for name in ('group1', 'group2'):
    slope = jax.jit(jax.grad(alone), static_argnums=1)(variables['masks'], name)
    np.testing.assert_allclose(
      noise.masks_of(joint_slope)[name],
      noise.masks_of(slope)[name],
      rtol=1e-4,
      atol=1e-6,
    )
