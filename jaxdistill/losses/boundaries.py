"""Losses on features before the activation: on which side of zero they lie."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics


def activation_boundary_loss(
  student: jax.Array, teacher: jax.Array, *, margin: float = 1.0
) -> jax.Array:
  """Squared hinge that puts the student on the teacher's side of zero.

    sum relu(margin - student)**2 where teacher > 0,
        relu(margin + student)**2 elsewhere

  The authors' factor 3 / 1000 and the halving from layer to layer are weights
  and left to the caller.

  Args:
    student: before the activation, `[B, ...]`.
    teacher: the same, equally shaped; only signs matter, no gradient flows.
    margin: distance from zero beyond which nothing is lost.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: the margin is not positive.

  References:
    Heo et al., Knowledge Transfer via Distillation of Activation Boundaries
    Formed by Hidden Neurons, 2018, https://arxiv.org/abs/1811.03233
  """
  chex.assert_equal_shape([student, teacher])
  numerics.check_positive('margin', margin)
  student, teacher = numerics.prepare(student, teacher)
  agreement = jnp.where(teacher > 0, student, -student)
  return numerics.per_example(jax.nn.relu(margin - agreement) ** 2, 'sum')


def margin_relu_loss(
  student: jax.Array, teacher: jax.Array, margin: jax.Array
) -> jax.Array:
  """Partial squared distance to the teacher's feature, cut at the margins.

    sum (student - t)**2 where student > t or t > 0,  t = max(teacher, margin)

  Where the teacher does not respond, the student may be as negative as it
  likes. The authors' factor (1e-3 on CIFAR, 1e-4 on ImageNet) and the halving
  from layer to layer are weights and left to the caller.

  Args:
    student: before the activation, behind the connector, `[B, ..., C]`.
    teacher: before the activation, `[B, ..., C]`; no gradient flows to it.
    margin: negative, from `batch_norm_margins`, `[C]`; no gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  References:
    Heo et al., A Comprehensive Overhaul of Feature Distillation, 2019,
    https://arxiv.org/abs/1904.01866
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(margin, student.shape[-1:])
  student, teacher = numerics.prepare(student, teacher)
  margin = numerics.at_least_float32(jax.lax.stop_gradient(margin))
  target = jnp.maximum(
    teacher, margin.reshape((1,) * (teacher.ndim - 1) + (-1,))
  )
  counted = (student > target) | (target > 0)
  square = jnp.where(counted, student - target, 0.0) ** 2
  return numerics.per_example(square, 'sum')


def batch_norm_margins(scale: jax.Array, bias: jax.Array) -> jax.Array:
  """Expected negative response of each channel behind a batch norm.

    E[x | x < 0] = bias - s pdf(bias / s) / cdf(-bias / s)

  for x ~ N(bias, s**2), s = |scale|; -3 s for a channel that is negative with
  a probability of at most 0.001, as in the authors' code
  (clovaai/overhaul-distillation).

  Args:
    scale: of the teacher's last batch norm before the activation, `[C]`.
    bias: the same, `[C]`.

  Returns:
    Margins for `margin_relu_loss`, at most 0, `[C]`.

  References:
    Heo et al., A Comprehensive Overhaul of Feature Distillation, 2019,
    https://arxiv.org/abs/1904.01866
  """
  chex.assert_rank([scale, bias], 1)
  chex.assert_equal_shape([scale, bias])
  deviation = jnp.abs(numerics.at_least_float32(scale))
  bias = numerics.at_least_float32(bias)
  # A pruned channel of scale 0 is the constant bias.
  ratio = bias / jnp.where(deviation > 0, deviation, 1e-12)
  below = jax.scipy.stats.norm.cdf(-ratio)
  rare = below <= 0.001
  tail = jax.scipy.stats.norm.pdf(ratio) / jnp.where(rare, 1.0, below)
  return jnp.where(rare, -3.0 * deviation, bias - deviation * tail)
