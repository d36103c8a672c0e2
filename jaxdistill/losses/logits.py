"""Losses that compare the student's logits with the teacher's."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.losses import divergences, numerics


def soft_target_loss(
  student: jax.Array,
  teacher: jax.Array,
  *,
  temperature: float | jax.Array = 4.0,
) -> jax.Array:
  """KD: divergence of the student's softened probabilities from the teacher's.

  With the temperature `T`, the loss is::

    T**2 * KL(softmax(teacher / T) || softmax(student / T))

  This is the second term, unweighted, of Equation (1) of Orthogonality. The
  paper prints the student first there; this function puts the teacher first, as
  Equation (7) of Orthogonality and Hinton et al. do. The divergence is a sum
  over classes; the average over classes that PyTorch's 'mean' computes would be
  num_classes times smaller.

  Args:
    student: the student's logits, `[..., num_classes]`.
    teacher: the teacher's logits, `[..., num_classes]`; no gradient flows to
      them.
    temperature: `T`, a number from 0.001 to 1e6, or an array `[]`.

  Returns:
    One loss per example in nats, `[...]`.

  Raises:
    UsageError: the temperature is out of range, or an array with axes.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> teacher = jnp.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> loss = losses.soft_target_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [0.35 0.  ]

  References:
    - Hinton et al., Distilling the Knowledge in a Neural Network, 2015,
      https://arxiv.org/abs/1503.02531
    - Park et al., On the Orthogonality of Knowledge Distillation with Other
      Techniques, 2020, https://arxiv.org/abs/2009.04120
  """
  chex.assert_equal_shape([student, teacher])
  numerics.check_temperature('temperature', temperature)
  student, teacher = numerics.prepare(student, teacher)
  return temperature**2 * divergences.softened(student, teacher, temperature)


def tempered_cross_entropy(
  student: jax.Array,
  teacher: jax.Array,
  *,
  temperature: float | jax.Array = 2.5,
) -> jax.Array:
  """Cross-entropy between the softened probabilities of teacher and student.

  With the temperature `T`, the loss is::

    -sum_c softmax(teacher / T)_c * log softmax(student / T)_c

  This is the first term of Equation (3) of Neighbourhood Distillation; the
  second term is the cross-entropy with the labels. Unlike `soft_target_loss`,
  it has no factor of the squared temperature, and it includes the teacher's
  entropy.

  Args:
    student: the student's logits, `[..., num_classes]`.
    teacher: the teacher's logits, `[..., num_classes]`; no gradient flows to
      them.
    temperature: `T`, a number from 0.001 to 1e6, or an array `[]`.

  Returns:
    One loss per example in nats, `[...]`.

  Raises:
    UsageError: the temperature is out of range, or an array with axes.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student = jnp.array([[0.0, 0.0], [0.0, 5.0]])
    >>> teacher = jnp.array([[5.0, 0.0], [0.0, 5.0]])
    >>> loss = losses.tempered_cross_entropy(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [0.69 0.37]

  References:
    Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
    distillation, 2020, https://arxiv.org/abs/2010.01189
  """
  chex.assert_equal_shape([student, teacher])
  numerics.check_temperature('temperature', temperature)
  student, teacher = numerics.prepare(student, teacher)
  p = jax.nn.softmax(teacher / temperature)
  log_q = jax.nn.log_softmax(student / temperature)
  return -jnp.sum(p * log_q, axis=-1)


def refinery_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Label Refinery: cross-entropy with the teacher's probabilities as labels.

  Both networks see the same crop of the image::

    -sum_c softmax(teacher)_c * log softmax(student)_c

  The paper prints the divergence, whereas the released code
  (hessamb/label-refinery) computes this cross-entropy. The difference is the
  teacher's entropy, which does not depend on the student.

  Args:
    student: the student's logits, `[..., num_classes]`.
    teacher: the teacher's logits, `[..., num_classes]`; no gradient flows to
      them.

  Returns:
    One loss per example in nats, `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student = jnp.array([[0.0, 0.0], [0.0, 2.0]])
    >>> teacher = jnp.array([[2.0, 0.0], [0.0, 2.0]])
    >>> loss = losses.refinery_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [0.69 0.37]

  References:
    Bagherinezhad et al., Label Refinery: Improving ImageNet Classification
    through Label Progression, 2018, https://arxiv.org/abs/1805.02641
  """
  return tempered_cross_entropy(student, teacher, temperature=1.0)


def logit_squared_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Half the squared distance between the logits.

  The sum runs over the classes::

    1/2 * sum_c (student_c - teacher_c)**2

  Args:
    student: the student's logits, `[..., num_classes]`.
    teacher: the teacher's logits, `[..., num_classes]`; no gradient flows to
      them.

  Returns:
    One loss per example, `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[1.0, 0.0], [2.0, 1.0]])
    >>> teacher = jnp.array([[3.0, 0.0], [2.0, 1.0]])
    >>> print(losses.logit_squared_error(student, teacher))
    [2. 0.]

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
  temperature: float | jax.Array = 4.0,
) -> jax.Array:
  """DKD: soft targets, split into the labelled class and the other classes.

  With the temperature `T`, the loss is::

    T**2 * (alpha * KL(b_teacher || b_student)
            + beta * KL(o_teacher || o_student))

  Here, b is the pair (probability of the label, probability of any other
  class), and o is the softmax over the other classes, all at temperature `T`.

  Args:
    student: the student's logits, `[..., num_classes]`.
    teacher: the teacher's logits, `[..., num_classes]`; no gradient flows to
      them.
    label: the true classes, integers in [0, num_classes), `[...]`. The labels
      cannot be checked inside `jax.jit`: a negative one counts from the last
      class, and one of num_classes or more makes the loss NaN. The task
      `classification` refuses both before training.
    alpha: the weight of the labelled class.
    beta: the weight of the other classes; the authors use 1 to 8, depending on
      the pair of networks.
    temperature: `T`, a number from 0.001 to 1e6, or an array `[]`.

  Returns:
    One loss per example in nats, `[...]`.

  Raises:
    UsageError: the temperature is out of range, or a weight is not a
      number from 0 to 1e9.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> teacher = jnp.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> label = jnp.array([0, 1])
    >>> loss = losses.decoupled_kd_loss(student, teacher, label)
    >>> print(np.asarray(loss).round(2))
    [1.29 0.  ]

  References:
    Zhao et al., Decoupled Knowledge Distillation, 2022,
    https://arxiv.org/abs/2203.08679
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(label, student.shape[:-1])
  numerics.check_temperature('temperature', temperature)
  checks.weights(alpha=alpha, beta=beta)
  student, teacher = numerics.prepare(student, teacher)
  target, others = divergences.decoupled(student, teacher, label, temperature)
  return temperature**2 * (alpha * target + beta * others)


def dist_loss(
  student: jax.Array,
  teacher: jax.Array,
  *,
  beta: float = 1.0,
  gamma: float = 1.0,
  tau: float | jax.Array = 1.0,
) -> jax.Array:
  """DIST: one minus the correlation of the predictions, by row and by column.

  With r for Pearson's correlation, the loss is::

    tau**2 * (beta * (1 - mean_b r(p_b, q_b))
              + gamma * (1 - mean_c r(p_c, q_c)))

  Here, p and q are the softmax of the teacher and of the student at temperature
  tau. A row p_b holds the classes of one example, and a column p_c holds one
  class for all examples of the batch. The denominator of r is enlarged by 1e-8,
  as in the authors' code (hunto/DIST_KD), whose defaults are used. Unlike
  there, the gradient has a bound: probabilities that differ by less than a
  hundredth of their size are less correlated with all others, and constant
  ones are not correlated at all and have no gradient. So a head whose weights
  begin at or near zero learns from the labels first.

  Args:
    student: the student's logits, `[B, num_classes]`.
    teacher: the teacher's logits, `[B, num_classes]`; no gradient flows to
      them.
    beta: the weight of the relation between classes within an example.
    gamma: the weight of the relation between examples within a class.
    tau: the temperature, a number from 0.001 to 1e6, or an array `[]`; the
      paper uses 4 on CIFAR-100.

  Returns:
    A scalar, because the columns are compared over the whole batch.

  Raises:
    UsageError: the temperature is out of range, or a weight is not a
      number from 0 to 1e9.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> teacher = jnp.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> print(f'{losses.dist_loss(student, teacher):.2f}')
    0.68

  References:
    Huang et al., Knowledge Distillation from A Stronger Teacher, 2022,
    https://arxiv.org/abs/2205.10536
  """
  chex.assert_rank([student, teacher], 2)
  chex.assert_equal_shape([student, teacher])
  numerics.check_temperature('tau', tau)
  checks.weights(beta=beta, gamma=gamma)
  student, teacher = numerics.prepare(student, teacher)
  q, p = jax.nn.softmax(student / tau), jax.nn.softmax(teacher / tau)
  inter = 1.0 - jnp.mean(_correlation(q, p, axis=1))
  intra = 1.0 - jnp.mean(_correlation(q, p, axis=0))
  return tau**2 * (beta * inter + gamma * intra)


def _correlation(q: jax.Array, p: jax.Array, *, axis: int) -> jax.Array:
  """Returns Pearson's correlation of probabilities along an axis.

  The gradient would have no bound where one of the two has hardly any spread,
  and no direction but that of rounding where it has none. Therefore a spread
  below a hundredth of the probabilities themselves counts as a hundredth,
  which brings the correlation towards 0, and one of rounding counts as none.
  """
  has_spread = _has_spread(q, axis) & _has_spread(p, axis)
  (q, q_spread), (p, p_spread) = _centred(q, axis), _centred(p, axis)
  correlation = jnp.sum(p * q, axis=axis) / (p_spread * q_spread + 1e-8)
  return jnp.where(has_spread, correlation, 0.0)


def _centred(p: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Returns (the centred vectors, their norms, enlarged if hardly any)."""
  smallest = 1e-2 * jax.lax.stop_gradient(numerics.norm(p, axis=axis))
  p = p - jnp.mean(p, axis=axis, keepdims=True)
  return p, jnp.maximum(numerics.norm(p, axis=axis), smallest)


def _has_spread(p: jax.Array, axis: int) -> jax.Array:
  """Returns whether probabilities differ by more than rounding."""
  largest = jnp.max(p, axis=axis)
  return largest - jnp.min(p, axis=axis) > numerics.ROUNDING * largest
