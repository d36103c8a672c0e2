"""Losses on the logits of student and teacher."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics


def soft_target_loss(
  student: jax.Array, teacher: jax.Array, *, temperature: float = 4.0
) -> jax.Array:
  """Divergence of the student's softened classes from the teacher's.

    T**2 * KL(softmax(teacher / T) || softmax(student / T))

  The second term, unweighted, of Equation (1) of Orthogonality. That one prints
  the student first; we follow Equation (7) of Orthogonality (and Hinton et
  al.), the teacher first. The sum runs over the classes: their average, which
  PyTorch's 'mean' takes, would be num_classes times weaker.

  Args:
    student: unnormalised log probabilities, `[..., num_classes]`.
    teacher: the same of the teacher; no gradient flows to it.
    temperature: `T` > 0.

  Returns:
    One loss per example in nats, `[...]`.

  Raises:
    UsageError: the temperature is not positive.

  References:
    Hinton et al., Distilling the Knowledge in a Neural Network, 2015,
    https://arxiv.org/abs/1503.02531
    Park et al., On the Orthogonality of Knowledge Distillation with Other
    Techniques, 2020, https://arxiv.org/abs/2009.04120
  """
  chex.assert_equal_shape([student, teacher])
  numerics.check_positive('temperature', temperature)
  student, teacher = numerics.prepare(student, teacher)
  log_p = jax.nn.log_softmax(teacher / temperature)
  log_q = jax.nn.log_softmax(student / temperature)
  return temperature**2 * _divergence(log_p, log_q)


def tempered_cross_entropy(
  student: jax.Array, teacher: jax.Array, *, temperature: float = 2.5
) -> jax.Array:
  """Cross-entropy of the student's softened classes to the teacher's.

    -sum_c softmax(teacher / T)_c log softmax(student / T)_c

  The first term of Equation (3) of Neighbourhood Distillation; the second is
  the cross-entropy to the labels. Unlike `soft_target_loss` it has no factor
  T**2 and keeps the teacher's entropy.

  Args:
    student: unnormalised log probabilities, `[..., num_classes]`.
    teacher: the same of the teacher; no gradient flows to it.
    temperature: `T` > 0.

  Returns:
    One loss per example in nats, `[...]`.

  Raises:
    UsageError: the temperature is not positive.

  References:
    Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
    distillation, 2020, https://arxiv.org/abs/2010.01189
  """
  chex.assert_equal_shape([student, teacher])
  numerics.check_positive('temperature', temperature)
  student, teacher = numerics.prepare(student, teacher)
  p = jax.nn.softmax(teacher / temperature)
  log_q = jax.nn.log_softmax(student / temperature)
  return -jnp.sum(p * log_q, axis=-1)


def refinery_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Cross-entropy to the labels that the teacher gives to the same crop.

    -sum_c softmax(teacher)_c log softmax(student)_c

  The paper writes the divergence, the released code (hessamb/label-refinery)
  computes this cross-entropy; they differ by the teacher's entropy, a constant.

  Args:
    student: unnormalised log probabilities, `[..., num_classes]`.
    teacher: the same of the teacher; no gradient flows to it.

  Returns:
    One loss per example in nats, `[...]`.

  References:
    Bagherinezhad et al., Label Refinery: Improving ImageNet Classification
    through Label Progression, 2018, https://arxiv.org/abs/1805.02641
  """
  return tempered_cross_entropy(student, teacher, temperature=1.0)


