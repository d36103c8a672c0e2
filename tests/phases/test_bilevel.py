"""Gradients with respect to weights of losses: three ways that agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import arrays
from jaxdistill.methods.distpro import forward, pathways, process
from jaxdistill.networks import graph
from jaxdistill.networks.models import resnet
from jaxdistill.phases import bilevel, recipes, terms
from jaxdistill.tasks import classification

RATE = optimizers.constant(rate=0.1)


def line(params):
  """The losses (x, 2 x**2), and a label loss of y**2."""
  x, y = params['x'], params['y']
  return (y**2, jnp.stack([x, 2 * x**2])), {'seen': x}


LINE = bilevel.Problem(line, lambda p: p['x'] * p['y'], lambda raw: raw**2)


def ahead_of_line(optimizer, **options):
  params = {'x': jnp.float32(3.0), 'y': jnp.float32(5.0)}
  return bilevel.look_ahead(
    LINE,
    optimizer,
    optimizer.init(params),
    params,
    jnp.array([0.5, -1.0]),
    **options,
  )


@pytest.mark.parametrize('hypergradient', bilevel.HYPERGRADIENTS)
def test_a_step_and_its_gradient_agree_with_a_hand_calculation(hypergradient):
  """alpha = (1/4, 1); x' = 3 - 0.1 (1/4 + 12) = 1.775, y' = 5 - 1 = 4.

  V = x' y' has the slope v = (4, 1.775), w = -0.1 v; r = w_x (1, 12), and J is
  (1, -2).
  """
  ahead = ahead_of_line(optax.sgd(0.1), hypergradient=hypergradient)
  np.testing.assert_allclose(ahead.params['x'], 1.775, rtol=1e-6)
  np.testing.assert_allclose(ahead.params['y'], 4.0, rtol=1e-6)
  np.testing.assert_allclose(ahead.loss, 25 + 0.75 + 18, rtol=1e-6)
  np.testing.assert_allclose(ahead.validation, 7.1, rtol=1e-6)
  np.testing.assert_allclose(ahead.summands, [3, 18])
  np.testing.assert_allclose(ahead.gradient, [-0.4, 9.6], rtol=2e-3)
  assert ahead.aux['seen'] == 3


def test_take_repeats_the_step_with_other_weights():
  ahead = ahead_of_line(optax.sgd(0.1))
  params, _ = ahead.take(jnp.array([0.0, 0.5]))  # alpha = (0, 1/4)
  np.testing.assert_allclose(params['x'], 3 - 0.1 * 3, rtol=1e-6)


@pytest.mark.parametrize('nesterov', [True, False])
def test_earlier_momentum_changes_the_step_but_not_the_gradient(nesterov):
  """Nesterov's step is 1.9 times the gradient plus a part of the trace."""
  params = {'x': jnp.float32(3.0), 'y': jnp.float32(0.0)}
  optimizer = optax.sgd(0.1, 0.9, nesterov)
  _, state = optimizer.update(params, optimizer.init(params))
  raw = jnp.array([1.0, 1.0])
  problem = LINE._replace(validation=lambda p: p['x'])
  ahead = bilevel.look_ahead(problem, optimizer, state, params, raw)
  # The gradient is 1 + 12, and the trace before this step is 3.
  trace = 13 + 0.9 * 3
  change = 0.1 * (13 + 0.9 * trace if nesterov else trace)
  np.testing.assert_allclose(ahead.params['x'], 3 - change, rtol=1e-6)
  slope = -0.1 * (1.9 if nesterov else 1) * 2 * np.array([1, 12])
  np.testing.assert_allclose(ahead.gradient, slope, rtol=1e-5)


def test_steps_on_several_losses_are_differentiated_through():
  """x falls by 0.1 a twice and then to 0.8 x, so V = (0.8 (1 - 0.2 a))**2."""
  optimizer = optax.sgd(0.1)

  def loss_after_steps(a):
    losses = [lambda x: a * x] * 2 + [lambda x: x**2]
    x, _ = bilevel.descend(losses, optimizer, optimizer.init(1.0), 1.0)
    return x**2

  value, slope = jax.value_and_grad(loss_after_steps)(1.0)
  np.testing.assert_allclose(value, 0.64**2, rtol=1e-6)
  np.testing.assert_allclose(slope, 2 * 0.64 * -0.16, rtol=1e-6)


def test_the_gradient_after_ten_steps_is_that_of_the_l2t_ww_code():
  """The example and its result are from that code."""
  params = (jnp.array([1.0, 3.0]), jnp.array([[-1.0, -2.0], [1.0, 0.0]]))
  decay = optax.add_decayed_weights(0.01)
  optimizer = optax.chain(decay, optax.sgd(0.1, 0.9))

  def loss_after_steps(weights):
    def inner(params):
      return (params[0] ** 2).mean() + (weights * params[1] ** 2).sum()

    (one, two), _ = bilevel.descend(
      [inner] * 10, optimizer, optimizer.init(params), params
    )
    return (one[None] * two).mean()

  slope = jax.grad(loss_after_steps)(jnp.zeros((2, 2)))
  expected = [[-1.1952, -7.1712], [1.1952, 0.0]]
  np.testing.assert_allclose(slope, expected, atol=1e-4)


