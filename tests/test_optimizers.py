"""Optimisers against hand-written updates, schedules at points by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import optimizers
from jaxdistill.types import UsageError

START = {'w': np.array([1.0, -2.0, 0.5]), 'b': np.array([3.0])}
# The gradient of w**4 / 4 and so on: another at each step.
SCALE = {'w': np.array([1.0, 0.3, -2.0]), 'b': np.array([0.1])}


def gradient_at(params):
  return {k: SCALE[k] * params[k] ** 3 for k in params}


def run(optimizer, steps, num_steps=10):
  """Parameters after some steps, in float32 by the library."""
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
  """As https://pytorch.org/docs/stable/generated/torch.optim.SGD.html."""
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


def assert_close(ours, theirs):
  for key, value in theirs.items():
    np.testing.assert_allclose(ours[key], value, rtol=2e-5)


@pytest.mark.parametrize(
  ('momentum', 'nesterov', 'clip'),
  [(0.9, True, None), (0.9, False, None), (0.0, True, None), (0.9, True, 0.5)],
)
def test_sgd_with_weight_decay_is_that_of_pytorch(momentum, nesterov, clip):
  schedule = optimizers.linear(rate=0.1, final=0.0)
  ours = run(
    optimizers.sgd(
      schedule,
      momentum=momentum,
      nesterov=nesterov,
      weight_decay=0.05,
      clip=clip,
    ),
    3,
  )
  theirs = torch_sgd(
    3,
    rates=(0.1, 0.09, 0.08),
    momentum=momentum,
    nesterov=nesterov,
    weight_decay=0.05,
    clip=clip,
  )
  assert_close(ours, theirs)


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


def test_lars_scales_the_gradient_of_a_kernel_to_the_kernel():
  """|(3, 4)| = 5; the gradient of length 10 becomes one of 0.1 * 5."""
  params = {'kernel': jnp.array([[3.0, 4.0]]), 'bias': jnp.array([1.0])}
  gradient = {'kernel': jnp.array([[6.0, -8.0]]), 'bias': jnp.array([2.0])}
  schedule = optimizers.constant(rate=0.5)
  made = optimizers.lars(schedule, trust=0.1, momentum=0.0)(10)
  change, _ = jax.jit(made.update)(gradient, made.init(params), params)
  np.testing.assert_allclose(change['kernel'], [[-0.15, 0.2]], rtol=1e-6)
  np.testing.assert_allclose(change['bias'], [-1.0])
  with pytest.raises(UsageError, match=r'optimizer\.trust: 0 is no number abo'):
    optimizers.lars(schedule, trust=0)


def test_adamw_clips_the_gradient_and_not_the_weight_decay():
  schedule = optimizers.constant(rate=0.1)
  decay = {k: v * (1 - 0.1 * 0.2) for k, v in START.items()}
  made = optimizers.adamw(schedule, weight_decay=0.2, clip=1e-20)
  assert_close(run(made, 1), decay)


def rates(schedule, num_steps, steps):
  function = schedule.rate(num_steps)
  return [float(function(step)) for step in steps]


def test_cosine_at_the_start_middle_and_end():
  found = rates(optimizers.cosine(rate=0.2, final=0.02), 100, (0, 50, 100, 200))
  np.testing.assert_allclose(found, [0.2, 0.11, 0.02, 0.02], rtol=1e-6)


def test_cosine_at_a_quarter():
  # (1 + cos(pi / 4)) / 2
  found = rates(optimizers.cosine(rate=1.0), 40, (10,))
  np.testing.assert_allclose(found, [(1 + np.sqrt(0.5)) / 2], rtol=1e-6)


def test_linear_at_the_start_middle_and_end():
  found = rates(optimizers.linear(rate=0.2, final=0.1), 100, (0, 50, 100, 150))
  np.testing.assert_allclose(found, [0.2, 0.15, 0.1, 0.1], rtol=1e-6)


def test_constant_is_constant():
  found = rates(optimizers.constant(rate=0.3), 100, (0, 7, 100))
  np.testing.assert_allclose(found, [0.3] * 3)


@pytest.mark.parametrize('num_steps', [240, 2400])
def test_step_boundaries_are_shares_of_the_run(num_steps):
  unit = num_steps // 240
  schedule = optimizers.step(rate=0.05)
  steps = [unit * e + d for e in (150, 180, 210) for d in (-1, 0)]
  np.testing.assert_allclose(
    rates(schedule, num_steps, steps),
    [0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5],
    rtol=1e-5,
  )


def test_step_boundaries_that_fall_together_all_count():
  schedule = optimizers.step(rate=1.0, boundaries=(0.75, 0.8, 0.85), factor=0.1)
  found = rates(schedule, 4, (2, 3))
  np.testing.assert_allclose(found, [1.0, 1e-3], rtol=1e-5)


WARM = {
  'cosine': functools.partial(optimizers.cosine, final=0.0),
  'linear': functools.partial(optimizers.linear, final=0.0),
  'step': functools.partial(optimizers.step, boundaries=(0.5,), factor=0.5),
  'constant': optimizers.constant,
}