def logit_squared_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Half the squared distance of the logits.

    1/2 sum_c (student_c - teacher_c)**2

  Args:
    student: unnormalised log probabilities, `[..., num_classes]`.
    teacher: the same of the teacher; no gradient flows to it.

  Returns:
    One loss per example, `[...]`.

  References:
    Ba and Caruana, Do Deep Nets Really Need to be Deep?, 2013,
    https://arxiv.org/abs/1312.6184
  """
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  return 0.5 * jnp.sum((student - teacher) ** 2, axis=-1)


def decoupled_kd_loss(
  student: jax.Array,
  teacher: jax.Array,
  label: jax.Array,
  *,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
) -> jax.Array:
  """Soft targets, split into the labelled class and the others.

    T**2 * (alpha * KL(b_teacher || b_student)
            + beta * KL(o_teacher || o_student))

  b = (probability of the label, of any other class), o = softmax over the
  other classes, all at temperature T.

  Args:
    student: unnormalised log probabilities, `[..., num_classes]`.
    teacher: the same of the teacher; no gradient flows to it.
    label: the true classes, integers, `[...]`.
    alpha: weight of the labelled class.
    beta: weight of the others; the authors use 1 to 8, depending on the pair.
    temperature: `T` > 0.

  Returns:
    One loss per example in nats, `[...]`.

  Raises:
    UsageError: the temperature is not positive, or a weight negative.

  References:
    Zhao et al., Decoupled Knowledge Distillation, 2022,
    https://arxiv.org/abs/2203.08679
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(label, student.shape[:-1])
  numerics.check_positive('temperature', temperature)
  numerics.check_not_negative('alpha', alpha)
  numerics.check_not_negative('beta', beta)
  student, teacher = numerics.prepare(student, teacher)
  p_margin, log_p_others = _split(teacher / temperature, label)
  q_margin, log_q_others = _split(student / temperature, label)
  target = _divergence(_log_binary(p_margin), _log_binary(q_margin))
  others = _divergence(log_p_others, log_q_others)
  return temperature**2 * (alpha * target + beta * others)


def correlation_kd_loss(
  student: jax.Array,
  teacher: jax.Array,
  *,
  beta: float = 1.0,
  gamma: float = 1.0,
  tau: float = 1.0,
) -> jax.Array:
  """One minus the correlation of predictions, within rows and columns.

    tau**2 * (beta * (1 - mean_b r(p_b, q_b))
              + gamma * (1 - mean_c r(p_c, q_c)))

  p, q are teacher's and student's softmax at temperature tau, p_b the classes
  of one example, p_c one class over the whole batch given, r Pearson's
  correlation with 1e-8 added to its denominator; constants correlate with
  nothing. The defaults are those of the authors' code (hunto/DIST_KD).

  Args:
    student: unnormalised log probabilities, `[B, num_classes]`.
    teacher: the same of the teacher; no gradient flows to it.
    beta: weight of the relation of classes within an example.
    gamma: weight of the relation of examples within a class.
    tau: temperature > 0; 4 on CIFAR-100 in the paper.

  Returns:
    A scalar: classes are compared over the batch.

  Raises:
    UsageError: the temperature is not positive, or a weight negative.

  References:
    Huang et al., Knowledge Distillation from A Stronger Teacher, 2022,
    https://arxiv.org/abs/2205.10536
  """
  chex.assert_rank([student, teacher], 2)
  chex.assert_equal_shape([student, teacher])
  numerics.check_positive('tau', tau)
  numerics.check_not_negative('beta', beta)
  numerics.check_not_negative('gamma', gamma)
  student, teacher = numerics.prepare(student, teacher)
  q, p = jax.nn.softmax(student / tau), jax.nn.softmax(teacher / tau)
  inter = 1.0 - jnp.mean(_correlation(p, q, axis=1))
  intra = 1.0 - jnp.mean(_correlation(p, q, axis=0))
  return tau**2 * (beta * inter + gamma * intra)


def _divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
  """KL(p || q) over the last axis."""
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _split(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Log odds of the label `[...]`, log softmax of the rest `[..., C - 1]`."""
  rest = jnp.arange(logits.shape[-1] - 1)
  rest = rest.reshape((1,) * label.ndim + (-1,))
  rest = rest + (rest >= label[..., None])
  others = jnp.take_along_axis(logits, rest, axis=-1)
  target = jnp.take_along_axis(logits, label[..., None], axis=-1)[..., 0]
  return target - jax.nn.logsumexp(others, axis=-1), jax.nn.log_softmax(others)


def _log_binary(log_odds: jax.Array) -> jax.Array:
  """Log probabilities `[..., 2]`, finite also where one rounds to 0."""
  both = jnp.stack([log_odds, -log_odds], axis=-1)
  return jax.nn.log_sigmoid(both)


def _correlation(p: jax.Array, q: jax.Array, *, axis: int) -> jax.Array:
  p = p - jnp.mean(p, axis=axis, keepdims=True)
  q = q - jnp.mean(q, axis=axis, keepdims=True)
  norms = numerics.norm(p, axis=axis) * numerics.norm(q, axis=axis)
  return jnp.sum(p * q, axis=axis) / (norms + 1e-8)
