"""Weights become zero, stay zero or return, whichever method trains them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import optimizers, pruning
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import adapters, graph
from jaxdistill.phases import joint
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
SGD = optimizers.sgd(optimizers.constant(rate=0.05), weight_decay=0.1)


def kernels(model):
  """Returns the convolution kernels by path."""
  leaves = jax.tree_util.tree_leaves_with_path(model.variables['params'])
  return {
    jax.tree_util.keystr(path): np.asarray(x)
    for path, x in leaves
    if x.ndim == 4
  }


def zeros(model):
  """Returns by path which weights of the convolutions are zero."""
  return {path: x == 0 for path, x in kernels(model).items()}


def sparsity(model):
  """The fraction of zeros among the weights of all convolutions."""
  masks = zeros(model).values()
  return sum(m.sum() for m in masks) / sum(m.size for m in masks)


@pytest.fixture(scope='module')
def pruned(student):
  return pruning.magnitude(keep=0.4).prune(student)


def test_the_smallest_weights_of_all_convolutions_become_zero(student, pruned):
  assert abs(sparsity(pruned) - 0.6) < 0.01
  before, after = kernels(student), kernels(pruned)
  gone = np.concatenate([abs(before[k][after[k] == 0]) for k in before])
  kept = np.concatenate([abs(before[k][after[k] != 0]) for k in before])
  # Each kernel keeps its largest weight, which may be below the threshold.
  assert np.sort(kept)[len(before)] >= gone.max()
  for name in before:
    same = after[name] != 0
    np.testing.assert_array_equal(before[name][same], after[name][same])


def test_the_classifier_and_norms_are_not_pruned(student, pruned):
  for stage, path in (('head', ('linear', 'kernel')), ('stem', ('norm',))):
    old, new = (m.variables['params'][stage] for m in (student, pruned))
    for key in path:
      old, new = old[key], new[key]
    jax.tree.map(np.testing.assert_array_equal, old, new)


def test_scope_layer_prunes_the_same_fraction_of_each_layer(student):
  model = pruning.magnitude(keep=0.25, scope='layer', skip=('stem',)).prune(
    student
  )
  for path, mask in zeros(model).items():
    expected = 0 if 'stem' in path else round(0.75 * mask.size)
    assert mask.sum() == expected


def test_zeros_stay_zero_through_momentum_and_weight_decay(
  pruned, teacher, recipe, dataset
):
  """This holds under distillation, in which all other weights move."""
  recipe = recipe._replace(optimizer=pruning.sparse(optimizer=SGD))
  carry = {'student': pruned, 'teacher': teacher}
  end = loop.fit(joint.kd(recipe), carry, dataset, options=SILENT)
  before, after = zeros(pruned), zeros(end.carry['student'])
  for name in before:
    np.testing.assert_array_equal(before[name], after[name])
    moved = kernels(pruned)[name] != kernels(end.carry['student'])[name]
    assert moved[~before[name]].all()


def test_without_the_wrapper_zeros_become_non_zero(pruned, recipe, dataset):
  recipe = recipe._replace(optimizer=SGD)
  end = loop.fit(
    joint.supervised(recipe), {'student': pruned}, dataset, options=SILENT
  )
  assert sparsity(end.carry['student']) < 0.01


def test_a_kernel_of_only_zeros_is_new_and_trains():
  params = {'adapter': {'kernel': jnp.zeros((1, 1, 2, 2))}}
  optimizer = pruning.keep_zeros(optax.sgd(1.0))
  state = optimizer.init(params)
  gradient = jax.tree.map(jnp.ones_like, params)
  updates, _ = optimizer.update(gradient, state, params)
  assert (updates['adapter']['kernel'] == -1).all()


def test_zeros_neither_count_in_gradient_norms_nor_receive_noise():
  """The gradient (3, 4) of a live and a dead weight is clipped as (3, 0)."""
  params = {'conv': {'kernel': jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)}}
  gradient = {'conv': {'kernel': jnp.array([3.0, 4.0]).reshape(1, 1, 1, 2)}}
  for inner, expected in (
    (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)), -1.0),
    (optax.chain(optax.sgd(1.0), optax.add_noise(1.0, 0.5, 0)), None),
  ):
    optimizer = pruning.keep_zeros(inner)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    live, dead = updates['conv']['kernel'].reshape(-1)
    assert dead == 0
    assert live == expected if expected else live != -3.0


def test_biases_that_begin_at_zero_train():
  params = {'norm': {'bias': jnp.array([0.0, 1.0])}}
  optimizer = pruning.keep_zeros(optax.sgd(1.0))
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  np.testing.assert_array_equal(updates['norm']['bias'], [0, -1])


def steps_of(gradients, start, **options):
  """Returns the weights after each step of SGD, and the last state."""
  options = {'final': 0.5, 'steps': 4, 'every': 2, **options}
  optimizer = pruning.gradual_magnitude(optax.sgd(1.0), **options)
  params = {'conv': {'kernel': jnp.array(start).reshape(1, 1, 1, -1)}}
  state, history = optimizer.init(params), []
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    slope = {'conv': {'kernel': jnp.array(gradient).reshape(1, 1, 1, -1)}}
    change, state = update(slope, state, params)
    params = optax.apply_updates(params, change)
    history.append(params['conv']['kernel'].reshape(-1).tolist())
  return history, state


def test_sparsity_follows_the_cubic_schedule_at_refreshes():
  """0.5 - 0.5 (1 - t/4)^3 of 8 weights: 3.5 -> 4 at t = 2, 4 at t = 4."""
  start = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  history, _ = steps_of([[0.0] * 8] * 4, start)
  assert [sum(x == 0 for x in row) for row in history] == [0, 4, 4, 4]
  history, _ = steps_of([[0.0] * 8] * 6, start, steps=6, final=0.75)
  # 0.75 - 0.75 (1 - t/6)^3 of 8: 4.2 at 2, 5.8 at 4, 6 at 6.
  assert [sum(x == 0 for x in row) for row in history] == [0, 4, 4, 6, 6, 6]


def test_a_masked_weight_keeps_its_value_and_may_return():
  gradients = [[0.0, 0.0], [0.0, 0.0], [9.0, 1.5], [0.0, 0.0]]
  history, _ = steps_of(gradients, [1.0, 2.0])
  # The first weight is masked at step 2, gets no gradient at step 3, and
  # returns at step 4, when the second has fallen from 2 to 0.5.
  assert history == [[1.0, 2.0], [0.0, 2.0], [0.0, 0.5], [1.0, 0.0]]


def test_after_the_last_refresh_the_mask_is_constant():
  gradients = [[0.0, 0.0]] * 4 + [[0.0, 1.9], [5.0, 0.0], [0.0, 0.0]]
  history, state = steps_of(gradients, [1.0, 2.0])
  assert history[3] == [0.0, 2.0]
  np.testing.assert_allclose(history[-1], [0, 0.1], rtol=1e-5)
  assert state.masks['conv']['kernel'].tolist() == [[[[False, True]]]]


def test_gradual_pruning_trains_any_method(student, recipe, dataset):
  """The final sparsity is reached at the third of six steps."""
  optimizer = pruning.gradual(optimizer=SGD, final=0.5, every=1, skip=('stem',))
  recipe = recipe._replace(optimizer=optimizer)
  end = loop.fit(
    joint.supervised(recipe), {'student': student}, dataset, options=SILENT
  )
  for path, mask in zeros(end.carry['student']).items():
    expected = 0 if 'stem' in path else round(0.5 * mask.size)
    assert mask.sum() == expected


def test_a_network_of_plain_functions_can_be_pruned():
  def init(rng, image):
    return {'params': {'a': {'kernel': jax.random.normal(rng, (1, 1, 1, 8))}}}

  def apply(variables, image, train, rngs):
    kernel = variables['params']['a']['kernel']
    return (image * kernel).mean((1, 2)), {}

  network = adapters.from_functions(init, apply)
  image = {'image': jnp.ones((1, 2, 2, 1))}
  model = Model(network, graph.init(network, jax.random.key(0), image))
  assert sparsity(pruning.magnitude(keep=0.5).prune(model)) == 0.5


@pytest.mark.parametrize(
  ('function', 'words'),
  [
    (lambda: pruning.magnitude(keep=0.0), r'keep: .* in \(0, 1\], got 0\.0'),
    (lambda: pruning.magnitude(keep=1.1), r'keep: .* got 1\.1'),
    (lambda: pruning.magnitude(keep=True), 'keep: .* got True'),
    (lambda: pruning.magnitude(keep=float('nan')), 'keep: .* got nan'),
    (
      lambda: pruning.magnitude(keep=0.5, scope='all'),
      "unknown scope 'all'.*valid: global, layer",
    ),
    (
      lambda: pruning.gradual(optimizer=SGD, final=0.5, until=0.0),
      r'until: .* got 0\.0',
    ),
    (
      lambda: pruning.gradual(optimizer=SGD, final=1.0),
      r'final: .* in \[0, 1\), got 1\.0',
    ),
  ],
)
def test_an_argument_out_of_its_range_is_refused(function, words):
  with pytest.raises(UsageError, match=words):
    function()


def test_a_skip_list_with_an_unknown_name_is_refused(student):
  magnitude = pruning.magnitude(keep=0.5, skip=('group7',))
  with pytest.raises(UsageError, match="stage or group to skip 'group7'"):
    magnitude.check(student)


def test_a_network_without_kernels_to_prune_is_refused(student):
  only = ('pool', 'head')
  stages = tuple(s for s in student.network.stages if s.name in only)
  model = Model(
    student.network._replace(stages=stages),
    graph.select(student.variables, only),
  )
  with pytest.raises(UsageError, match='no kernels to prune'):
    pruning.magnitude(keep=0.5).check(model)
