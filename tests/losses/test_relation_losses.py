"""Losses on relations: values by hand and by a plain transcription."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError

B = 4


@pytest.fixture(scope='module')
def vectors():
  rng = np.random.default_rng(13)
  return rng.normal(size=(B, 6)), rng.normal(size=(B, 3))


def call(loss, student, teacher):
  # Compiling the whole loss takes less time than running it operation by
  # operation.
  arrays = jax.tree.map(lambda x: np.asarray(x, np.float32), (student, teacher))
  return jax.jit(loss)(*arrays)


def dot(x, y):
  return sum(float(a) * float(b) for a, b in zip(x, y))


def length(x):
  return math.sqrt(dot(x, x))


def huber(x):
  return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def test_similarity_preserving_loss_by_hand():
  # The students are orthogonal, with the rows (1, 0) and (0, 1). The teachers
  # are equal, with the rows (1, 1) / sqrt(2). The 4 entries differ by 1 -
  # 0.707107 or 0.707107: 2 * (0.085786 + 0.5) / 4
  student, teacher = np.eye(2), np.ones((2, 2))
  loss = call(losses.similarity_preserving_loss, student, teacher)
  assert loss == pytest.approx(0.292893, rel=1e-5)


def test_similarity_preserving_loss_equals_its_formula(vectors):
  rows = []
  for x in vectors:
    gram = [[dot(a, b) for b in x] for a in x]
    rows.append([[v / length(row) for v in row] for row in gram])
  expected = 0.0
  for i in range(B):
    for j in range(B):
      expected += (rows[0][i][j] - rows[1][i][j]) ** 2 / B**2
  loss = call(losses.similarity_preserving_loss, *vectors)
  assert loss == pytest.approx(expected, rel=1e-4)


def test_relational_distance_loss_by_hand():
  # The students at 0, 1, 2 have the distances 1, 2, 1; divided by their mean,
  # 4/3, they are 3/4, 3/2, 3/4. The teachers at 0, 1, 1 have the distances 1,
  # 1, 0; divided by their mean, 2/3, they are 3/2, 3/2, 0. Each of the 3 pairs
  # is counted twice among 9 entries: 2/9 (1/2 (3/4)**2 + 0 + 1/2 (3/4)**2)
  student, teacher = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1, 1])
  loss = call(losses.relational_distance_loss, student, teacher[:, None])
  assert loss == pytest.approx(0.125, rel=1e-6)


def test_relational_distance_loss_equals_its_formula(vectors):
  distances = []
  for x in vectors:
    d = [[length(a - b) for b in x] for a in x]
    mean = sum(map(sum, d)) / (B * (B - 1))
    distances.append([[v / mean for v in row] for row in d])
  expected = 0.0
  for i in range(B):
    for j in range(B):
      expected += huber(distances[0][i][j] - distances[1][i][j]) / B**2
  loss = call(losses.relational_distance_loss, *vectors)
  assert loss == pytest.approx(expected, rel=1e-4)


def test_second_derivatives_of_relational_distance_are_those_of_its_formula():
  rng = np.random.default_rng(0)
  student, teacher = jnp.float32(rng.normal(size=(2, 3, 2)))
  i, j = np.triu_indices(3, 1)

  def formula(student):
    # Each pair once, since the others are equal and the diagonal is zero.
    relative = []
    for x in (student, teacher):
      distances = jnp.sqrt(jnp.sum((x[i] - x[j]) ** 2, axis=1))
      relative.append(distances / jnp.mean(distances))
    return jnp.sum(0.5 * (relative[0] - relative[1]) ** 2) * 2 / 9

  def hessian(loss):
    return jax.jit(jax.hessian(loss))(student)

  np.testing.assert_allclose(
    hessian(lambda s: losses.relational_distance_loss(s, teacher)),
    hessian(formula),
    atol=1e-5,
  )


def test_relational_losses_do_not_depend_on_scale_and_shift(vectors):
  student, teacher = vectors
  for loss in losses.relational_distance_loss, losses.relational_angle_loss:
    moved = call(loss, 3 * student + 1, 0.1 * teacher - 2)
    assert moved == pytest.approx(float(call(loss, *vectors)), rel=1e-4)


def test_relational_angle_loss_by_hand():
  # The students (0, 0), (1, 0), (0, 1) form a right angle at the first example
  # and 45 degrees at the others. The teachers lie on a line, 0 between -1 and
  # 1, with the cosines -1, 1, 1. Each of the 3 angles is counted twice among
  # 27: 2/27 (1/2 + (1 - 0.707107)**2)
  student = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  teacher = np.array([[0.0], [-1.0], [1.0]])
  # |0 - (-1)| = 1 is where the two branches of the Huber loss meet; both give
  # 1/2.
  loss = call(losses.relational_angle_loss, student, teacher)
  assert loss == pytest.approx(0.0433918, rel=1e-4)


def test_relational_angle_loss_equals_its_formula(vectors):
  expected = 0.0
  for i in range(B):
    for j in range(B):
      for k in range(B):
        cosines = []
        for x in vectors:
          to_j, to_k = x[j] - x[i], x[k] - x[i]
          norms = max(length(to_j), 1e-12) * max(length(to_k), 1e-12)
          cosines.append(dot(to_j, to_k) / norms)
        expected += huber(cosines[0] - cosines[1]) / B**3
  loss = call(losses.relational_angle_loss, *vectors)
  assert loss == pytest.approx(expected, rel=1e-4)


def test_relations_of_near_neighbours_are_exact_despite_a_large_offset():
  # A distance computed from the Gram matrix would be lost in its rounding
  # error, 1e6 * 2**-24.
  near = np.array([[0.0, 0], [1, 0], [0, 1], [2, 3]]) / 8
  for loss in losses.relational_distance_loss, losses.relational_angle_loss:
    np.testing.assert_allclose(call(loss, near + 1000, near), 0, atol=1e-6)


def test_probabilistic_transfer_loss_by_hand():
  # The students are orthogonal, with the similarities 1, 1/2 and the rows (2,
  # 1) / 3. The teachers are equal, with the rows (1, 1) / 2. The loss is the
  # mean of 1/2 log(3/4) and 1/2 log(3/2).
  student, teacher = np.eye(2), np.ones((2, 2))
  loss = call(losses.probabilistic_transfer_loss, student, teacher)
  assert loss == pytest.approx(0.0294458, rel=1e-4)


def test_probabilistic_transfer_loss_equals_its_formula(vectors):
  choices = []
  for x in vectors:
    s = [[(dot(a, b) / length(a) / length(b) + 1) / 2 for b in x] for a in x]
    choices.append([[v / sum(row) for v in row] for row in s])
  expected = 0.0
  for s, t in zip(*choices):
    for p, q in zip(s, t):
      expected += q * math.log((q + 1e-7) / (p + 1e-7)) / B**2
  loss = call(losses.probabilistic_transfer_loss, *vectors)
  assert loss == pytest.approx(expected, rel=1e-3)


def test_probabilistic_transfer_loss_is_finite_between_opposite_vectors():
  # Because of rounding, some of these cosines are below -1 - 2e-7.
  half = np.random.default_rng(18).normal(size=(200, 1, 512)) ** 3
  pairs = np.float32(np.concatenate([half, -half], axis=1))
  loss = jax.vmap(losses.probabilistic_transfer_loss)
  assert np.all(np.isfinite(jax.jit(loss)(pairs, pairs[::-1])))


def test_correlation_congruence_loss_by_hand():
  # The errors are (1, 2), (3, 0), (1, 1): (1 * 3 + 2 * 0 + 3 * 1 + 0 * 1) / 2
  student = np.array([[1.0, -2.0], [-3.0, 0.0], [1.0, 1.0]])
  loss = call(losses.correlation_congruence_loss, student, np.zeros((3, 2)))
  assert loss == pytest.approx(3.0)


def test_correlation_congruence_loss_equals_its_formula(vectors):
  student, teacher = vectors[0], vectors[0][::-1] + 0.3
  expected = 0.0
  for b in range(B - 1):
    for d in range(6):
      first = abs(student[b, d] - teacher[b, d])
      expected += first * abs(student[b + 1, d] - teacher[b + 1, d]) / (B - 1)
  loss = call(losses.correlation_congruence_loss, student, teacher)
  assert loss == pytest.approx(expected, rel=1e-5)


def test_flow_loss_by_hand():
  # There are two positions. The student's features are (1, 2) and (3, 5), so
  # its G is (1 * 3 + 2 * 5) / 2 = 6.5. The teacher's are (1, 1) and (1, 0), so
  # its G is 0.5. The loss is (6.5 - 0.5)**2.
  first, second, third = (
    np.array(x).reshape(1, 1, 2, 1)
    for x in ([1.0, 2.0], [3.0, 5.0], [1.0, 0.0])
  )
  loss = call(losses.flow_loss, [first, second], [np.ones_like(first), third])
  np.testing.assert_allclose(loss, [36.0])


def test_flow_loss_equals_its_formula():
  rng = np.random.default_rng(14)
  shapes = (B, 4, 4, 3), (B, 4, 4, 2), (B, 2, 2, 5)
  student = [rng.normal(size=s) for s in shapes]
  teacher = [rng.normal(size=s) for s in shapes]

  def flow(first, second):
    # The last map has half the size, so the one before it is pooled over
    # windows of 2 x 2 positions.
    if first.shape[0] > second.shape[0]:
      halves = first.reshape(2, 2, 2, 2, -1)
      first = halves.sum(axis=(1, 3)) / 4
    matrix = np.zeros((first.shape[-1], second.shape[-1]))
    for i in range(first.shape[0]):
      for j in range(first.shape[1]):
        matrix += np.outer(first[i, j], second[i, j])
    return matrix / (first.shape[0] * first.shape[1])

  expected = np.zeros(B)
  for i in range(2):
    for b in range(B):
      g_s = flow(student[i][b], student[i + 1][b])
      g_t = flow(teacher[i][b], teacher[i + 1][b])
      expected[b] += np.mean((g_s - g_t) ** 2)
  loss = call(losses.flow_loss, student, teacher)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_flow_loss_refuses_a_single_feature():
  with pytest.raises(UsageError, match='expected at least 2 features, got 1'):
    losses.flow_loss([jnp.ones((1, 2, 2, 1))], [jnp.ones((1, 2, 2, 1))])


def test_flow_loss_refuses_a_different_number_of_channels():
  student, teacher = jnp.ones((1, 2, 2, 1)), jnp.ones((1, 2, 2, 3))
  with pytest.raises(AssertionError):
    losses.flow_loss([student, student], [teacher, teacher])
