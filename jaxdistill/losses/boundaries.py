"""Losses on features before the activation: on which side of zero they lie."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.losses import numerics


def activation_boundary_loss(
  student: jax.Array, teacher: jax.Array, *, margin: float = 1.0
) -> jax.Array:
  """AB: squared hinge loss that moves the student to the teacher's side of 0.

  The sum runs over all entries of an example::

    sum  relu(margin - student)**2   where teacher > 0,
         relu(margin + student)**2   elsewhere

  The authors' factor of 3 / 1000 and their halving of the weight from one layer
  to the next are weights, and therefore left to the caller.

  Args:
    student: the student's feature before the activation, `[B, ...]`.
    teacher: the teacher's feature before the activation, of the same shape.
      Only its signs matter, and no gradient flows to it.
    margin: the distance from zero beyond which the loss is 0.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: the margin is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[2.0, 0.5, -1.0]])
    >>> teacher = jnp.array([[0.1, 0.1, 0.1]])
    >>> print(losses.activation_boundary_loss(student, teacher))
    [4.25]

  References:
    Heo et al., Knowledge Transfer via Distillation of Activation Boundaries
    Formed by Hidden Neurons, 2018, https://arxiv.org/abs/1811.03233
  """
  chex.assert_equal_shape([student, teacher])
  checks.number('margin', margin, above=0)
  student, teacher = numerics.prepare(student, teacher)
  agreement = jnp.where(teacher > 0, student, -student)
  return numerics.per_example(jax.nn.relu(margin - agreement) ** 2, 'sum')


def margin_relu_loss(
  student: jax.Array, teacher: jax.Array, margin: jax.Array
) -> jax.Array:
  """OFD: partial squared distance to the teacher's feature above a margin.

  The sum runs over all entries of an example::

    sum  (student - t)**2   where student > t or t > 0,
    t = max(teacher, margin)

  Where the teacher does not respond, the student's feature may be any number
  below the teacher's. The authors' factor (1e-3 on CIFAR, 1e-4 on ImageNet) and
  their halving of the weight from one layer to the next are weights, and
  therefore left to the caller.

  Args:
    student: the student's feature before the activation, after the connector,
      `[B, ..., C]`.
    teacher: the teacher's feature before the activation, `[B, ..., C]`; no
      gradient flows to it.
    margin: a negative number per channel, from `batch_norm_margins`, `[C]`; no
      gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[0.0], [1.0], [-2.0]])
    >>> teacher = jnp.array([[2.0], [-3.0], [-3.0]])
    >>> margin = jnp.array([-1.0])
    >>> print(losses.margin_relu_loss(student, teacher, margin))
    [4. 4. 0.]

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
  """Expected negative response of each channel after a batch norm.

  The response x is taken to be normal with mean `bias` and standard deviation
  s = `|scale|`::

    E[x | x < 0] = bias - s * pdf(bias / s) / cdf(-bias / s)

  If a channel is negative with a probability of at most 0.001, its margin is
  -3 s, as in the authors' code (clovaai/overhaul-distillation).

  Args:
    scale: the scale of the teacher's last batch norm before the activation,
      `[C]`.
    bias: the bias of the same batch norm, `[C]`.

  Returns:
    Margins for `margin_relu_loss`, at most 0, `[C]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> scale, bias = jnp.array([1.0, 1.0]), jnp.array([0.0, 4.0])
    >>> margins = losses.batch_norm_margins(scale, bias)
    >>> print(np.asarray(margins).round(2))
    [-0.8 -3. ]

  References:
    Heo et al., A Comprehensive Overhaul of Feature Distillation, 2019,
    https://arxiv.org/abs/1904.01866
  """
  chex.assert_rank([scale, bias], 1)
  chex.assert_equal_shape([scale, bias])
  deviation = jnp.abs(numerics.at_least_float32(scale))
  bias = numerics.at_least_float32(bias)
  # The response of a pruned channel, whose scale is 0, is the constant bias.
  ratio = bias / jnp.where(deviation > 0, deviation, 1e-12)
  below = jax.scipy.stats.norm.cdf(-ratio)
  rare = below <= 0.001
  tail = jax.scipy.stats.norm.pdf(ratio) / jnp.where(rare, 1.0, below)
  return jnp.where(rare, -3.0 * deviation, bias - deviation * tail)
