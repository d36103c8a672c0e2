"""Candidates stacked in one program learn like those that are not."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.methods.neighbourhood import piece_phases, stacking
from jaxdistill.methods.neighbourhood.plan import FORMS, Plan
from jaxdistill.networks import graph
from jaxdistill.networks.models import resnet


@pytest.mark.parametrize('devices', [1, 2])
def test_stacked_candidates_learn_like_unrolled_ones(
  recipe, carry, batch, devices, monkeypatch, network, take_steps, assert_close
):
  """Inner widths 1, 2, 3 are padded to 3, and 3 candidates to 4."""
  if devices > 1:
    monkeypatch.setattr(stacking, 'devices', lambda: devices)
    monkeypatch.setattr(stacking, 'spread', lambda tree: tree)
  image = {'image': recipe.example['image']}
  roles = {}
  for i, inner in enumerate(((1, 1), (2, 3), (3, 4))):
    candidate = network(*inner)
    variables = graph.init(candidate, jax.random.key(i), image)
    roles[f'k {i}'] = Model(candidate, variables)
  results = {}
  for form in FORMS:
    recipe = recipe._replace(
      optimizer=optimizers.sgd(optimizers.constant(rate=0.1))
    )
    plan = Plan(recipe, form=form, look_ahead=(1.0,))
    all_models = {**carry, **roles}
    phase = piece_phases.train_phase(plan, all_models, tuple(roles))
    _, after, metrics = take_steps(phase, all_models, {'train': batch}, count=2)
    results[form] = (after.variables, metrics)
  assert_close(results['stack'], results['unroll'], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ('inner', 'shortcut', 'message'),
  [
    (3, 'A', 'differ only in width'),
    (None, 'B', 'the widest everywhere'),
  ],
)
def test_candidates_that_cannot_be_stacked_are_refused(
  inner, shortcut, message
):
  x = jnp.zeros((1, 4, 4, 2))

  def variables(module):
    return jax.eval_shape(
      lambda: module.init(jax.random.key(0), x, train=False)
    )

  trees = [variables(resnet.BasicBlock(3, 2))]
  if inner:
    trees.append(variables(resnet.BasicBlock(3, inner, shortcut=shortcut)))
  else:
    trees.append(variables(resnet.BasicBlock(4, 1)))
  with pytest.raises(UsageError, match=message):
    stacking.widest(trees)


def test_a_stack_is_distributed_over_the_devices_of_a_mesh():
  """Three entries are distributed over an axis of one, two or four devices."""
  trees = [{'kernel': jnp.full((2, n), 1.0 + n)} for n in range(3)]

  def make(trees):
    stack = stacking.stack(trees, trees[2], stacking.devices())
    return stacking.spread(stack)['kernel']

  for count, constraints, entries in ((1, 0, 3), (2, 1, 4), (4, 1, 4)):
    mesh = jax.sharding.AbstractMesh(
      (1, count), ('data', 'model'), axis_types=(AxisType.Auto,) * 2
    )
    with jax.sharding.use_abstract_mesh(mesh):
      jaxpr = jax.make_jaxpr(make)(trees)
    assert str(jaxpr).count('sharding_constraint') == constraints
    assert jaxpr.out_avals[0].shape == (entries, 2, 2)
  stack = stacking.stack(trees, trees[2], 4)
  for tree, unstacked in zip(trees, stacking.unstack(stack, trees)):
    np.testing.assert_array_equal(unstacked['kernel'], tree['kernel'])
  assert not stack['kernel'][3].any()
