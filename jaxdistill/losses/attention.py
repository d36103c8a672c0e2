"""Losses on normalised summaries of maps: where and how neurons respond."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics


def attention_transfer_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """AT: squared difference of the attention maps.

  With the attention map a(f) of a feature f, the loss is::

    mean_hw (a(student) - a(teacher))**2,
    a(f) = q / ||q||_2,   q_hw = mean_c f_hwc**2

  The paper prints the norm of the difference, weighted by beta / 2. The
  authors' code and RepDistiller average over positions, with beta = 1000, and
  this function does the same.

  Args:
    student: `[B, H, W, C]`.
    teacher: `[B, H', W', C']`; no gradient flows to it. The larger map is
      pooled to the size of the smaller.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> # The student looks only at the first of two positions.
    >>> student = jnp.array([5.0, 0.0]).reshape(1, 1, 2, 1)
    >>> teacher = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> loss = losses.attention_transfer_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [0.51]

  References:
    Zagoruyko and Komodakis, Paying More Attention to Attention, 2016,
    https://arxiv.org/abs/1612.03928
  """
  student, teacher = numerics.prepare(student, teacher)
  student, teacher = numerics.match_size(student, teacher)
  difference = _attention(student) - _attention(teacher)
  return numerics.per_example(difference**2)


def neuron_selectivity_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """NST: squared maximum mean discrepancy of the channels' response patterns.

  With the kernel k, the loss is::

    mean_cd k(s_c, s_d) + mean_cd k(t_c, t_d) - 2 * mean_cd k(s_c, t_d),
    k(x, y) = (x . y)**2

  Here, s_c and t_c are the channels of the student and of the teacher as
  vectors over the positions, scaled to norm 1. The kernel needs only Gram
  matrices; they are those of the positions or those of the channels, whichever
  are fewer.

  Args:
    student: `[B, H, W, C]`.
    teacher: `[B, H', W', C']`; no gradient flows to it. The larger map is
      pooled to the size of the smaller.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student = jnp.array([2.0, 0.0]).reshape(1, 1, 2, 1)
    >>> teacher = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> loss = losses.neuron_selectivity_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [1.28]

  References:
    Huang and Wang, Like What You Like: Knowledge Distill via Neuron
    Selectivity Transfer, 2017, https://arxiv.org/abs/1707.01219
  """
  student, teacher = numerics.prepare(student, teacher)
  student, teacher = numerics.match_size(student, teacher)
  s, t = _channel_patterns(student), _channel_patterns(teacher)
  if s.shape[1] < max(s.shape[2], t.shape[2]):
    # With K_s = sum_c s_c s_c^T / C, and K_t likewise, each of the three means
    # is an inner product of two of these matrices.
    difference = _position_gram(s) - _position_gram(t)
    return numerics.per_example(difference**2, 'sum')
  within = _mean_kernel(s, s) + _mean_kernel(t, t)
  return within - 2.0 * _mean_kernel(s, t)


def factor_transfer_loss(
  student: jax.Array, teacher: jax.Array, *, attention: bool = False
) -> jax.Array:
  """FT: absolute difference of the normalised factors.

  With f for a factor that is scaled to norm 1, the loss is::

    mean |f(student) - f(teacher)|,   f(z) = z / ||z||_2

  This is the paper's 1-norm, averaged as in the authors' code, where its weight
  is 500. RepDistiller compares the attention maps of the factors instead, with
  a weight of 200; see `attention`.

  Args:
    student: the translator's factor, `[B, H, W, C]`.
    teacher: the paraphraser's factor, `[B, H', W', C]`; no gradient flows to
      it. The larger map is pooled to the size of the smaller.
    attention: whether to compare attention maps; see `attention_transfer_loss`.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> student = jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    >>> teacher = jnp.array([7.0, 0.0]).reshape(1, 1, 2, 1)
    >>> loss = losses.factor_transfer_loss(student, teacher)
    >>> print(np.asarray(loss).round(2))
    [0.6]

  References:
    Kim et al., Paraphrasing Complex Network: Network Compression via Factor
    Transfer, 2018, https://arxiv.org/abs/1802.04977
  """
  chex.assert_equal(student.shape[-1], teacher.shape[-1])
  student, teacher = numerics.prepare(student, teacher)
  student, teacher = numerics.match_size(student, teacher)
  if attention:
    difference = _attention(student) - _attention(teacher)
  else:
    difference = numerics.normalize(
      numerics.flatten(student)
    ) - numerics.normalize(numerics.flatten(teacher))
  return numerics.per_example(numerics.absolute(difference))


def _attention(feature: jax.Array) -> jax.Array:
  """Returns the attention over the positions, of norm 1, `[B, H * W]`."""
  return numerics.normalize(numerics.flatten(jnp.mean(feature**2, axis=-1)))


def _channel_patterns(feature: jax.Array) -> jax.Array:
  """Returns channels of norm 1 over the positions, `[B, H * W, C]`."""
  patterns = feature.reshape(feature.shape[0], -1, feature.shape[-1])
  return numerics.normalize(patterns, axis=1)


def _position_gram(patterns: jax.Array) -> jax.Array:
  """Returns the Gram matrix of the positions over the number of channels."""
  return numerics.gram(patterns) / patterns.shape[-1]


def _mean_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns the mean of the kernel over all pairs of channels, `[B]`."""
  kernel = numerics.contract('bpc,bpd->bcd', x, y) ** 2
  return jnp.mean(kernel, axis=(1, 2))
