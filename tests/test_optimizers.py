"""Optimizers agree with updates in NumPy, and schedules with known values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError

START = {'w': np.array([1.0, -2.0, 0.5]), 'b': np.array([3.0])}
# Factors on w**3, the gradient of w**4 / 4, which differs in each step.
SCALE = {'w': np.array([1.0, 0.3, -2.0]), 'b': np.array([0.1])}


def gradient_at(params):
  return {k: SCALE[k] * params[k] ** 3 for k in params}


def run(optimizer, steps, num_steps=10):
  """Returns the parameters after some steps by the library, in float32."""
  transformation = optax.with_extra_args_support(optimizer(num_steps))
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), START)
  state = transformation.init(params)
  update = jax.jit(transformation.update)
  for _ in range(steps):
    gradient = {k: jnp.asarray(SCALE[k]) * params[k] ** 3 for k in params}
    change, state = update(gradient, state, params, value=1.0)
    params = optax.apply_updates(params, change)
  return params


def torch_sgd(steps, *, rates, momentum, nesterov, weight_decay, clip=None):
  """SGD as in https://pytorch.org/docs/stable/generated/torch.optim.SGD.html."""
  params, buffers = dict(START), {}
  for step in range(steps):
    gradient = gradient_at(params)
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    shrink = min(1.0, clip / norm) if clip else 1.0
    for key, value in params.items():
      g = shrink * gradient[key] + weight_decay * value
      if momentum:
        buffers[key] = g if step == 0 else momentum * buffers[key] + g
        g = g + momentum * buffers[key] if nesterov else buffers[key]
      params[key] = value - rates[step] * g
  return params


def assert_close(params, expected):
  for key, value in expected.items():
    np.testing.assert_allclose(params[key], value, rtol=2e-5)


@pytest.mark.parametrize(
  ('momentum', 'nesterov', 'clip'),
  [(0.9, True, None), (0.9, False, None), (0.0, True, None), (0.9, True, 0.5)],
)
def test_sgd_with_weight_decay_equals_that_of_pytorch(momentum, nesterov, clip):
  schedule = optimizers.linear(rate=0.1, final=0.0)
  params = run(
    optimizers.sgd(
      schedule,
      momentum=momentum,
      nesterov=nesterov,
      weight_decay=0.05,
      clip=clip,
    ),
    3,
  )
  expected = torch_sgd(
    3,
    rates=(0.1, 0.09, 0.08),
    momentum=momentum,
    nesterov=nesterov,
    weight_decay=0.05,
    clip=clip,
  )
  assert_close(params, expected)


def test_adamw_matches_numpy():
  rate, b1, b2, decay = 0.1, 0.8, 0.95, 0.2
  params = dict(START)
  first = {k: 0 * v for k, v in START.items()}
  second = dict(first)
  for step in range(1, 4):
    gradient = gradient_at(params)
    for key, g in gradient.items():
      first[key] = b1 * first[key] + (1 - b1) * g
      second[key] = b2 * second[key] + (1 - b2) * g**2
      mean = first[key] / (1 - b1**step)
      scale = np.sqrt(second[key] / (1 - b2**step)) + 1e-8
      params[key] = params[key] - rate * (mean / scale + decay * params[key])
  schedule = optimizers.constant(rate=rate)
  assert_close(
    run(optimizers.adamw(schedule, b1=b1, b2=b2, weight_decay=decay), 3),
    params,
  )


def test_an_l1_penalty_of_sgd_adds_the_sign_to_the_gradient():
  """Equation 3 of Orthogonality, with p = 1 and p = 2 together."""
  rate, momentum, decay, penalty = 0.1, 0.9, 0.2, 0.3
  params, buffers = dict(START), {k: 0 * v for k, v in START.items()}
  for _ in range(4):
    gradient = gradient_at(params)
    for key, value in params.items():
      g = gradient[key] + decay * value + penalty * np.sign(value)
      buffers[key] = momentum * buffers[key] + g
      params[key] = value - rate * buffers[key]
  optimizer = optimizers.sgd(
    optimizers.constant(rate=rate),
    momentum=momentum,
    nesterov=False,
    weight_decay=decay,
    l1_penalty=penalty,
  )
  assert_close(run(optimizer, 4), params)


def first_change(optimizer):
  """The change of `START` by one step without a gradient."""
  transformation = optimizer(10)
  params = {k: jnp.asarray(v, jnp.float32) for k, v in START.items()}
  zeros = jax.tree.map(jnp.zeros_like, params)
  return transformation.update(zeros, transformation.init(params), params)[0]


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_an_l1_penalty_pulls_all_weights_equally(name):
  """Adam does not scale it: weights of 0.5 and 3 move by rate * penalty."""
  options = {'momentum': 0.0} if name == 'sgd' else {}
  optimizer = getattr(optimizers, name)(
    optimizers.constant(rate=0.1), weight_decay=0.0, l1_penalty=0.3, **options
  )
  change = first_change(optimizer)
  for key, value in START.items():
    np.testing.assert_allclose(change[key], -0.03 * np.sign(value), rtol=1e-5)


