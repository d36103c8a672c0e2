"""Losses on logits: values computed by hand and by a plain transcription."""

import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError

B, C = 4, 5


@pytest.fixture(scope='module')
def logits():
  rng = np.random.default_rng(3)
  return 2 * rng.normal(size=(B, C)), 2 * rng.normal(size=(B, C))


def softmax(row, temperature):
  weights = [math.exp(x / temperature) for x in row]
  return [w / sum(weights) for w in weights]


def divergence(p, q):
  return sum(a * math.log(a / b) for a, b in zip(p, q))


def pearson(x, y):
  mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
  x, y = [a - mean_x for a in x], [b - mean_y for b in y]
  norms = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
  return sum(a * b for a, b in zip(x, y)) / (norms + 1e-8)


def call(loss, *arrays, **choices):
  # Compiling the whole loss takes less time than running it operation by
  # operation.
  return jax.jit(functools.partial(loss, **choices))(*arrays)


def single(loss, student, teacher, *args, **choices):
  """Returns the loss of a batch of one example."""
  student, teacher = jnp.array([student]), jnp.array([teacher])
  return call(loss, student, teacher, *args, **choices)[0]


def test_soft_target_loss_by_hand():
  # At T = 4, p is (3, 1) / 4 and q is (1, 1) / 2:
  # 16 * (3/4 log(3/2) + 1/4 log(1/2)) = 16 * (0.304099 - 0.173287)
  loss = single(losses.soft_target_loss, [1.0, 1.0], [4 * math.log(3), 0.0])
  assert loss == pytest.approx(2.092996, rel=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_soft_target_loss_equals_its_formula(logits, temperature):
  expected = [
    temperature**2
    * divergence(softmax(t, temperature), softmax(s, temperature))
    for s, t in zip(*logits)
  ]
  loss = call(
    losses.soft_target_loss, *map(jnp.asarray, logits), temperature=temperature
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize(
  'name, temperature',
  [
    *itertools.product(
      ['soft_target_loss', 'decoupled_kd_loss'], [0.5, 4.0, 10.0, 40.0, 1000.0]
    ),
    ('dist_loss', 4.0),
  ],
)
def test_a_traced_temperature_gives_the_loss_and_gradient_of_a_number(
  logits, name, temperature
):
  student, teacher = map(jnp.asarray, logits)
  key = 'tau' if name == 'dist_loss' else 'temperature'
  labels = (jnp.arange(B) % C,) if name == 'decoupled_kd_loss' else ()

  def loss(student, temperature):
    arguments = (student, teacher, *labels)
    return getattr(losses, name)(*arguments, **{key: temperature}).sum()

  numbers = jax.value_and_grad(loss)(student, temperature)
  traced = jax.jit(jax.value_and_grad(loss))(student, temperature)
  chex.assert_trees_all_close(traced, numbers, rtol=1e-5, atol=1e-7)


def test_a_learned_temperature_has_the_gradient_of_its_loss(logits):
  def loss(temperature):
    student, teacher = map(jnp.asarray, logits)
    arguments = {'temperature': temperature}
    return losses.soft_target_loss(student, teacher, **arguments).sum()

  for temperature in (2.0, 20.0):
    step = 1e-2 * temperature
    slope = (loss(temperature + step) - loss(temperature - step)) / (2 * step)
    gradient = jax.grad(loss)(temperature)
    np.testing.assert_allclose(gradient, slope, rtol=2e-2)


def test_a_temperature_for_each_example_is_refused(logits):
  with pytest.raises(UsageError, match=r'temperature: .* shape \(4,\)'):
    losses.soft_target_loss(*map(jnp.asarray, logits), temperature=jnp.ones(B))


def test_soft_target_loss_accepts_any_leading_axes(logits):
  maps = [jnp.asarray(x).reshape(2, 2, C) for x in logits]
  np.testing.assert_allclose(
    call(losses.soft_target_loss, *maps).ravel(),
    call(losses.soft_target_loss, *map(jnp.asarray, logits)),
    rtol=1e-5,
  )


def test_tempered_cross_entropy_by_hand():
  # At T = 2.5, p is (3, 1) / 4 and q is (1, 1) / 2. There is no factor T**2.
  teacher = [2.5 * math.log(3), 0.0]
  loss = single(losses.tempered_cross_entropy, [0.0, 0.0], teacher)
  assert loss == pytest.approx(math.log(2), rel=1e-6)


def test_tempered_cross_entropy_equals_its_formula(logits):
  expected = []
  for s, t in zip(*logits):
    p, q = softmax(t, 2.5), softmax(s, 2.5)
    expected.append(-sum(a * math.log(b) for a, b in zip(p, q)))
  loss = call(losses.tempered_cross_entropy, *map(jnp.asarray, logits))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_refinery_loss_by_hand():
  # p = (1, 3) / 4, q = (3, 1) / 4: -1/4 log(3/4) - 3/4 log(1/4)
  log3 = math.log(3)
  loss = single(losses.refinery_loss, [log3, 0.0], [0.0, log3])
  assert loss == pytest.approx(1.111641, rel=1e-5)


def test_refinery_loss_equals_its_formula(logits):
  expected = []
  for s, t in zip(*logits):
    p, q = softmax(t, 1), softmax(s, 1)
    expected.append(-sum(a * math.log(b) for a, b in zip(p, q)))
  loss = call(losses.refinery_loss, *map(jnp.asarray, logits))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_logit_squared_error_by_hand():
  # (1 + 4 + 9) / 2
  loss = single(losses.logit_squared_error, [1.0, 0.0, 3.0], [2.0, 2.0, 0.0])
  assert loss == pytest.approx(7.0)


def test_logit_squared_error_equals_its_formula(logits):
  expected = [
    sum((a - b) ** 2 for a, b in zip(s, t)) / 2 for s, t in zip(*logits)
  ]
  loss = call(losses.logit_squared_error, *map(jnp.asarray, logits))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_decoupled_kd_loss_by_hand():
  # Teacher (2, 1, 1) / 4, student (1, 1, 2) / 4, label 0, T = 1:
  # label   1/2 log(2/1) + 1/2 log(2/3)               = 0.143841
  # others  (1, 1) / 2 against (1, 2) / 3
  #         1/2 log(3/2) + 1/2 log(3/4)               = 0.058892
  # 1 * 0.143841 + 8 * 0.058892
  log2 = math.log(2)
  loss = single(
    losses.decoupled_kd_loss,
    [0.0, 0.0, log2],
    [log2, 0.0, 0.0],
    jnp.array([0]),
    temperature=1.0,
  )
  assert loss == pytest.approx(0.614974, rel=1e-5)


def test_decoupled_kd_loss_equals_its_formula(logits):
  labels, expected = [1, 0, 4, 2], []
  for s, t, y in zip(*logits, labels):
    p, q = softmax(t, 4), softmax(s, 4)
    target = divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
    others = divergence(
      [p[c] / (1 - p[y]) for c in range(C) if c != y],
      [q[c] / (1 - q[y]) for c in range(C) if c != y],
    )
    expected.append(16 * (0.5 * target + 3 * others))
  loss = call(
    losses.decoupled_kd_loss,
    *map(jnp.asarray, logits),
    jnp.asarray(labels),
    alpha=0.5,
    beta=3.0,
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_decoupled_kd_loss_adds_up_to_the_soft_target_loss(logits):
  # KL = KL(label) + (1 - p_label) KL(others) holds for each example.
  labels = jnp.array([1, 0, 4, 2])
  arrays = [jnp.asarray(x) for x in logits]
  target = call(losses.decoupled_kd_loss, *arrays, labels, beta=0.0)
  others = call(losses.decoupled_kd_loss, *arrays, labels, alpha=0.0, beta=1.0)
  rest = [1 - softmax(t, 4)[y] for t, y in zip(logits[1], labels)]
  np.testing.assert_allclose(
    target + jnp.array(rest) * others,
    call(losses.soft_target_loss, *arrays),
    rtol=1e-4,
  )


def test_decoupled_kd_loss_refuses_labels_of_another_shape(logits):
  with pytest.raises(AssertionError):
    call(
      losses.decoupled_kd_loss,
      *map(jnp.asarray, logits),
      jnp.zeros((B, 1), int),
    )


def test_dist_loss_by_hand():
  # The student's probabilities are (3, 1) / 4 and (1, 3) / 4, and the teacher's
  # are the same rows swapped. The correlation of all rows and columns is -1, so
  # beta and gamma each contribute 1 + 1.
  log3 = math.log(3)
  student = jnp.array([[log3, 0.0], [0.0, log3]])
  loss = call(losses.dist_loss, student, student[::-1])
  assert loss == pytest.approx(4.0, rel=1e-6)


def test_dist_loss_equals_its_formula(logits):
  q = [softmax(s, 4) for s in logits[0]]
  p = [softmax(t, 4) for t in logits[1]]
  inter = 1 - sum(pearson(p[b], q[b]) for b in range(B)) / B
  intra = 0.0
  for c in range(C):
    intra += 1 - pearson([row[c] for row in p], [row[c] for row in q])
  expected = 16 * (2 * inter + 3 * intra / C)
  loss = call(
    losses.dist_loss,
    *map(jnp.asarray, logits),
    beta=2.0,
    gamma=3.0,
    tau=4.0,
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_defaults_are_those_of_the_publications(logits):
  s, t = map(jnp.asarray, logits)
  labels = jnp.array([1, 0, 4, 2])
  for default, explicit in [
    (
      call(losses.soft_target_loss, s, t),
      call(losses.soft_target_loss, s, t, temperature=4),
    ),
    (
      call(losses.decoupled_kd_loss, s, t, labels),
      call(
        losses.decoupled_kd_loss, s, t, labels, alpha=1, beta=8, temperature=4
      ),
    ),
    (
      call(losses.dist_loss, s, t),
      call(losses.dist_loss, s, t, beta=1, gamma=1, tau=1),
    ),
  ]:
    np.testing.assert_array_equal(default, explicit)
