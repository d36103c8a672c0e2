"""Tiny networks and data, and functions that take single steps of a phase."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.methods.masked_layer.layer_phases import Layers
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import vgg
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)


def _tiny(blocks, last=4, num_classes=3):
  units = [
    *(Stage(f'group1.conv{i + 1}', vgg.VGGUnit(3)) for i in range(blocks)),
    Stage('group2.conv1', vgg.VGGUnit(last, pool=True)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(num_classes)),
  ]
  return Network(tuple(units))


def _model(network, seed, recipe):
  image = {'image': recipe.example['image']}
  return Model(network, graph.init(network, jax.random.key(seed), image))


def _assert_same(*trees):
  jax.tree.map(np.testing.assert_array_equal, *trees)


def _changed(before, after, role='student', collection='params'):
  old, new = (x.carry[role].variables[collection] for x in (before, after))
  return {
    name
    for name in old
    if any(
      (np.asarray(a) != np.asarray(b)).any()
      for a, b in zip(jax.tree.leaves(old[name]), jax.tree.leaves(new[name]))
    )
  }


def _start(method, carry):
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  return phase.finish(state, frozen, carry)


def _step_of(phase):
  return jax.jit(functools.partial(phase.step, static=None))


@pytest.fixture(scope='session')
def tiny():
  """(number of blocks in group 1, ...) -> a VGG with two groups."""
  return _tiny


@pytest.fixture(scope='session')
def model():
  """(network, seed, recipe) -> a new model."""
  return _model


@pytest.fixture(scope='session')
def assert_same():
  """A function that compares trees bit by bit."""
  return _assert_same


@pytest.fixture(scope='session')
def changed():
  """(before, after, ...) -> the stages in which any variable differs."""
  return _changed


@pytest.fixture(scope='session')
def start():
  """(method, carry) -> the carry after the first phase."""
  return _start


@pytest.fixture(scope='session')
def step_of():
  """phase -> its jitted step."""
  return _step_of


@pytest.fixture(scope='session')
def dataset():
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (32, 8, 8, 1), np.uint8)
  label = np.arange(32) % 3
  return arrays.from_arrays(image, label, image, label, validation=0)


@pytest.fixture(scope='session')
def recipe(dataset):
  """One epoch is four steps."""
  return recipes.recipe(dataset, classification(), epochs=1, batch_size=8)


@pytest.fixture(scope='session')
def carry(recipe):
  """The student has one block fewer in its first group."""
  return {
    'student': _model(_tiny(1), 0, recipe),
    'teacher': _model(_tiny(2), 1, recipe),
  }


@pytest.fixture(scope='session')
def batch(dataset, recipe):
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  return recipe.stream.augment(jax.random.key(0), raw)


@pytest.fixture(scope='session')
def method(recipe):
  # The rate of the masks is high enough to have an effect in four steps.
  optimizer = optimizers.sgd(optimizers.constant(rate=30.0))
  return masked_layer(
    recipe,
    method=joint.kd(recipe),
    label_epochs=0.5,
    masks=Masks(alpha=3e-3, epochs=1, optimizer=optimizer),
    layers=Layers(epochs=2, statistics_steps=2),
  )


@pytest.fixture(scope='session')
def after_each(method, carry, dataset):
  """The results before, and after each phase."""
  results = [loop.Fitted(carry, {}, {}, 0, 0.0, {})]
  for phase in method:
    fitted = loop.fit((phase,), results[-1].carry, dataset, options=SILENT)
    results.append(fitted)
  return results


@pytest.fixture(scope='session')
def resumed():
  """(method, carry, ...) -> the result of a run that stopped and resumed."""

  def run(method, carry, dataset, count, path):
    calls = iter(range(10**6))
    stops = SILENT._replace(
      interrupted=lambda: next(calls) >= count, directory=str(path)
    )
    with pytest.raises(loop.Interrupted):
      loop.fit(method, carry, dataset, options=stops)
    options = SILENT._replace(directory=str(path))
    return loop.fit(method, carry, dataset, options=options)

  return run


@pytest.fixture(scope='session')
def first_local_step():
  """(recipe, carry, ...) -> metrics and student after a step of plain SGD."""

  def run(recipe, carry, batch, masks=None, *, value=0.9, **arguments):
    keys = {
      k: arguments.pop(k) for k in ('distance', 'inputs') if k in arguments
    }
    method = masked_layer(
      recipe,
      masks=Masks(epochs=0.0, value=value),
      layers=Layers(optimizer=PLAIN, **keys),
      **arguments,
    )
    started = _start(method, carry)
    if masks is not None:
      started['masks'] = masks
    phase = method[1](started)
    state, frozen = phase.init(jax.random.key(0), started)
    after, metrics = _step_of(phase)(
      state, frozen, {'train': batch}, jax.random.key(1)
    )
    return metrics, after.variables['student']

  return run


class Smooth(nn.Module):
  """A convolution and tanh in float64."""

  width: int
  zero: bool = False

  @nn.compact
  def __call__(self, x, train):
    del train
    kernel = nn.initializers.zeros if self.zero else nn.initializers.normal(0.5)
    bias = nn.initializers.normal(0.5)
    options = {'kernel_init': kernel, 'bias_init': bias}
    return nn.tanh(
      nn.Conv(self.width, (3, 3), param_dtype=jnp.float64, **options)(x)
    )


class Linear(nn.Module):
  """A classifier in float64."""

  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.Dense(3, param_dtype=jnp.float64)(x)


def _smooth(blocks, zero=False):
  return Network(
    (
      *(Stage(f'group1.block{i}', Smooth(2)) for i in range(blocks)),
      Stage('group2.block', Smooth(3, zero)),
      Stage('pool', layers.Pool()),
      Stage('head', Linear()),
    )
  )


@pytest.fixture
def in_float64(recipe, batch):
  """A function that makes (phase, state, frozen, batches) in float64."""

  def loss(logits, batch):
    chosen = jax.nn.one_hot(batch['label'], 3, dtype=jnp.float64)
    return -(chosen * jax.nn.log_softmax(logits)).sum(-1)

  recipe = recipe._replace(task=recipe.task._replace(loss=loss))

  def make(name, zero=False, same=False, masks=None, layers=None):
    teacher = _model(_smooth(2), 1, recipe)
    student = teacher if same else _model(_smooth(1, zero), 0, recipe)
    method = masked_layer(
      recipe,
      masks=Masks(**{'alpha': 3e-3, 'optimizer': PLAIN, **(masks or {})}),
      layers=Layers(optimizer=PLAIN, **(layers or {})),
    )
    carry = _start(method, {'student': student, 'teacher': teacher})
    (phase,) = (p for p in (make(carry) for make in method) if p.name == name)
    state, frozen = phase.init(jax.random.key(2), carry)
    image = jnp.asarray(batch['image'], jnp.float64)
    return phase, state, frozen, {'train': {**batch, 'image': image}}

  with jax.enable_x64(True):
    yield make


@pytest.fixture(scope='session')
def slopes():
  """Gives a directional derivative by the step, and by finite differences."""
  return _slopes


def _slopes(phase, state, frozen, batches, role, names, metric):
  """Returns a directional derivative by the step, and by finite differences."""
  step, rng = _step_of(phase), jax.random.key(3)
  after, _ = step(state, frozen, batches, rng)
  params = state.variables[role]['params']
  generator = np.random.default_rng(0)
  direction = {
    name: jax.tree.map(
      lambda x: jnp.asarray(generator.normal(size=x.shape)), tree
    )
    for name, tree in params.items()
    if name in names
  }

  def at(distance):
    new = {
      name: jax.tree.map(lambda x, d: x + distance * d, params[name], d)
      for name, d in direction.items()
    }
    variables = {
      **state.variables,
      role: graph.merge(state.variables[role], {'params': new}),
    }
    changed = state._replace(variables=variables)
    return step(changed, frozen, batches, rng)[1][metric]

  analytic = sum(
    float(jnp.vdot(old - new, d))
    for name in direction
    for old, new, d in zip(
      *(
        jax.tree.leaves(tree[name])
        for tree in (params, after.variables[role]['params'], direction)
      )
    )
  )
  return analytic, float(at(1e-5) - at(-1e-5)) / 2e-5