@pytest.mark.parametrize('name', WARM)
def test_warm_up_rises_in_a_line_to_the_rate(name):
  schedule = WARM[name](rate=0.4, warmup=0.1)
  found = rates(schedule, 100, (0, 5, 10))
  np.testing.assert_allclose(found, [0, 0.2, 0.4], atol=1e-7)


def test_after_the_warm_up_the_schedule_takes_what_is_left():
  # 10 steps of warm-up and 90 of the rest, whose middle is step 55.
  for name, middle in (('cosine', 0.2), ('linear', 0.2)):
    found = rates(WARM[name](rate=0.4, warmup=0.1), 100, (55, 100))
    np.testing.assert_allclose(found, [middle, 0], atol=1e-6)


def test_warm_up_does_not_move_step_boundaries():
  found = rates(WARM['step'](rate=0.4, warmup=0.1), 100, (49, 50, 99))
  np.testing.assert_allclose(found, [0.4, 0.2, 0.2], rtol=1e-6)


def plateau_changes(losses, **options):
  """What one step of SGD on a gradient of 1 changes, at each loss."""
  schedule = optimizers.plateau(rate=1.0, **options)
  made = optimizers.sgd(schedule, momentum=0.0, weight_decay=0.0)(len(losses))
  made = optax.with_extra_args_support(made)
  params = jnp.zeros(())
  state = made.init(params)
  update = jax.jit(made.update)
  changes = []
  for loss in losses:
    change, state = update(jnp.ones(()), state, params, value=loss)
    changes.append(-float(change))
  return changes


def test_plateau_reduces_after_patience_windows_without_improvement():
  found = plateau_changes(
    # Two windows that improve, then two that do not, then one that does.
    [9.0, 7.0, 5.0, 3.0, 8.0, 8.0, 8.0, 8.0, 1.0, 1.0],
    factor=0.1,
    patience=2,
    window=2,
    final=1e-5,
  )
  np.testing.assert_allclose(found, [1.0] * 7 + [0.1] * 3, rtol=1e-6)


def test_plateau_averages_over_its_window():
  # Each window of two has the mean 4: the first is the best there was.
  noisy = [1.0, 7.0] * 3
  found = plateau_changes(noisy, patience=2, window=2)
  np.testing.assert_allclose(found, [1.0] * 5 + [0.1], rtol=1e-6)


def test_plateau_ends_at_its_final_rate():
  found = plateau_changes([1.0] * 12, patience=1, window=1, final=0.02)
  assert min(found) == pytest.approx(0.02)
  assert found[-1] == pytest.approx(0.02)


def test_a_plateau_ends_when_the_final_rate_does_not_help_either():
  schedule = optimizers.plateau(
    rate=1.0, factor=0.1, patience=2, window=1, final=0.1
  )
  made = optax.with_extra_args_support(optimizers.sgd(schedule)(10))
  state = made.init(jnp.zeros(()))
  # Best, 2 in vain: rate 0.1; better, 2 in vain: the end.
  losses, found = [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0], []
  for loss in losses:
    _, state = made.update(jnp.ones(()), state, jnp.zeros(()), value=loss)
    found.append(optimizers.ended(state))
  assert found == [False] * 5 + [True] * 2
  assert not optimizers.ended(optax.sgd(0.1).init(jnp.zeros(())))


@pytest.mark.parametrize(
  'wrong',
  [
    {'factor': 2.0},
    {'patience': 0},
    {'window': 0},
    {'threshold': 0.0},
    {'final': 0.0},
    {'final': 0.1, 'rate': 0.01},
  ],
  ids=lambda wrong: next(iter(wrong)),
)
def test_a_plateau_that_never_or_always_falls_is_refused(wrong):
  with pytest.raises(UsageError, match=f'schedule.{next(iter(wrong))}'):
    optimizers.plateau(**wrong)


def test_clipping_keeps_the_direction_and_the_norm_below():
  made = optimizers.sgd(
    optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0, clip=0.5
  )(1)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  gradient = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  change, _ = made.update(gradient, made.init(params), params)
  np.testing.assert_allclose([change['a'][0], change['b'][0]], [-0.3, -0.4])
  small = jax.tree.map(lambda g: g / 100, gradient)
  change, _ = made.update(small, made.init(params), params)
  np.testing.assert_allclose([change['a'][0], change['b'][0]], [-0.03, -0.04])


@pytest.mark.parametrize('name', [*WARM, 'plateau'])
def test_a_rate_that_is_none_is_refused(name):
  schedule = WARM.get(name, optimizers.plateau)
  for rate in (0.0, -1.0, float('nan'), float('inf')):
    with pytest.raises(UsageError, match='rate'):
      schedule(rate=rate)


@pytest.mark.parametrize('name', WARM)
def test_a_warm_up_that_is_no_share_is_refused(name):
  for warmup in (-0.1, 1.0, 5):
    with pytest.raises(UsageError, match='warmup'):
      WARM[name](rate=0.1, warmup=warmup)
