"""Distances between a feature of the student and one of the teacher."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.losses import numerics


def squared_distance(
  student: jax.Array, teacher: jax.Array, *, reduction: str = 'mean'
) -> jax.Array:
  """Squared distance of two features.

  The distance is summed over all entries, or averaged::

    sum |student - teacher|**2

  With 'mean', it is the loss of a neighbourhood, and applied to the outputs of
  the teacher's next neighbourhood it is Equation (4) of Neighbourhood
  Distillation, the look-ahead. With 'sum', it is Equation (6) of SSKD as
  printed. A sum over the entries of a map is too steep for the learning rate of
  0.01 that the paper gives; 'position_mean', a sum over channels and a mean
  over positions, is usable with that rate.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, the same shape; no gradient flows to it.
    reduction: 'mean', 'sum' or 'position_mean', over all axes but the first.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: the reduction does not exist.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> teacher = jnp.zeros((2, 2))
    >>> print(losses.squared_distance(student, teacher))
    [2.5 0.5]
    >>> print(losses.squared_distance(student, teacher, reduction='sum'))
    [5. 1.]

  References:
    - Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
      2018, https://arxiv.org/abs/1812.01819
    - Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
      distillation, 2020, https://arxiv.org/abs/2010.01189
  """
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  return numerics.per_example((student - teacher) ** 2, reduction)


def hint_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """FitNets: mean squared error between the regressed hint and the hint.

  The mean runs over all entries of an example::

    mean (student - teacher)**2

  The paper prints half the sum. RepDistiller, whose weight of 100 is in common
  use, takes the mean over all entries, and this function does the same.

  Args:
    student: the output of the regressor, `[B, ...]`.
    teacher: the hint, `[B, ...]`, the same shape; no gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> teacher = jnp.zeros((2, 2))
    >>> print(losses.hint_loss(student, teacher))
    [2.5 0.5]

  References:
    Romero et al., FitNets: Hints for Thin Deep Nets, 2014,
    https://arxiv.org/abs/1412.6550
  """
  return squared_distance(student, teacher)


def normalized_l1_loss(
  student: jax.Array, teacher: jax.Array, *, reduction: str = 'mean'
) -> jax.Array:
  """FD: absolute difference of two features that are scaled to norm 1.

  The mean runs over all entries of an example::

    mean | student / ||student||_2 - teacher / ||teacher||_2 |

  This is the second term, unweighted, of Equation (2) of Orthogonality, whose
  1-norm is the reduction 'sum'. The default, 'mean', has the scale of the
  released code of factor transfer, on which this loss is based and where its
  weight is 500.

  Args:
    student: the regressed feature, `[B, ...]`; the norm is taken over all axes
      but the first.
    teacher: `[B, ...]`, the same shape; no gradient flows to it.
    reduction: 'mean' or 'sum', over all axes but the first.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: the reduction does not exist.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student, teacher = jnp.array([[3.0, 4.0]]), jnp.array([[7.0, 0.0]])
    >>> loss = losses.normalized_l1_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [0.6]

  References:
    Park et al., On the Orthogonality of Knowledge Distillation with Other
    Techniques, 2020, https://arxiv.org/abs/2009.04120
  """
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  student = numerics.normalize(numerics.flatten(student))
  teacher = numerics.normalize(numerics.flatten(teacher))
  return numerics.per_example(numerics.absolute(student - teacher), reduction)


def masked_l1_loss(
  student: jax.Array,
  teacher: jax.Array,
  mask: jax.Array,
  *,
  reduction: str = 'mean',
) -> jax.Array:
  """MLD: absolute difference of two features, weighted by a mask.

  An entry counts less the more sensitive the teacher is to it::

    mean | (1 - relu(mask)) * (teacher - student) |

  This is one term of the sum in Equation (6) of Masked Layer Distillation,
  whose 1-norm is the reduction 'sum'. The default, 'mean', gives breakpoints of
  all sizes the same weight.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, the same shape; no gradient flows to it.
    mask: `[...]`, one number for each entry of an example, 1 where no noise is
      tolerated; no gradient flows to it.
    reduction: 'mean' or 'sum', over all axes but the first.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: the reduction does not exist.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[2.0, 2.0]])
    >>> print(losses.masked_l1_loss(student, teacher, jnp.array([1.0, 0.5])))
    [0.5]

  References:
    Wan et al., Masked Layer Distillation: Fast and Robust Training Through
    Knowledge Transfer Normalization, 2021,
    https://www2.eecs.berkeley.edu/Pubs/TechRpts/2021/EECS-2021-243.html
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(mask, student.shape[1:])
  student, teacher = numerics.prepare(student, teacher)
  mask = numerics.at_least_float32(jax.lax.stop_gradient(mask))
  weight = 1.0 - jax.nn.relu(mask)
  difference = weight[None] * (teacher - student)
  return numerics.per_example(numerics.absolute(difference), reduction)


