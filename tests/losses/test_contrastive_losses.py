"""Contrastive losses: their formulas, the bank, the choice of negatives."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError

B, N, K, D = 4, 12, 5, 6
LABELS = np.array([0, 2, 1, 0, 0, 2, 2, 0, 1, 0, 2, 0])


@pytest.fixture(scope='module')
def embeddings():
  rng = np.random.default_rng(15)
  student, teacher = rng.normal(size=(2, B, D))
  return unit_rows(student), unit_rows(teacher)


@pytest.fixture(scope='module')
def bank():
  return losses.init_memory_bank(jax.random.key(2), N, dim=D)


@pytest.fixture(scope='module')
def table():
  return losses.negative_table(LABELS, num_negatives=K)


def call(loss, *arrays, **choices):
  # Compiling the whole loss takes less time than running it operation by
  # operation.
  return jax.jit(functools.partial(loss, **choices))(*arrays)


def unit_rows(x):
  return np.stack([row / math.sqrt(sum(v * v for v in row)) for row in x])


def noise_contrast(scores, num_data, normalizer):
  """Computes the published loss, without the 1e-7 in the denominators.

  The first of the scores exp(.) is the positive one; the noise is 1 / num_data.
  """
  noise = (len(scores) - 1) / num_data
  u = [score / normalizer for score in scores]
  loss = -math.log(u[0] / (u[0] + noise))
  return loss - sum(math.log(noise / (v + noise)) for v in u[1:])


def test_contrastive_loss_by_hand():
  # Student and teacher are both e1, e2, and the temperature is 1. The scores
  # are e on the diagonal and 1 elsewhere, their mean m is (e + 1) / 2 =
  # 1.859141, K is 1, and both directions are equal: 2 * (-log(e / (e + m)) -
  # log(m / (1 + m)))
  #   = 2 * (log(1 + 0.683939) + log(1 + 0.537882)) = 2 * (0.521135 + 0.430406)
  loss = call(losses.contrastive_loss, np.eye(2), np.eye(2), temperature=1.0)
  assert loss == pytest.approx(1.903083, rel=1e-5)


@pytest.mark.parametrize('label', [None, (0, 1, 0, 2)])
def test_contrastive_loss_equals_its_formula(embeddings, label):
  student, teacher = embeddings
  label = label or range(B)
  pairs = [(i, i) for i in range(B)]
  pairs += [(i, j) for i in range(B) for j in range(B) if label[i] != label[j]]
  score = np.exp(student @ teacher.T / 0.07)
  mean = sum(score[pair] for pair in pairs) / len(pairs)
  expected = 0.0
  for i in range(B):
    others = [j for j in range(B) if label[j] != label[i]]
    for matrix in score, score.T:
      scores = [matrix[i, i]] + [matrix[i, j] for j in others]
      expected += noise_contrast(scores, 1000, 1000 * mean) / B
  loss = call(losses.contrastive_loss, *embeddings, np.array(label))
  assert loss == pytest.approx(expected, rel=1e-4)


def test_the_normalizer_is_a_constant_in_the_contrastive_gradient(embeddings):
  student, teacher = embeddings
  mean = np.mean(np.exp(student @ teacher.T / 0.5))

  def reference(student):
    score = np.exp(unit_rows(student) @ teacher.T / 0.5)
    total = 0.0
    for i in range(B):
      others = [j for j in range(B) if j != i]
      for matrix in score, score.T:
        scores = [matrix[i, i]] + [matrix[i, j] for j in others]
        total += noise_contrast(scores, 1000, 1000 * mean) / B
    return total

  step = 1e-5 * np.random.default_rng(16).normal(size=student.shape)
  numeric = (reference(student + step) - reference(student - step)) / 2
  grad = call(
    jax.grad(losses.contrastive_loss), student, teacher, temperature=0.5
  )
  assert np.sum(grad * step) == pytest.approx(numeric, rel=1e-3)


def test_examples_of_the_same_class_are_not_negatives(embeddings):
  student, teacher = embeddings
  label = np.array([0, 0, 1, 2])
  other_label = np.array([0, 1, 1, 2])

  def gradient(label):
    """Gradient of the first anchor's loss in the second example's teacher."""
    grad = jax.grad(losses.contrastive_loss, argnums=1)
    # If the other students are zero, only the first student's scores have a
    # gradient.
    first_only = np.concatenate([student[:1], 0 * student[1:]])
    return call(grad, first_only, teacher, label)[1]

  np.testing.assert_array_equal(gradient(label), 0)
  assert np.max(np.abs(gradient(other_label))) > 1e-3


def remembered(embeddings, bank, index, negatives, **choices):
  loss = losses.memory_contrastive_loss
  return call(loss, *embeddings, bank, index, negatives, **choices)


INDEX = np.array([3, 1, 8, 0])
NEGATIVES = np.array(
  [[1, 2, 5, 6, 8], [0, 2, 3, 4, 7], [0, 1, 3, 4, 5], [1, 2, 5, 6, 10]]
)


def scores_of(anchors, memory):
  rows = np.concatenate([INDEX[:, None], NEGATIVES], axis=1)
  return [
    [math.exp(np.dot(v, memory[r]) / 0.07) for r in row]
    for v, row in zip(anchors, rows)
  ]


def test_memory_contrastive_loss_by_hand():
  # One anchor, e1, the rows e1 (the anchor's) and e2, one negative, temperature
  # 1. As in the first example above, the scores in both directions are e and 1,
  # with the mean 1.859141.
  rows = np.eye(2)
  bank = losses.MemoryBank(rows, rows, -np.inf, -np.inf)
  loss, bank = remembered(
    (rows[:1], rows[:1]), bank, np.array([0]), np.array([[1]]), temperature=1.0
  )
  np.testing.assert_allclose(loss, [1.903083], rtol=1e-5)
  assert bank.student_log_mean == pytest.approx(math.log(1.859141), rel=1e-5)


def test_memory_contrastive_loss_equals_its_formula(embeddings, bank):
  # The first batch sets Z = N * mean score, separately for each direction.
  student, teacher = embeddings
  scores = scores_of(student, bank.teacher), scores_of(teacher, bank.student)
  normalizers = [N * np.mean(s) for s in scores]
  expected = [
    sum(noise_contrast(s[b], N, z) for s, z in zip(scores, normalizers))
    for b in range(B)
  ]
  loss, after = remembered(embeddings, bank, INDEX, NEGATIVES)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  for log_mean, z in zip(after[2:], normalizers):
    assert log_mean == pytest.approx(math.log(z / N), rel=1e-4)


def test_the_constants_are_set_only_once(embeddings, bank):
  _, first = remembered(embeddings, bank, INDEX, NEGATIVES)
  _, second = remembered(embeddings[::-1], first, INDEX, NEGATIVES)
  assert np.isneginf(bank.student_log_mean)
  assert np.isfinite(first.student_log_mean)
  assert first[2:] == second[2:]


def test_visited_rows_move_to_the_embeddings_and_other_rows_do_not_move(
  embeddings, bank
):
  _, after = remembered(embeddings, bank, INDEX, NEGATIVES, momentum=0.25)
  for old, new, vectors in zip(bank[:2], after[:2], embeddings):
    expected = np.array(old)
    expected[INDEX] = unit_rows(0.25 * expected[INDEX] + 0.75 * vectors)
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)


def test_no_gradient_reaches_the_bank(embeddings, bank):
  def total(bank):
    loss, after = remembered(embeddings, bank, INDEX, NEGATIVES)
    return jnp.sum(loss) + jnp.sum(after.student) + after.teacher_log_mean

  assert not any(np.any(g) for g in jax.grad(total)(bank))


def test_a_new_bank_can_be_donated(embeddings):
  bank = losses.init_memory_bank(jax.random.key(6), N, dim=D)

  def step(bank):
    return losses.memory_contrastive_loss(*embeddings, bank, INDEX, NEGATIVES)

  _, after = jax.jit(step, donate_argnums=0)(bank)
  assert bank.student.is_deleted()
  assert not after.student.is_deleted()


def test_a_momentum_above_1_is_refused(embeddings, bank):
  message = r'momentum: expected a number in \[0, 1\], got 1\.5'
  with pytest.raises(UsageError, match=message):
    remembered(embeddings, bank, INDEX, NEGATIVES, momentum=1.5)


def test_rows_of_a_new_bank_are_uniform_with_norm_1_on_average():
  bank = losses.init_memory_bank(jax.random.key(3), 400, dim=12)
  assert bank.student.shape == bank.teacher.shape == (400, 12)
  assert float(jnp.max(jnp.abs(bank.student))) <= 0.5
  assert float(jnp.mean(bank.student**2)) * 12 == pytest.approx(1, abs=0.05)
  assert float(jnp.max(jnp.abs(bank.student - bank.teacher))) > 0.5


def test_negatives_are_different_examples_of_other_classes(table):
  anchors = jnp.asarray(LABELS)
  draws = jax.jit(jax.vmap(losses.sample_negatives, in_axes=(0, None, None)))(
    jax.random.split(jax.random.key(4), 300), table, anchors
  )
  assert draws.shape == (300, N, K)
  assert np.all(LABELS[np.array(draws)] != LABELS[None, :, None])
  ordered = np.sort(draws, axis=-1)
  assert np.all(ordered[..., 1:] > ordered[..., :-1])
  # Every example of another class is drawn equally often. For the 4 anchors of
  # class 2, that is a share of K / 8, with a standard error of about 0.014.
  of_class_2 = np.array(draws)[:, LABELS == 2].ravel()
  share = np.bincount(of_class_2, minlength=N) / (300 * 4)
  np.testing.assert_allclose(share[LABELS != 2], K / 8, atol=0.07)


def test_there_are_no_more_negatives_than_the_data_can_provide(table):
  # 6 of 12 examples belong to class 0, the largest one.
  assert table.slot.size == K
  full = losses.negative_table(LABELS)
  assert full.slot.size == 6
  drawn = call(losses.sample_negatives, jax.random.key(5), full, np.array([0]))
  assert set(np.array(drawn)[0].tolist()) == set(
    np.flatnonzero(LABELS).tolist()
  )


def test_a_single_class_has_no_negatives():
  with pytest.raises(UsageError, match=r'at least 2 classes.*, got 1'):
    losses.negative_table(np.zeros(5, int))
