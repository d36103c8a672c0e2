"""Contrastive representation distillation, in a batch and with a memory."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.losses import numerics


class MemoryBank(NamedTuple):
  """Running embeddings of every training example, and two constants.

  Attributes:
    student: the student's embeddings, `[num_data, D]`, rows of norm 1.
    teacher: the teacher's embeddings, `[num_data, D]`, rows of norm 1.
    student_log_mean: the log of the mean score of the student's anchors in the
      first batch, a scalar; -inf before the first batch.
    teacher_log_mean: the same for the teacher's anchors.

  Example:
    >>> import jax
    >>> from jaxdistill import losses
    >>> bank = losses.init_memory_bank(jax.random.key(0), 50, dim=8)
    >>> isinstance(bank, losses.MemoryBank), bank.student.shape
    (True, (50, 8))
  """

  student: jax.Array
  teacher: jax.Array
  student_log_mean: jax.Array
  teacher_log_mean: jax.Array


class NegativeTable(NamedTuple):
  """A data set sorted by class, for drawing from all classes but one.

  Attributes:
    order: the positions of the examples in the data set, one class after the
      other, `[num_data]`.
    start: the place in `order` where a class begins, `[num_classes]`.
    size: the number of examples of a class, `[num_classes]`.
    slot: the numbers 0, 1, ..., K - 1, one for each negative of an anchor,
      `[K]`.

  Example:
    >>> from jaxdistill import losses
    >>> table = losses.negative_table([1, 0, 1, 1])
    >>> isinstance(table, losses.NegativeTable), table.order.tolist()
    (True, [1, 0, 2, 3])
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
  temperature: float | jax.Array = 0.07,
) -> jax.Array:
  """CRD in a batch: tells the embedding of an example from those of the others.

  The loss has this term and the same term with s and t swapped::

    mean_i -log h(s_i, t_i) - sum_j log(1 - h(s_i, t_j)),
    h(s, t) = u / (u + K / n),   u = exp(s . t / temperature) / Z

  The index j runs over the K negatives of example i: all other examples or, if
  there are labels, those of other classes. Z is n times the mean score, as in
  `memory_contrastive_loss`, but here it is the mean over this batch. Z has no
  gradient, and the size n of the data set cancels. The authors' code, which is
  that of RepDistiller, draws negatives from a memory only. It adds 1e-7 to
  denominators, which the log-sigmoid used here does not need.

  Args:
    student: embeddings, `[B, D]`; this function normalises them.
    teacher: embeddings, `[B, D]`, normalised likewise. The layer that computes
      them is trained as well: the gradient flows to both arguments.
    label: the classes, `[B]`, or None.
    temperature: the temperature of the scores, a number from 0.001 to 1e6, or
      an array `[]`.

  Returns:
    A scalar in nats, because the loss compares pairs of examples.

  Raises:
    UsageError: the temperature is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> embeddings = jnp.eye(2)
    >>> loss = losses.contrastive_loss(embeddings, embeddings, temperature=1.0)
    >>> print(f'{loss:.2f}')
    1.90

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
  temperature: float | jax.Array = 0.07,
  momentum: float = 0.5,
) -> tuple[jax.Array, MemoryBank]:
  """CRD with a memory: tells the memory of an example from those of the others.

  The loss has this term and the same term with s, T replaced by t, S::

    -log h(s, T_i) - sum_k log(1 - h(s, T_k)),
    h(s, T) = u / (u + K / n),   u = exp(s . T / temperature) / Z

  T and S are the rows of the bank for teacher and student, the index k runs
  over the K negatives of example i, and n is the size of the data set. Z is
  n * (mean score of the first batch). It is estimated once for each direction;
  n cancels, and the bank stores the mean. The loss follows the authors' code,
  which is that of RepDistiller, without the 1e-7 that it adds to denominators.
  All scores are computed and K of them are picked. For the usual K, this takes
  far less memory than gathering K rows for every anchor.

  Args:
    student: embeddings, `[B, D]`; this function normalises them.
    teacher: embeddings, `[B, D]`, normalised likewise. The layer that computes
      them is trained as well: the gradient flows to both arguments, but not to
      the bank.
    bank: from `init_memory_bank`, afterwards from the previous step.
    index: positions of the examples in the data set, all different, `[B]`.
    negatives: positions of the negatives, from `sample_negatives`, `[B, K]`.
    temperature: the temperature of the scores, a number from 0.001 to 1e6, or
      an array `[]`.
    momentum: the share that a row of the bank keeps, in [0, 1].

  Returns:
    (one loss per example in nats `[B]`, the new bank). In the new bank, the
    rows at `index` have moved towards the embeddings, and the constants are
    set.

  Raises:
    UsageError: the temperature or the momentum is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> rows, unset = jnp.eye(2), jnp.array(-jnp.inf)
    >>> bank = losses.MemoryBank(rows, rows, unset, unset)
    >>> index, negatives = jnp.array([0]), jnp.array([[1]])
    >>> loss, bank = losses.memory_contrastive_loss(
    ...   rows[:1], rows[:1], bank, index, negatives, temperature=1.0
    ... )
    >>> print(np.asarray(loss).round(2), f'{bank.student_log_mean:.2f}')
    [1.9] 0.62

  References:
    Tian et al., Contrastive Representation Distillation, 2019,
    https://arxiv.org/abs/1910.10699
  """
  checks.number('momentum', momentum, at_least=0, at_most=1)
  student, teacher = _embeddings(student, teacher, temperature)
  chex.assert_equal_shape([bank.student, bank.teacher])
  chex.assert_shape(index, student.shape[:1])
  chex.assert_shape(negatives, (student.shape[0], None))
  bank = jax.tree.map(jax.lax.stop_gradient, bank)
  picked = jnp.concatenate([index[:, None], negatives], axis=1)

  def direction(
    anchors: jax.Array, memory: jax.Array, log_mean: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    scores = numerics.contract('id,nd->in', anchors, memory) / temperature
    scores = jnp.take_along_axis(scores, picked, axis=1)
    log_mean = jnp.where(jnp.isneginf(log_mean), _log_mean(scores), log_mean)
    keep = jnp.ones(negatives.shape, bool)
    loss = _discrimination(scores[:, 0], scores[:, 1:], keep, log_mean)
    return loss, log_mean

  def move(memory: jax.Array, embeddings: jax.Array) -> jax.Array:
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
  """Makes a bank of uniform noise in +-sqrt(3 / dim), before its first batch.

  Args:
    rng: a random key.
    num_data: the size of the data set.
    dim: the size of the embeddings.

  Returns:
    The bank. Until an example is visited for the first time, the norm of its
    row is 1 only on average.

  Example:
    >>> import jax
    >>> from jaxdistill import losses
    >>> bank = losses.init_memory_bank(jax.random.key(0), 50, dim=8)
    >>> print(bank.teacher.shape, bank.teacher_log_mean)
    (50, 8) -inf

  References:
    Tian et al., Contrastive Representation Distillation, 2019,
    https://arxiv.org/abs/1910.10699
  """
  bound = (3.0 / dim) ** 0.5
  student, teacher = jax.random.uniform(
    rng, (2, num_data, dim), minval=-bound, maxval=bound
  )
  # Two arrays, because one array could not be donated twice.
  unset = [jnp.full((), -jnp.inf) for _ in range(2)]
  return MemoryBank(student, teacher, *unset)


def negative_table(
  label: npt.ArrayLike, *, num_negatives: int = 16384
) -> NegativeTable:
  """Makes the table for `sample_negatives`; call it once, outside of `jax.jit`.

  Args:
    label: the classes of the whole data set, integers from 0, `[num_data]`.
    num_negatives: the number K of negatives of an anchor. It is lowered to what
      the data can provide: the number of examples outside of the largest class.

  Returns:
    The table.

  Raises:
    UsageError: no negative can be drawn.

  Example:
    >>> from jaxdistill import losses
    >>> # Two of four examples are outside of the largest class.
    >>> table = losses.negative_table([2, 0, 1, 2])
    >>> table.order.tolist(), table.slot.tolist()
    ([1, 2, 0, 3], [0, 1])
  """
  label = np.asarray(label)
  chex.assert_rank(label, 1)
  size = np.bincount(label)
  num_negatives = checks.integer('num_negatives', num_negatives)
  slots = min(num_negatives, label.size - int(size.max()))
  if slots < 1:
    raise UsageError(
      'label: expected at least 2 classes, so that there are negatives, got '
      f'{np.count_nonzero(size)}'
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

  The table's order, read as a circle, has all other classes on one arc. The
  arc is turned at random and cut into K parts whose lengths differ by at most
  1, and one example is drawn from each part. Therefore no example is drawn
  twice, all are equally likely, and the classes are represented more evenly
  than by independent draws.

  Args:
    rng: a random key.
    table: from `negative_table`.
    label: the classes of the anchors, `[B]`.

  Returns:
    Positions in the data set, `[B, K]`.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> # The negatives of class 2 are the examples of the classes 0 and 1.
    >>> table = losses.negative_table([2, 0, 1, 2])
    >>> rng, label = jax.random.key(0), jnp.array([2])
    >>> negatives = losses.sample_negatives(rng, table, label)
    >>> sorted(negatives[0].tolist())
    [1, 2]
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
  student: jax.Array, teacher: jax.Array, temperature: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Checks both embeddings and normalises them."""
  chex.assert_rank([student, teacher], 2)
  chex.assert_equal_shape([student, teacher])
  numerics.check_temperature('temperature', temperature)
  student = numerics.at_least_float32(student)
  teacher = numerics.at_least_float32(teacher)
  return numerics.normalize(student), numerics.normalize(teacher)


def _log_mean(scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
  """Returns the log of the mean of exp(scores), without a gradient."""
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
  """Returns -log h of the positive minus the negatives' log(1 - h), `[B]`.

  The log odds of h are log(u / (K / n)) = score - log(mean score) - log K.
  """
  count = jnp.maximum(jnp.sum(negative, axis=1), 1)
  log_noise = log_mean + jnp.log(count.astype(scores.dtype))
  lost = -jax.nn.log_sigmoid(log_noise[:, None] - scores)
  return -jax.nn.log_sigmoid(positive - log_noise) + jnp.sum(
    jnp.where(negative, lost, 0.0), axis=1
  )