def test_adam_at_a_gradient_of_zero_gives_finite_numbers():
  """x has no gradient, like the weights before a dead ReLU."""

  def training(params):
    return (params['y'] ** 2, jnp.stack([params['y'], 0 * params['x']])), ()

  params = {'x': jnp.float32(3.0), 'y': jnp.float32(5.0)}
  optimizer = optimizers.adamw(RATE)(10)
  ahead = bilevel.look_ahead(
    LINE._replace(training=training),
    optimizer,
    optimizer.init(params),
    params,
    jnp.ones(2),
  )
  assert np.isfinite(ahead.gradient).all()
  assert np.isfinite(jax.tree.leaves(ahead.params)).all()


def test_the_difference_in_direction_zero_is_zero():
  difference = bilevel.difference(lambda x: x, jnp.ones(1), jnp.zeros(1))
  np.testing.assert_array_equal(difference, [0.0])


def test_an_unknown_hypergradient_is_refused():
  with pytest.raises(
    UsageError, match="unknown hypergradient 'exakt'; did you mean 'exact'"
  ):
    ahead_of_line(optax.sgd(0.1), hypergradient='exakt')


@pytest.fixture(scope='module')
def wide_resnets():
  """(problem, theta) of WRN-10-2 teaching WRN-10-1, in float64."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 8, 8, 1), np.uint8)
    label = np.arange(16) % 3
    data = arrays.from_arrays(image, label, image, label, validation=0)
    task = classification()
    recipe = recipes.recipe(data, task, epochs=1, batch_size=8)
    networks = [
      resnet.wide_resnet(
        10, width, num_classes=3, base_width=2, dtype='float64'
      )
      for width in (1, 2)
    ]
    names = ('group1.pre', 'group3.pre')
    space = pathways.same_or_deeper(
      transforms=('T2',), pool=False, student=names, teacher=names
    )
    pair = objectives.pair_of(*networks, recipe)
    paths = pathways.build(pair, space)
    networks_with_paths = forward.Forward(
      pair, paths, terms.build({}, pair), recipe, 'student', 'teacher'
    )
    image = {'image': recipe.example['image']}
    initial = {
      'student': graph.init(networks[0], jax.random.key(0), image),
      'teacher': graph.init(networks[1], jax.random.key(1), image),
      'adapters': graph.init(
        networks_with_paths.adapters[0],
        jax.random.key(2),
        networks_with_paths.adapters[1],
      ),
    }
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), initial)

    def batch(rows):
      raw = {k: v[rows] for k, v in data.splits['train'].items()}
      augmented = recipe.stream.augment(jax.random.key(0), raw)
      return {**augmented, 'image': augmented['image'].astype(jnp.float64)}

    def merged(params):
      new = {k: {'params': v} for k, v in params.items()}
      return {k: graph.merge(v, new.get(k, {})) for k, v in variables.items()}

    rng = jax.random.key(3)
    problem = bilevel.Problem(
      lambda p: networks_with_paths.train(
        merged(p), batch(slice(8)), rng, jnp.float64(0)
      ),
      lambda p: networks_with_paths.validate(
        merged(p), batch(slice(8, 16)), rng
      ),
      process.biased_softmax,
    )
  return problem, {k: variables[k]['params'] for k in ('student', 'adapters')}


def test_the_hypergradients_of_a_wide_resnet_agree(wide_resnets):
  """They agree with batch norm, transforms, momentum, clipping and decay.

  Differences of the default length are off by up to 37 % here.
  """
  problem, params = wide_resnets
  optimizer = optimizers.sgd(RATE, nesterov=True, clip=0.5)(10)
  with jax.enable_x64(True):

    @functools.partial(
      jax.jit, compiler_options={'xla_backend_optimization_level': 0}
    )
    def gradients(params):
      raw = jnp.array([1.0, 0.5, 1.2])
      state = optimizer.init(params)
      before = jax.tree.map(lambda x: 0.1 * jnp.cos(x), params)
      _, state = optimizer.update(before, state, params)
      look_aheads = [
        bilevel.look_ahead(
          *(problem, optimizer, state, params, raw),
          hypergradient=hypergradient,
          length=1e-4,
        )
        for hypergradient in bilevel.HYPERGRADIENTS
      ]
      return [ahead.gradient for ahead in look_aheads]

    exact, difference, unrolled = gradients(params)
    assert exact.dtype == jnp.float64
  assert np.abs(unrolled).min() > 1e-5
  np.testing.assert_allclose(exact, unrolled, rtol=1e-5)
  np.testing.assert_allclose(difference, unrolled, rtol=1e-2)