@pytest.mark.parametrize('name', ['sgd', 'adamw', 'lars'])
def test_a_penalty_of_zero_changes_nothing(name):
  optimizer = getattr(optimizers, name)
  schedule = optimizers.constant(rate=0.1)
  without = run(optimizer(schedule), 2)
  same = run(optimizer(schedule, l1_penalty=0.0), 2)
  jax.tree.map(np.testing.assert_array_equal, same, without)
  pulled = run(optimizer(schedule, l1_penalty=0.5), 2)
  assert any((pulled[k] != without[k]).any() for k in START)
  with pytest.raises(UsageError, match='l1_penalty: expected a number in'):
    optimizer(schedule, l1_penalty=-1e-4)


def test_lars_scales_the_gradient_of_a_kernel_to_the_kernels_norm():
  """The kernel's norm is 5, so a gradient of norm 10 is scaled to 0.1 * 5."""
  params = {'kernel': jnp.array([[3.0, 4.0]]), 'bias': jnp.array([1.0])}
  gradient = {'kernel': jnp.array([[6.0, -8.0]]), 'bias': jnp.array([2.0])}
  schedule = optimizers.constant(rate=0.5)
  optimizer = optimizers.lars(schedule, trust=0.1, momentum=0.0)(10)
  change, _ = jax.jit(optimizer.update)(
    gradient, optimizer.init(params), params
  )
  np.testing.assert_allclose(change['kernel'], [[-0.15, 0.2]], rtol=1e-6)
  np.testing.assert_allclose(change['bias'], [-1.0])
  with pytest.raises(
    UsageError, match=r'trust: expected a number above 0, got 0'
  ):
    optimizers.lars(schedule, trust=0)


def test_adamw_clips_the_gradient_and_not_the_weight_decay():
  schedule = optimizers.constant(rate=0.1)
  decay = {k: v * (1 - 0.1 * 0.2) for k, v in START.items()}
  optimizer = optimizers.adamw(schedule, weight_decay=0.2, clip=1e-20)
  assert_close(run(optimizer, 1), decay)


def rates(schedule, num_steps, steps):
  """Returns the learning rates at some steps."""
  function = schedule.rate(num_steps)
  return [float(function(step)) for step in steps]


def test_cosine_at_the_start_middle_and_end():
  values = rates(
    optimizers.cosine(rate=0.2, final=0.02), 100, (0, 50, 100, 200)
  )
  np.testing.assert_allclose(values, [0.2, 0.11, 0.02, 0.02], rtol=1e-6)


def test_cosine_at_a_quarter():
  # (1 + cos(pi / 4)) / 2
  values = rates(optimizers.cosine(rate=1.0), 40, (10,))
  np.testing.assert_allclose(values, [(1 + np.sqrt(0.5)) / 2], rtol=1e-6)


