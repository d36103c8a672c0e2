"""Two tiny networks, and functions that take single steps of a phase."""

import functools

import jax
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.neighbourhood.plan import Plan
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet

BLOCKS = ('group1.block1', 'group2.block1')
PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)


def _network(*inner):
  """Two blocks of 3 and 4 channels, with these numbers of inner channels."""
  return Network(
    (
      Stage('stem', layers.ConvUnit(3)),
      Stage(BLOCKS[0], resnet.BasicBlock(3, inner[0])),
      Stage(BLOCKS[1], resnet.BasicBlock(4, inner[1], stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )


@pytest.fixture(scope='session')
def network():
  """(inner, ...) -> two blocks with these numbers of inner channels."""
  return _network


@pytest.fixture(scope='session')
def whole(recipe):
  """A student that is as wide as the teacher."""
  image = {'image': recipe.example['image']}
  wide = _network(0, 0)
  return Model(wide, graph.init(wide, jax.random.key(3), image))


@pytest.fixture(scope='session')
def carry(recipe):
  image = {'image': recipe.example['image']}

  def model(network, seed):
    return Model(network, graph.init(network, jax.random.key(seed), image))

  teacher = model(_network(0, 0), 1)
  # The running statistics differ from those of any batch.
  statistics = jax.tree.map(lambda x: x + 0.3, teacher.variables['batch_stats'])
  variables = graph.merge(teacher.variables, {'batch_stats': statistics})
  return {
    'student': model(_network(2, 1), 0),
    'teacher': Model(teacher.network, variables),
  }


@pytest.fixture(scope='session')
def plan_of():
  """(recipe, arguments) -> the plan with plain SGD at rate 1."""
  return lambda recipe, **arguments: Plan(
    recipe._replace(optimizer=PLAIN), **arguments
  )


def _take_steps(phase, carry, batches, count=1):
  """Returns (state before, state after, metrics of the last step)."""
  before, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  after = before
  for i in range(count):
    rng = jax.random.fold_in(jax.random.key(1), i)
    after, metrics = step(after, frozen, batches, rng)
  return before, after, metrics


@pytest.fixture(scope='session')
def take_steps():
  """(phase, carry, batches, count) -> states before and after, metrics."""
  return _take_steps


def _assert_close(tree, expected, rtol=1e-4, atol=1e-6):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    tree,
    expected,
  )


@pytest.fixture(scope='session')
def assert_close():
  """A function that checks that two trees agree."""
  return _assert_close
