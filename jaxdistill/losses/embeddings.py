"""Distances between vectors that describe the same image."""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics


def cosine_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Cosine distance of two vectors, one minus their cosine.

  It is computed as half the squared distance of their directions, which does
  not lose small distances to rounding::

    || student / ||student||_2 - teacher / ||teacher||_2 ||_2**2 / 2

  It is 0 for vectors of the same direction and 2 for opposite ones. A zero
  vector has no direction: its gradient is 0, and its distance from another zero
  vector is 0.

  Args:
    student: `[B, ...]`; all axes but the first form the vector.
    teacher: `[B, ...]`, the same shape; no gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    >>> teacher = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> print(losses.cosine_loss(student, teacher).round(3))
    [0.    0.293 2.   ]
  """
  chex.assert_equal_shape([student, teacher])
  vectors = (numerics.flatten(x) for x in numerics.prepare(student, teacher))
  student, teacher = map(numerics.normalize, vectors)
  return 0.5 * jnp.sum((student - teacher) ** 2, axis=-1)


def smooth_l1_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Smooth L1 distance of two vectors: the mean of the Huber loss.

  With the difference d of two entries, the loss is the mean over all entries
  of::

    d**2 / 2     if |d| < 1
    |d| - 1 / 2  otherwise

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, the same shape; no gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[1.0, 2.0], [0.0, 0.5]])
    >>> print(losses.smooth_l1_loss(student, jnp.zeros((2, 2))))
    [1.     0.0625]

  References:
    Girshick, Fast R-CNN, 2015, https://arxiv.org/abs/1504.08083
  """
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  return numerics.per_example(numerics.huber(student - teacher))
