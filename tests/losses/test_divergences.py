"""Soft targets at every temperature, against decimals of 60 digits."""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses

TEMPERATURES = (0.1, 1.0, 4.0, 10.0, 11.0, 100.0, 1e3, 1e4, 1e6)
LABEL = np.array([1, 0, 4])
EXACT = decimal.Context(prec=60)


def _draw(scale, offset=0.0):
  rng = np.random.default_rng(3)
  student, teacher = scale * rng.normal(size=(2, 3, 5)) + offset
  return student.astype(np.float32), teacher.astype(np.float32)


LOGITS = {
  'usual': _draw(3.0),
  'far from zero': _draw(1.0, offset=1000.0),
  'large': _draw(1000.0),
  'almost equal': (_draw(3.0)[0], _draw(3.0)[0] + 0.01 * _draw(1.0)[1]),
}


def _softmax(row, temperature):
  """Returns the probabilities of a row of logits as decimals."""
  with decimal.localcontext(EXACT):
    row = [decimal.Decimal(float(x)) for x in row]
    divisor = decimal.Decimal(temperature)
    weights = [((x - max(row)) / divisor).exp() for x in row]
    return [w / sum(weights) for w in weights]


def _divergence(p, q):
  with decimal.localcontext(EXACT):
    return sum((a * (a / b).ln() for a, b in zip(p, q)), decimal.Decimal(0))


def _without(p, label):
  with decimal.localcontext(EXACT):
    others = [x for c, x in enumerate(p) if c != label]
    return [x / sum(others) for x in others]


def _soft_targets(student, teacher, label, temperature):
  """Returns T**2 KL and its gradient (q - p) T of one example."""
  del label
  q, p = _softmax(student, temperature), _softmax(teacher, temperature)
  grad = [float(b - a) * temperature for a, b in zip(p, q)]
  return float(_divergence(p, q)) * temperature**2, grad


def _decoupled(student, teacher, label, temperature):
  """Returns the loss of DKD with weights 1 and 1, and its gradient."""
  q, p = _softmax(student, temperature), _softmax(teacher, temperature)
  q_others, p_others = _without(q, label), _without(p, label)
  total = _divergence(
    [p[label], sum(p) - p[label]], [q[label], sum(q) - q[label]]
  ) + _divergence(p_others, q_others)
  moved = q[label] - p[label]
  grad = [
    float(b - a - moved * b) * temperature for a, b in zip(p_others, q_others)
  ]
  grad.insert(label, float(moved) * temperature)
  return float(total) * temperature**2, grad


def _soft_target_loss(student, teacher, temperature):
  return losses.soft_target_loss(student, teacher, temperature=temperature)


def _decoupled_kd_loss(student, teacher, temperature):
  return losses.decoupled_kd_loss(
    student, teacher, jnp.asarray(LABEL), beta=1.0, temperature=temperature
  )


CASES = {
  'soft_targets': (_soft_target_loss, _soft_targets),
  'decoupled': (_decoupled_kd_loss, _decoupled),
}


@functools.cache
def _compiled(name, temperature):
  loss, _ = CASES[name]

  def total(student, teacher):
    each = loss(student, teacher, temperature)
    return each.sum(), each

  return jax.jit(jax.grad(total, has_aux=True))


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize('name', CASES)
def test_value_and_gradient_are_accurate_at_every_temperature(
  name, temperature
):
  for kind, (student, teacher) in LOGITS.items():
    grad, loss = _compiled(name, temperature)(student, teacher)
    exact = CASES[name][1]
    rows = [
      exact(s, t, y, temperature) for s, t, y in zip(student, teacher, LABEL)
    ]
    exact_loss, exact_grad = (np.array(x) for x in zip(*rows))
    # Up to T = 10, the usual sum loses what is below the rounding of its terms.
    rounding = 2e-6 * temperature * (temperature <= 10)
    largest = np.abs([student, teacher]).max()
    rtol = 2e-4 if kind == 'almost equal' else 2e-5
    np.testing.assert_allclose(
      loss, exact_loss, rtol=rtol, atol=rounding * (temperature + largest)
    )
    atol = rtol * np.abs(exact_grad).max() + rounding
    np.testing.assert_allclose(grad, exact_grad, rtol=0, atol=atol)


@pytest.mark.parametrize('temperature', [1e3, 1e4, 1e6])
@pytest.mark.parametrize('name', CASES)
def test_a_divergence_is_never_negative(name, temperature):
  student, teacher = _draw(1e-3)
  _, loss = _compiled(name, temperature)(student, teacher)
  assert np.all(np.asarray(loss) > 0)
  grad, loss = _compiled(name, temperature)(student, student)
  assert np.all(np.asarray(loss) == 0)
  # The gradient between unequal logits of this size is about 1e-4.
  np.testing.assert_allclose(grad, 0, atol=1e-9)


@pytest.mark.parametrize('label', [-1, 5, 1000])
def test_labels_that_do_not_exist_give_what_is_documented(label):
  student, teacher = LOGITS['usual']
  labels = jnp.full(3, label)
  loss = losses.decoupled_kd_loss(
    jnp.asarray(student), jnp.asarray(teacher), labels
  )
  assert np.all(np.isnan(loss)) == (label >= 5)
