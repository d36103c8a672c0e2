"""Classification losses with a margin between the directions of classes."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from jaxdistill.core import checks
from jaxdistill.losses import numerics


def cosface_loss(
  cosines: jax.Array,
  target: jax.Array,
  *,
  scale: float | jax.Array = 64.0,
  margin: float = 0.35,
) -> jax.Array:
  """CosFace: cross-entropy after the true class's cosine is reduced.

  With the scale `s`, the margin `m`, the true class `y` and the angle `t_j`
  between the vector and the weights of class `j`, the loss is::

    log(exp(s (cos t_y - m)) + sum_{j != y} exp(s cos t_j)) - s (cos t_y - m)

  Args:
    cosines: the cosines of the vectors and the weights of the classes,
      `[B, num_classes]`.
    target: the probabilities of the true classes, `[B, num_classes]`: one
      class for each image, or several if images are mixed. The margin of each
      class is multiplied by its probability.
    scale: `s`, a number, or one for each image, `[B, 1]`.
    margin: `m`, from 0 to 2.

  Returns:
    One loss per example in nats, `[B]`.

  Raises:
    UsageError: the margin is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> cosines = jnp.array([[0.8, 0.1], [0.2, 0.5]])
    >>> target = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss = losses.cosface_loss(cosines, target, scale=4.0)
    >>> print(np.asarray(loss).round(3))
    [0.22  0.798]

  References:
    Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition,
    2018, https://arxiv.org/abs/1801.09414
  """
  checks.number('margin', margin, at_least=0, at_most=2)
  return _cross_entropy(cosines, cosines - margin, target, scale)


def arcface_loss(
  cosines: jax.Array,
  target: jax.Array,
  *,
  scale: float | jax.Array = 64.0,
  margin: float = 0.5,
) -> jax.Array:
  """ArcFace: cross-entropy after the true class's angle is increased.

  With the names of `cosface_loss`, the loss is::

    log(exp(s cos(t_y + m)) + sum_{j != y} exp(s cos t_j)) - s cos(t_y + m)

  Where `t_y + m` is above pi, its cosine would rise again. There, as in the
  authors' code, cos t_y - m sin m takes the place of cos(t_y + m).

  Args:
    cosines: the cosines of the vectors and the weights of the classes,
      `[B, num_classes]`.
    target: the probabilities of the true classes; see `cosface_loss`.
    scale: `s`, a number, or one for each image, `[B, 1]`.
    margin: `m` in radians, from 0 to pi / 2.

  Returns:
    One loss per example in nats, `[B]`.

  Raises:
    UsageError: the margin is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from jaxdistill import losses
    >>> cosines = jnp.array([[0.8, 0.1], [0.2, 0.5]])
    >>> target = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss = losses.arcface_loss(cosines, target, scale=4.0)
    >>> print(np.asarray(loss).round(3))
    [0.25  1.107]

  References:
    Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face
    Recognition, 2018, https://arxiv.org/abs/1801.07698
  """
  checks.number('margin', margin, at_least=0, at_most=math.pi / 2)
  cosines = numerics.at_least_float32(cosines)
  square = 1 - cosines**2
  # The square root has no gradient at 0, where the angle is 0 or pi.
  inside = square > 1e-12
  sines = jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)
  shifted = cosines * math.cos(margin) - sines * math.sin(margin)
  beyond = cosines <= math.cos(math.pi - margin)
  shifted = jnp.where(beyond, cosines - margin * math.sin(margin), shifted)
  return _cross_entropy(cosines, shifted, target, scale)


def _cross_entropy(
  cosines: jax.Array,
  shifted: jax.Array,
  target: jax.Array,
  scale: float | jax.Array,
) -> jax.Array:
  """Returns the cross-entropy in which the true class has another cosine."""
  chex.assert_equal_shape([cosines, target])
  cosines, shifted = map(numerics.at_least_float32, (cosines, shifted))
  logits = scale * (cosines + target * (shifted - cosines))
  loss: jax.Array = optax.softmax_cross_entropy(logits, target)
  return loss