def hierarchical_context_loss(
  student: jax.Array,
  teacher: jax.Array,
  *,
  sizes: tuple[int, ...] = (4, 2, 1),
) -> jax.Array:
  """HCL of ReviewKD: squared error of two maps at several scales.

  The weight of a scale is half the weight of the next larger scale::

    (m + sum_l m_l / 2**l) / (1 + sum_l 1 / 2**l)

  Here, m is the mean squared difference of the maps, and m_l is that of the
  maps pooled to the l-th of those sizes that are smaller than the map. This is
  the distance 'delta' of the pathways in Equation (2) of DistPro.

  Args:
    student: `[B, H, W, C]`.
    teacher: `[B, H, W, C]`; no gradient flows to it.
    sizes: the heights, and equally the widths, of the pooled maps.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> # The differences have the mean square 12.5 and the mean 3.
    >>> student = jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 2, 2, 1)
    >>> teacher = jnp.zeros((1, 2, 2, 1))
    >>> loss = losses.hierarchical_context_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [11.33]

  References:
    - Chen et al., Distilling Knowledge via Knowledge Review, 2021,
      https://arxiv.org/abs/2104.09044
    - Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
      Meta Optimization, 2022, https://arxiv.org/abs/2204.05547
  """
  chex.assert_rank([student, teacher], 4)
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  # Pooling is linear, so it is enough to pool the difference.
  difference = student - teacher
  loss = numerics.per_example(difference**2)
  weight, total = 1.0, 1.0
  for size in sizes:
    if size >= min(difference.shape[1:3]):
      continue
    weight /= 2
    total += weight
    pooled = numerics.adaptive_average_pool(difference, size, size)
    loss += weight * numerics.per_example(pooled**2)
  return loss / total


def variational_information_loss(
  student: jax.Array,
  teacher: jax.Array,
  raw_variance: jax.Array,
  *,
  epsilon: float = 1e-5,
) -> jax.Array:
  """VID: negative log likelihood of the teacher's feature, given the student's.

  The likelihood is a Gaussian without its constant term::

    mean 1/2 * ((teacher - student)**2 / v + log v),
    v = softplus(raw_variance) + epsilon

  The mean runs over all entries, as in the authors' code and in RepDistiller.

  Args:
    student: the predicted mean, `[B, ..., C]`.
    teacher: `[B, ..., C]`; no gradient flows to it.
    raw_variance: a trained parameter, `[C]`. Its initial value is
      log(exp(5 - epsilon) - 1), so that the initial variance is 5.
    epsilon: the smallest variance.

  Returns:
    One loss per example in nats per entry, `[B]`; it can be negative.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student, teacher = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> raw = jnp.zeros(1)
    >>> loss = losses.variational_information_loss(student, teacher, raw)
    >>> print(np.asarray(loss).round(2))
    [0.54]

  References:
    Ahn et al., Variational Information Distillation for Knowledge Transfer,
    2019, https://arxiv.org/abs/1904.05835
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(raw_variance, student.shape[-1:])
  student, teacher = numerics.prepare(student, teacher)
  raw_variance = numerics.at_least_float32(raw_variance)
  variance = jax.nn.softplus(raw_variance) + epsilon
  variance = variance.reshape((1,) * (student.ndim - 1) + (-1,))
  log_density = (student - teacher) ** 2 / variance + jnp.log(variance)
  return numerics.per_example(0.5 * log_density)


def softmax_regression_loss(
  student: jax.Array,
  teacher: jax.Array,
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  regression_weight: float = 1.0,
) -> jax.Array:
  """SRRL: squared errors of a feature and of the logits that it leads to.

  The first mean runs over channels, the second over classes::

    mean (student - teacher)**2
    + regression_weight * mean (student_logits - teacher_logits)**2

  The paper describes several variants of the softmax regression. This one
  produced its results and is the one in its code (jingyang2017/KD_SRRL).

  Args:
    student: the student's pooled feature after the connector, `[B, C]`.
    teacher: the teacher's pooled feature, `[B, C]`; no gradient flows to it.
    student_logits: the output of the teacher's classifier for the student's
      feature, `[B, num_classes]`.
    teacher_logits: the teacher's logits, `[B, num_classes]`; no gradient flows
      to them.
    regression_weight: the weight of the second mean.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> s, s_logits = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
    >>> t, t_logits = jnp.zeros((1, 2)), jnp.zeros((1, 2))
    >>> print(losses.softmax_regression_loss(s, t, s_logits, t_logits))
    [3.]

  References:
    Yang et al., Knowledge distillation via softmax regression representation
    learning, 2021, https://openreview.net/forum?id=ZzwDy_wiWv
  """
  chex.assert_rank([student, teacher, student_logits, teacher_logits], 2)
  checks.weights(regression_weight=regression_weight)
  feature = squared_distance(student, teacher)
  regression = squared_distance(student_logits, teacher_logits)
  return feature + regression_weight * regression
