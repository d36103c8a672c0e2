"""Distances between a feature of the student and one of the teacher."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics


def squared_distance(
  student: jax.Array, teacher: jax.Array, *, reduction: str = 'mean'
) -> jax.Array:
  """Squared distance of two features.

    sum |student - teacher|**2, over all entries, or its mean

  With 'mean' it is the loss of a neighbourhood, and on the outputs of the
  teacher's next one Equation (4) of Neighbourhood Distillation, the look-ahead.
  With 'sum' it is Equation (6) of SSKD as printed. A sum over the entries of a
  map is too steep for the rate of 0.01 given there; 'position_mean' (the
  channels summed, the positions averaged) keeps it usable.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, equally shaped; no gradient flows to it.
    reduction: 'mean', 'sum' or 'position_mean' over all axes but the first.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: there is no such reduction.

  References:
    Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
    2018, https://arxiv.org/abs/1812.01819
    Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
    distillation, 2020, https://arxiv.org/abs/2010.01189
  """
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  return numerics.per_example((student - teacher) ** 2, reduction)


def hint_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Mean squared error of the regressed hint.

    mean (student - teacher)**2

  The paper has half the sum; RepDistiller, whose weight of 100 is in common
  use, the mean over all entries, and so have we.

  Args:
    student: output of the regressor, `[B, ...]`.
    teacher: the hint, `[B, ...]`, equally shaped; no gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  References:
    Romero et al., FitNets: Hints for Thin Deep Nets, 2014,
    https://arxiv.org/abs/1412.6550
  """
  return squared_distance(student, teacher)


def normalized_l1_loss(
  student: jax.Array, teacher: jax.Array, *, reduction: str = 'mean'
) -> jax.Array:
  """Absolute difference of two features of norm 1.

    mean | student / ||student||_2 - teacher / ||teacher||_2 |

  The second term, unweighted, of Equation (2) of Orthogonality; its 1-norm is
  'sum'. The default, 'mean', is the scale of the released code of factor
  transfer, from which the loss descends: there it weighs 500.

  Args:
    student: regressed feature, `[B, ...]`; the norm is one over all its axes
      but the first.
    teacher: `[B, ...]`, equally shaped; no gradient flows to it.
    reduction: 'mean' or 'sum' over all axes but the first.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: there is no such reduction.

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
  """Absolute difference of two features, less where the teacher is sensitive.

    mean | (1 - relu(mask)) * (teacher - student) |

  One term of the sum in Equation (6) of Masked Layer Distillation; its 1-norm
  is 'sum'. The default, 'mean', gives breakpoints of all sizes one weight.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, equally shaped; no gradient flows to it.
    mask: `[...]`, one entry per entry of an example, 1 where no noise is
      tolerated; no gradient flows to it.
    reduction: 'mean' or 'sum' over all axes but the first.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: there is no such reduction.

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
  """Squared error of two maps and of their poolings, halving in weight.

    (m + sum_l m_l / 2**l) / (1 + sum_l 1 / 2**l)

  m is the mean squared difference of the maps, m_l that of the maps pooled to
  the l-th of the sizes that are smaller than the map. It is the distance
  'delta' of the pathways in Equation (2) of DistPro.

  Args:
    student: `[B, H, W, C]`.
    teacher: `[B, H, W, C]`; no gradient flows to it.
    sizes: rows and columns of the pooled maps.

  Returns:
    One loss per example, `[B]`.

  References:
    Chen et al., Distilling Knowledge via Knowledge Review, 2021,
    https://arxiv.org/abs/2104.09044
    Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
    Meta Optimization, 2022, https://arxiv.org/abs/2204.05547
  """
  chex.assert_rank([student, teacher], 4)
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  # Pooling is linear: the difference is pooled once instead of both maps.
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
  """Negative log likelihood of the teacher's feature, given the student's.

    mean 1/2 ((teacher - student)**2 / v + log v),
    v = softplus(raw_variance) + epsilon

  A Gaussian without its constant term; the mean over all entries as in the
  authors' code and RepDistiller.

  Args:
    student: predicted mean, `[B, ..., C]`.
    teacher: `[B, ..., C]`; no gradient flows to it.
    raw_variance: trained, `[C]`; log(exp(5 - epsilon) - 1) at first, so that
      the variance is 5.
    epsilon: smallest variance.

  Returns:
    One loss per example in nats per entry, `[B]`; it can be negative.

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
  """Squared errors of a feature and of the teacher's answer to that feature.

    mean (student - teacher)**2
    + regression_weight * mean (student_logits - teacher_logits)**2

  Means over channels and over classes. The paper's softmax regression has
  variants; this is the one of its results and code (jingyang2017/KD_SRRL).

  Args:
    student: pooled feature behind the connector, `[B, C]`.
    teacher: pooled feature, `[B, C]`; no gradient flows to it.
    student_logits: the teacher's classifier applied to the student's feature,
      `[B, num_classes]`.
    teacher_logits: `[B, num_classes]`; no gradient flows to it.
    regression_weight: of the second term.

  Returns:
    One loss per example, `[B]`.

  References:
    Yang et al., Knowledge distillation via softmax regression representation
    learning, 2021, https://openreview.net/forum?id=ZzwDy_wiWv
  """
  chex.assert_rank([student, teacher, student_logits, teacher_logits], 2)
  feature = squared_distance(student, teacher)
  regression = squared_distance(student_logits, teacher_logits)
  return feature + regression_weight * regression
