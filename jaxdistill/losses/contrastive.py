"""Contrastive representation distillation, within a batch and with a memory."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses import numerics
from jaxdistill.types import UsageError


class MemoryBank(NamedTuple):
  """Running embeddings of every training example, and two constants.

  Attributes:
    student: `[num_data, D]`, rows of norm 1.
    teacher: `[num_data, D]`, rows of norm 1.
    student_log_mean: log of the mean score of the student's anchors in the
      first batch, scalar; -inf before it.
    teacher_log_mean: the same of the teacher's anchors.
  """

  student: jax.Array
  teacher: jax.Array
  student_log_mean: jax.Array
  teacher_log_mean: jax.Array


class NegativeTable(NamedTuple):
  """A data set sorted by class, to draw from all classes but one.

  Attributes:
    order: indices of the examples, one class after the other, `[num_data]`.
    start: place in `order` at which a class begins, `[num_classes]`.
    size: examples of a class, `[num_classes]`.
    slot: 0, 1, ..., K - 1: one for each negative of an anchor, `[K]`.
  """

  order: jax.Array
  start: jax.Array
  size: jax.Array
  slot: jax.Array


def contrastive_loss(
  student: jax.Array,
  teacher: jax.Array,
  label: jax.Array | None = None,
  *,
  temperature: float = 0.07,
) -> jax.Array:
  """Tells the other network's embedding of an example from the batch's others.

    mean_i -log h(s_i, t_i) - sum_j log(1 - h(s_i, t_j)), plus s and t swapped,
    h(s, t) = u / (u + K / n),  u = exp(s . t / temperature) / Z

  j runs over the K negatives of i: all other examples or, with labels, those
  of other classes. Z is n times the mean score, as in
  `memory_contrastive_loss`, here of this batch and constant in the gradient:
  the size n of the data set cancels. The authors' code, that of RepDistiller,
  draws negatives from a memory only and adds 1e-7 to denominators, for which
  the log-sigmoid here has no need.

  Args:
    student: embeddings, `[B, D]`; they are normalised here.
    teacher: embeddings, `[B, D]`; their layer is trained as well: the gradient
      flows to both arguments.
    label: classes, `[B]`, or None.
    temperature: of the scores, > 0.

  Returns:
    A scalar in nats: the loss compares pairs of examples.

  Raises:
    UsageError: the temperature is not positive.

  References:
    Tian et al., Contrastive Representation Distillation, 2019,
    https://arxiv.org/abs/1910.10699
  """
  student, teacher = _embeddings(student, teacher, temperature)
  scores = numerics.contract('id,jd->ij', student, teacher) / temperature
  same = jnp.eye(student.shape[0], dtype=bool)
  if label is None:
    negative = ~same
  else:
    chex.assert_shape(label, student.shape[:1])
    negative = label[:, None] != label[None, :]
  log_mean = _log_mean(scores, where=same | negative)
  positive = jnp.diagonal(scores)
  return jnp.mean(
    _discrimination(positive, scores, negative, log_mean)
    + _discrimination(positive, scores.T, negative, log_mean)
  )


def memory_contrastive_loss(
  student: jax.Array,
  teacher: jax.Array,
  bank: MemoryBank,
  index: jax.Array,
  negatives: jax.Array,
  *,
  temperature: float = 0.07,
  momentum: float = 0.5,
) -> tuple[jax.Array, MemoryBank]:
  """Tells the other network's memory of an example from those of others.

    -log h(s, T_i) - sum_k log(1 - h(s, T_k)), plus s, T replaced by t, S,
    h(s, T) = u / (u + K / n),  u = exp(s . T / temperature) / Z

  T and S are the rows of the bank, k runs over the K negatives of i, n is the
  size of the data set. Z = n * (mean score of the first batch) is estimated
  once for each direction, so n cancels and the bank keeps the mean. As in the
  authors' code, that of RepDistiller, but without the 1e-7 that it adds to
  denominators. All scores are computed and K of them picked: for the K in use
  that takes far less memory than gathering K rows for every anchor.

  Args:
    student: embeddings, `[B, D]`; they are normalised here.
    teacher: embeddings, `[B, D]`; their layer is trained as well: the gradient
      flows to both arguments, but not to the bank.
    bank: from `init_memory_bank`, then from the step before.
    index: positions in the data set, different ones, `[B]`.
    negatives: positions of the negatives, from `sample_negatives`, `[B, K]`.
    temperature: of the scores, > 0.
    momentum: share that a row of the bank keeps, in [0, 1].

  Returns:
    One loss per example in nats, `[B]`, and the bank in which the rows at
    `index` have moved to the embeddings, and the constants are set.

  Raises:
    UsageError: temperature or momentum are out of range.

  References:
    Tian et al., Contrastive Representation Distillation, 2019,
    https://arxiv.org/abs/1910.10699
  """
  if not 0 <= momentum <= 1:
    raise UsageError(f'momentum is {momentum}; valid: 0 to 1')
  student, teacher = _embeddings(student, teacher, temperature)
  chex.assert_equal_shape([bank.student, bank.teacher])
  chex.assert_shape(index, student.shape[:1])
  chex.assert_shape(negatives, (student.shape[0], None))
  bank = jax.tree.map(jax.lax.stop_gradient, bank)
  picked = jnp.concatenate([index[:, None], negatives], axis=1)

  def direction(anchors, memory, log_mean):
    scores = numerics.contract('id,nd->in', anchors, memory) / temperature
    scores = jnp.take_along_axis(scores, picked, axis=1)
    log_mean = jnp.where(jnp.isneginf(log_mean), _log_mean(scores), log_mean)
    keep = jnp.ones(negatives.shape, bool)
    loss = _discrimination(scores[:, 0], scores[:, 1:], keep, log_mean)
    return loss, log_mean

  def move(memory, embeddings):
    rows = momentum * memory[index] + (1 - momentum) * embeddings
    return memory.at[index].set(jax.lax.stop_gradient(numerics.normalize(rows)))

  student_loss, student_log_mean = direction(
    student, bank.teacher, bank.student_log_mean
  )
  teacher_loss, teacher_log_mean = direction(
    teacher, bank.student, bank.teacher_log_mean
  )
  bank = MemoryBank(
    move(bank.student, student),
    move(bank.teacher, teacher),
    student_log_mean,
    teacher_log_mean,
  )
  return student_loss + teacher_loss, bank


def init_memory_bank(
  rng: jax.Array, num_data: int, *, dim: int = 128
) -> MemoryBank:
  """A bank of uniform noise in +-sqrt(3 / dim), before its first batch.

  Args:
    rng: a key.
    num_data: size of the data set.
    dim: size of the embeddings.

  Returns:
    The bank; its rows have norm 1 on average only, until they are visited.
  """
  bound = (3.0 / dim) ** 0.5
  student, teacher = jax.random.uniform(
    rng, (2, num_data, dim), minval=-bound, maxval=bound
  )
  # Two arrays: one could not be donated twice.
  unset = [jnp.full((), -jnp.inf) for _ in range(2)]
  return MemoryBank(student, teacher, *unset)


def negative_table(
  label: np.ndarray | jax.Array, *, num_negatives: int = 16384
) -> NegativeTable:
  """The table for `sample_negatives`; computed once, outside of `jax.jit`.

  Args:
    label: classes of the whole data set, integers from 0, `[num_data]`.
    num_negatives: negatives of an anchor, K. It is lowered to what the data can
      give: the number of examples outside of the largest class.

  Returns:
    The table.

  Raises:
    UsageError: no negative can be drawn.
  """
  label = np.asarray(label)
  chex.assert_rank(label, 1)
  size = np.bincount(label)
  slots = min(num_negatives, label.size - int(size.max()))
  if slots < 1:
    raise UsageError(
      f'{num_negatives} negatives from {np.count_nonzero(size)} classes; '
      'valid: at least 1 from at least 2'
    )
  return NegativeTable(
    order=jnp.asarray(np.argsort(label, kind='stable'), jnp.int32),
    start=jnp.asarray(np.cumsum(size) - size, jnp.int32),
    size=jnp.asarray(size, jnp.int32),
    slot=jnp.arange(slots, dtype=jnp.int32),
  )


def sample_negatives(
  rng: jax.Array, table: NegativeTable, label: jax.Array
) -> jax.Array:
  """Draws different examples of other classes, without rejection.

  In the sorted order, read as a circle, the other classes are one arc. It is
  turned at random, cut into K parts whose lengths differ by at most 1, and one
  example is drawn from each: none comes twice, every one is equally likely, and
  the classes are represented more evenly than by independent draws.

  Args:
    rng: a key.
    table: from `negative_table`.
    label: classes of the anchors, `[B]`.

  Returns:
    Positions in the data set, `[B, K]`.
  """
  chex.assert_rank(label, 1)
  start, size = table.start[label][:, None], table.size[label][:, None]
  slot = table.slot[None, :]
  num_data, num_negatives = table.order.size, table.slot.size
  others = num_data - size
  length, longer = others // num_negatives, others % num_negatives
  draw_rng, turn_rng = jax.random.split(rng)
  inside = jax.random.randint(
    draw_rng, (label.size, num_negatives), 0, length + (slot < longer)
  )
  turn = jax.random.randint(turn_rng, (label.size, 1), 0, others)
  place = slot * length + jnp.minimum(slot, longer) + inside
  place = (place + turn) % others
  return table.order[(start + size + place) % num_data]


def _embeddings(
  student: jax.Array, teacher: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
  chex.assert_rank([student, teacher], 2)
  chex.assert_equal_shape([student, teacher])
  numerics.check_positive('temperature', temperature)
  student = numerics.at_least_float32(student)
  teacher = numerics.at_least_float32(teacher)
  return numerics.normalize(student), numerics.normalize(teacher)


def _log_mean(scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
  """Log of the mean of exp(scores), a constant in the gradient."""
  if where is None:
    where = jnp.ones(scores.shape, bool)
  log_sum = jax.nn.logsumexp(scores, where=where)
  return jax.lax.stop_gradient(log_sum - jnp.log(jnp.sum(where)))


def _discrimination(
  positive: jax.Array,
  scores: jax.Array,
  negative: jax.Array,
  log_mean: jax.Array,
) -> jax.Array:
  """-log h of the positive minus the negatives' log(1 - h), `[B]`.

  The log odds of h are log(u / (K / n)) = score - log(mean score) - log K.
  """
  count = jnp.maximum(jnp.sum(negative, axis=1), 1)
  log_noise = log_mean + jnp.log(count.astype(scores.dtype))
  lost = -jax.nn.log_sigmoid(log_noise[:, None] - scores)
  return -jax.nn.log_sigmoid(positive - log_noise) + jnp.sum(
    jnp.where(negative, lost, 0.0), axis=1
  )
