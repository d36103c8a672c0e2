"""The groups: their distances, gradients and inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.masked_layer import noise
from jaxdistill.methods.masked_layer.layer_phases import Layers
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.networks import graph, initial, layers
from jaxdistill.networks.models import resnet


@pytest.mark.parametrize('inputs', ['teacher', 'student'])
@pytest.mark.parametrize('distance', ['masked_l1', 'l2'])
def test_each_group_has_the_gradient_of_its_own_distance(
  distance, inputs, in_float64, slopes
):
  problem = in_float64('local', layers={'distance': distance, 'inputs': inputs})
  for name in ('group1', 'group2'):
    stages = (f'{name}.block0' if name == 'group1' else f'{name}.block',)
    derivatives = slopes(*problem, 'student', stages, f'distance/{name}')
    assert derivatives[0] == pytest.approx(derivatives[1], rel=1e-6)
  if inputs == 'student':  # Later groups give it no gradient.
    derivatives = slopes(*problem, 'student', ('group1.block0',), 'loss')
    assert abs(derivatives[0] - derivatives[1]) > 1e-3 * abs(derivatives[1])


def test_through_a_chain_later_groups_give_earlier_ones_a_gradient(
  in_float64, slopes
):
  problem = in_float64('local', layers={'distance': 'l2', 'inputs': 'chain'})
  for stage in ('group1.block0', 'group2.block'):
    derivatives = slopes(*problem, 'student', (stage,), 'loss')
    assert derivatives[0] == pytest.approx(derivatives[1], rel=1e-6)


@pytest.mark.parametrize('inputs', ['teacher', 'student', 'chain'])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(
  inputs, in_float64, assert_same, step_of
):
  phase, state, frozen, batches = in_float64(
    'local', same=True, layers={'inputs': inputs}
  )
  after, metrics = step_of(phase)(state, frozen, batches, jax.random.key(0))
  assert metrics['loss'] == 0.0
  assert metrics['relative_l1/group2'] == 0.0
  assert_same(after.variables, state.variables)


def test_distances_agree_with_a_direct_calculation(
  recipe, after_each, carry, batch, first_local_step
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


def test_constant_masks_give_the_plain_l1_distance(
  recipe, carry, batch, first_local_step
):
  plain = first_local_step(recipe, carry, batch, distance='l1')
  masked = first_local_step(recipe, carry, batch, value=0.75)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    *(plain, masked),
  )


def test_with_masks_of_one_the_groups_learn_nothing(
  recipe, carry, batch, first_local_step, assert_same, start
):
  metrics, end = first_local_step(recipe, carry, batch, value=1.0)
  before = start(masked_layer(recipe), carry)['student'].variables
  assert metrics['loss'] == 0.0
  assert_same(end['params'], before['params'])


def test_the_first_group_reads_the_image_whatever_the_inputs(
  recipe, carry, batch, assert_same, first_local_step
):
  """This holds for a single group, and for the first of two groups."""
  cut = (('group2', 'group2'),)
  ends = [
    first_local_step(recipe, carry, batch, inputs=x, cut=cut)[1]
    for x in ('teacher', 'student')
  ]
  assert_same(*ends)
  fed_by_teacher, fed_by_student = (
    first_local_step(recipe, carry, batch, inputs=x)[1]['params']
    for x in ('teacher', 'student')
  )
  assert_same(fed_by_teacher['group1.conv1'], fed_by_student['group1.conv1'])
  kernels = (
    x['group2.conv1']['conv']['kernel']
    for x in (fed_by_teacher, fed_by_student)
  )
  assert (next(kernels) != next(kernels)).any()


@pytest.fixture(scope='module')
def residual(recipe, model, tiny):
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
  residual, recipe, batch, first_local_step
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
  residual, recipe, batch, start
):
  """Noise at a breakpoint also reaches the shortcut after it."""
  method = masked_layer(
    recipe,
    breakpoints='layers',
    masks=Masks(alpha=3e-3, value=1.0),
    copy_head=False,
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


def test_a_deeper_student_learns_from_a_shallower_teacher(
  carry, recipe, batch, first_local_step
):
  swapped = {'student': carry['teacher'], 'teacher': carry['student']}
  metrics, end = first_local_step(recipe, swapped, batch)
  before = swapped['student'].variables['params']
  for stage in ('group1.conv1', 'group1.conv2', 'group2.conv1'):
    kernels = (x[stage]['conv']['kernel'] for x in (end['params'], before))
    assert (next(kernels) != next(kernels)).any()
  assert {k for k in metrics if k.startswith('distance')} == {
    *('distance/group1', 'distance/group2'),
  }


@pytest.fixture
def random_masks(carry, recipe, start):
  """Masks with values in [0, 1]."""
  masks = start(masked_layer(recipe), carry)['masks']
  leaves, structure = jax.tree.flatten(masks.variables)
  keys = jax.random.split(jax.random.key(0), len(leaves))
  values = [jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves)]
  return masks._replace(variables=jax.tree.unflatten(structure, values))


def test_shuffled_masks_have_the_same_values_in_other_places(random_masks):
  shuffled = noise.control_masks('shuffled', random_masks, jax.random.key(1))
  for before, after in zip(*map(_values, (random_masks, shuffled))):
    assert (before != after).mean() > 0.9
    np.testing.assert_array_equal(np.sort(before), np.sort(after))


def test_inverted_masks_weigh_what_learned_masks_leave_out(random_masks):
  inverted = noise.control_masks('inverted', random_masks, jax.random.key(1))
  for before, after in zip(*map(_values, (random_masks, inverted))):
    np.testing.assert_allclose(before + after, 1.0, rtol=1e-6)


@pytest.mark.parametrize('kind', ['shuffled', 'inverted'])
def test_a_control_changes_the_masks_before_the_groups_learn(
  kind, recipe, carry, start
):
  method = masked_layer(
    recipe, masks=Masks(epochs=0.0, value=0.25), layers=Layers(masks=kind)
  )
  carry = start(method, carry)
  phase = method[1](carry)
  assert phase.name == 'control'
  state, frozen = phase.init(jax.random.key(0), carry)
  after = phase.finish(state, frozen, carry)['masks']
  expected = {'shuffled': 0.25, 'inverted': 0.75}[kind]
  assert all((mask == expected).all() for mask in _values(after))
  assert method[2](carry).name == 'local'


def test_a_control_of_masks_needs_a_distance_with_masks():
  with pytest.raises(UsageError, match=r"expected 'learned'.*got 'shuffled'"):
    Layers(distance='l1', masks='shuffled')


def _values(masks):
  return [np.asarray(m).reshape(-1) for m in noise.masks_of(masks[1]).values()]