def test_linear_at_the_start_middle_and_end():
  values = rates(optimizers.linear(rate=0.2, final=0.1), 100, (0, 50, 100, 150))
  np.testing.assert_allclose(values, [0.2, 0.15, 0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize('power', [0.9, 1.0, 2.0])
def test_polynomial_is_a_power_of_the_steps_that_are_left(power):
  schedule = optimizers.polynomial(rate=0.2, final=0.1, power=power)
  values = rates(schedule, 100, (0, 25, 50, 100, 150))
  left = np.array([1.0, 0.75, 0.5, 0.0, 0.0])
  np.testing.assert_allclose(values, 0.1 + 0.1 * left**power, rtol=1e-6)


def test_constant_is_constant():
  values = rates(optimizers.constant(rate=0.3), 100, (0, 7, 100))
  np.testing.assert_allclose(values, [0.3] * 3)


@pytest.mark.parametrize('num_steps', [240, 2400])
def test_step_boundaries_are_fractions_of_the_run(num_steps):
  unit = num_steps // 240
  schedule = optimizers.step(rate=0.05)
  steps = [unit * e + d for e in (150, 180, 210) for d in (-1, 0)]
  np.testing.assert_allclose(
    rates(schedule, num_steps, steps),
    [0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5],
    rtol=1e-5,
  )


def test_step_boundaries_that_fall_on_one_step_all_count():
  schedule = optimizers.step(rate=1.0, boundaries=(0.75, 0.8, 0.85), factor=0.1)
  values = rates(schedule, 4, (2, 3))
  np.testing.assert_allclose(values, [1.0, 1e-3], rtol=1e-5)


WARM = {
  'cosine': functools.partial(optimizers.cosine, final=0.0),
  'linear': functools.partial(optimizers.linear, final=0.0),
  'polynomial': functools.partial(optimizers.polynomial, power=1.0),
  'step': functools.partial(optimizers.step, boundaries=(0.5,), factor=0.5),
  'constant': optimizers.constant,
}


@pytest.mark.parametrize('name', WARM)
def test_warm_up_rises_linearly_to_the_rate(name):
  schedule = WARM[name](rate=0.4, warmup=0.1)
  values = rates(schedule, 100, (0, 5, 10))
  np.testing.assert_allclose(values, [0, 0.2, 0.4], atol=1e-7)


def test_the_schedule_takes_the_steps_after_the_warm_up():
  # The middle of the 90 steps after the warm-up is step 55.
  for name, middle in (('cosine', 0.2), ('linear', 0.2), ('polynomial', 0.2)):
    values = rates(WARM[name](rate=0.4, warmup=0.1), 100, (55, 100))
    np.testing.assert_allclose(values, [middle, 0], atol=1e-6)


def test_warm_up_does_not_move_step_boundaries():
  values = rates(WARM['step'](rate=0.4, warmup=0.1), 100, (49, 50, 99))
  np.testing.assert_allclose(values, [0.4, 0.2, 0.2], rtol=1e-6)


def plateau_changes(losses, **options):
  """Returns the size of each step of SGD, with gradient 1 and these losses."""
  schedule = optimizers.plateau(rate=1.0, **options)
  optimizer = optimizers.sgd(schedule, momentum=0.0, weight_decay=0.0)(
    len(losses)
  )
  optimizer = optax.with_extra_args_support(optimizer)
  params = jnp.zeros(())
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  changes = []
  for loss in losses:
    change, state = update(jnp.ones(()), state, params, value=loss)
    changes.append(-float(change))
  return changes


def test_plateau_reduces_after_patience_windows_without_improvement():
  values = plateau_changes(
    # Two windows with improvement, two without, and one with.
    [9.0, 7.0, 5.0, 3.0, 8.0, 8.0, 8.0, 8.0, 1.0, 1.0],
    factor=0.1,
    patience=2,
    window=2,
    final=1e-5,
  )
  np.testing.assert_allclose(values, [1.0] * 7 + [0.1] * 3, rtol=1e-6)


def test_plateau_averages_over_its_window():
  # All windows of two steps have the mean 4, so only the first one improves.
  noisy = [1.0, 7.0] * 3
  values = plateau_changes(noisy, patience=2, window=2)
  np.testing.assert_allclose(values, [1.0] * 5 + [0.1], rtol=1e-6)


def test_plateau_ends_at_its_final_rate():
  values = plateau_changes([1.0] * 12, patience=1, window=1, final=0.02)
  assert min(values) == pytest.approx(0.02)
  assert values[-1] == pytest.approx(0.02)


def test_a_plateau_rule_ends_training_when_the_final_rate_does_not_help():
  schedule = optimizers.plateau(
    rate=1.0, factor=0.1, patience=2, window=1, final=0.1
  )
  optimizer = optax.with_extra_args_support(optimizers.sgd(schedule)(10))
  state = optimizer.init(jnp.zeros(()))
  # One best loss and two without improvement lower the rate to 0.1; one better
  # loss and two without improvement end training.
  losses, values = [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0], []
  for loss in losses:
    _, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()), value=loss)
    values.append(optimizers.ended(state))
  assert values == [False] * 5 + [True] * 2
  assert not optimizers.ended(optax.sgd(0.1).init(jnp.zeros(())))


@pytest.mark.parametrize(
  'arguments',
  [
    {'factor': 2.0},
    {'patience': 0},
    {'window': 0},
    {'threshold': 0.0},
    {'final': 0.0},
    {'final': 0.1, 'rate': 0.01},
  ],
  ids=lambda arguments: next(iter(arguments)),
)
def test_a_plateau_whose_rate_never_falls_or_falls_at_once_is_refused(
  arguments,
):
  with pytest.raises(UsageError, match=next(iter(arguments))):
    optimizers.plateau(**arguments)


def test_clipping_keeps_the_direction_and_limits_the_norm():
  optimizer = optimizers.sgd(
    optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0, clip=0.5
  )(1)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  gradient = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  change, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_allclose([change['a'][0], change['b'][0]], [-0.3, -0.4])
  small = jax.tree.map(lambda g: g / 100, gradient)
  change, _ = optimizer.update(small, optimizer.init(params), params)
  np.testing.assert_allclose([change['a'][0], change['b'][0]], [-0.03, -0.04])


@pytest.mark.parametrize('name', [*WARM, 'plateau'])
def test_a_rate_that_is_not_a_positive_number_is_refused(name):
  schedule = WARM.get(name, optimizers.plateau)
  for rate in (0.0, -1.0, float('nan'), float('inf')):
    with pytest.raises(UsageError, match='rate'):
      schedule(rate=rate)


@pytest.mark.parametrize('name', WARM)
def test_a_warm_up_outside_its_range_is_refused(name):
  for warmup in (-0.1, 1.0, 5):
    with pytest.raises(UsageError, match='warmup'):
      WARM[name](rate=0.1, warmup=warmup)
