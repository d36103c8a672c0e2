"""Steps that differ only in numbers become one, which takes these numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.training import shared_steps

INPUTS = (jnp.arange(4.0) - 1, jax.random.key(0))


def step(x, rng, *, temperature=1.0, rate=0.1, count=3):
  """A step with calls, a loop, a derivative, and constants in all of them."""

  def loss(x):
    y = jax.lax.fori_loop(0, count, lambda i, y: 0.5 * y, x)
    y = jax.nn.softplus(jax.nn.relu(y) / temperature)
    return -jnp.sum(jax.nn.log_softmax(y)[:2]) * temperature**2

  gradient = jax.grad(loss)(x + jax.random.normal(rng, x.shape))
  return {'x': x - rate * gradient, 'loss': loss(x)}


def steps(**choices):
  """A step for each choice of a keyword."""
  ((key, values),) = choices.items()
  return [functools.partial(step, **{key: value}) for value in values]


def assert_close(some, others):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), some, others
  )


def test_a_shared_step_gives_what_each_step_gives():
  each = [
    functools.partial(step, temperature=t, rate=r)
    for t, r in ((1.0, 0.1), (2.0, 0.3), (4.0, 1.0))
  ]
  pairs = shared_steps.shared(each, INPUTS)
  ((common, _), *_), stacked = (
    pairs,
    jax.tree.map(lambda *x: jnp.stack(x), *(numbers for _, numbers in pairs)),
  )
  mapped = jax.jit(jax.vmap(common, (None, None, *[0] * len(stacked))))(
    *INPUTS, *stacked
  )
  for i, (own, (shared, numbers)) in enumerate(zip(each, pairs, strict=True)):
    assert shared is common
    expected = jax.jit(own)(*INPUTS)
    assert_close(jax.jit(shared)(*INPUTS, *numbers), expected)
    assert_close({k: x[i] for k, x in mapped.items()}, expected)


@pytest.mark.parametrize('rates', [[0.1, 0.1], [0.1, 0.5]])
def test_only_numbers_that_differ_become_arguments(rates):
  pairs = shared_steps.shared(steps(rate=rates), INPUTS)
  expected = [[rate] for rate in rates] if len({*rates}) > 1 else [[], []]
  for (_, numbers), values in zip(pairs, expected, strict=True):
    assert [float(x) for x in numbers] == pytest.approx(values)


def test_arrays_that_a_step_holds_become_arguments_too():
  each = [
    lambda x, rng, by=by: {'x': by * x} for by in (jnp.arange(4.0), jnp.ones(4))
  ]
  pairs = shared_steps.shared(each, INPUTS)
  assert pairs[0][0] is pairs[1][0]
  for own, (shared, numbers) in zip(each, pairs, strict=True):
    assert_close(shared(*INPUTS, *numbers), own(*INPUTS))


@pytest.mark.parametrize(
  'each',
  [
    steps(count=[2, 3]),  # a constant of a loop, which is not a call
    [lambda x, rng: x.reshape(2, 2), lambda x, rng: 2 * x.reshape(2, 2)],
    [lambda x, rng: x * jnp.ones(4), lambda x, rng: x * jnp.ones(1)],
  ],
)
def test_other_steps_are_not_shared(each):
  pairs = shared_steps.shared(each, INPUTS)
  assert pairs[0][0] is not pairs[1][0]
  for own, (shared, numbers) in zip(each, pairs, strict=True):
    assert numbers == ()
    assert_close(shared(*INPUTS, *numbers), own(*INPUTS))
