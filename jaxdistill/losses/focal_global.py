"""FGD: a loss on maps of detectors with weights of objects and background."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.losses import numerics


def focal_distillation_loss(
  student: jax.Array,
  teacher: jax.Array,
  boxes: jax.Array,
  is_box: jax.Array,
  *,
  image_size: Sequence[int],
  foreground: float = 0.001,
  background: float = 0.0005,
  attention: float = 0.0005,
  temperature: float | jax.Array = 0.5,
) -> jax.Array:
  """Focal part of FGD: differences weighted by boxes and by attention.

  The attention to places and to channels is a softmax of the mean magnitude of
  their entries at the temperature T, scaled so that its mean is 1::

    P_hw = H W softmax_hw(mean_c |x_hwc| / T)
    Q_c = C softmax_c(mean_hw |x_hwc| / T)

  P and Q are those of the teacher, P' and Q' those of the student, and F and G
  are the weights of places inside and outside the boxes. The loss is::

    sum_hwc (foreground F_hw + background G_hw) P_hw Q_c (student - teacher)**2
    + attention (sum_hw |P'_hw - P_hw| + sum_c |Q'_c - Q_c|)

  Args:
    student: `[B, H, W, C]`.
    teacher: `[B, H, W, C]`; no gradient flows to it.
    boxes: (top, left, bottom, right) in pixels of the images, `[B, M, 4]`.
    is_box: whether each row of `boxes` is a box, `[B, M]`.
    image_size: the height and width of the images in pixels.
    foreground: the weight of places inside boxes, alpha in the paper.
    background: the weight of the other places, beta in the paper.
    attention: the weight of the difference in attention, gamma in the paper.
    temperature: `T`, a number from 0.001 to 1e6, or an array `[]`.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: a weight is negative, or the temperature is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> teacher = jnp.ones((1, 1, 4, 1))
    >>> boxes = jnp.array([[[0.0, 0.0, 8.0, 7.0]]])  # the left two places
    >>> loss = losses.focal_distillation_loss(
    ...   0 * teacher,
    ...   teacher,
    ...   boxes,
    ...   jnp.array([[True]]),
    ...   image_size=(8, 32),
    ...   foreground=2.0,
    ...   background=1.0,
    ... )
    >>> print(loss.round(2))
    [2.]

  References:
    Yang et al., Focal and Global Knowledge Distillation for Detectors, 2021,
    https://arxiv.org/abs/2111.11837
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_rank([student, boxes], [4, 3])
  chex.assert_equal_shape_prefix([student, boxes, is_box], 1)
  checks.weights(
    foreground=foreground, background=background, attention=attention
  )
  numerics.check_temperature('temperature', temperature)
  student, teacher = numerics.prepare(student, teacher)
  inside, outside = _place_weights(boxes, is_box, image_size, student.shape)
  places, channels = _attention(teacher, temperature)
  weight = (foreground * inside + background * outside) * places
  square = (student - teacher) ** 2 * channels[:, None, None]
  differences = [
    numerics.absolute(x - y)
    for x, y in zip(_attention(student, temperature), (places, channels))
  ]
  return (
    (weight[..., None] * square).sum((1, 2, 3))
    + attention * differences[0].sum((1, 2))
    + attention * differences[1].sum(1)
  )


def _attention(
  maps: jax.Array, temperature: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the attention to places `[B, H, W]` and to channels `[B, C]`."""
  size = numerics.absolute(maps)
  places, channels = size.mean(3), size.mean((1, 2))
  flat = jax.nn.softmax(places.reshape(len(maps), -1) / temperature)
  return (
    flat.reshape(places.shape) * flat.shape[1],
    jax.nn.softmax(channels / temperature) * channels.shape[1],
  )


def _place_weights(
  boxes: jax.Array,
  is_box: jax.Array,
  image_size: Sequence[int],
  shape: Sequence[int],
) -> tuple[jax.Array, jax.Array]:
  """Returns the weights of places inside and outside of boxes, `[B, H, W]`.

  A place inside a box has the weight 1 / (the number of places in the box); if
  several boxes contain it, the smallest one counts. The places outside of all
  boxes share the weight 1 equally. As in the authors' code, the last row and
  column of a box are found by rounding its lower right corner up.

  Args:
    boxes: `[B, M, 4]`.
    is_box: `[B, M]`.
    image_size: the height and width of the images in pixels.
    shape: the shape of the maps, `[B, H, W, C]`.
  """
  area = jnp.ones(is_box.shape)
  is_inside = is_box[..., None, None]
  for axis, (places, pixels) in enumerate(zip(shape[1:3], image_size)):
    first = jnp.floor(boxes[..., axis] * (places / pixels))
    last = jnp.ceil(boxes[..., axis + 2] * (places / pixels))
    area *= last + 1 - first
    place = jnp.arange(places, dtype=first.dtype)[None, None]
    within = (place >= first[..., None]) & (place <= last[..., None])
    is_inside &= jnp.expand_dims(within, 3 - axis)
  inside = jnp.where(is_inside, 1 / area[..., None, None], 0.0)
  inside = inside.max(1, initial=0.0)
  outside = (inside == 0).astype(jnp.float32)
  count = outside.sum((1, 2), keepdims=True)
  return inside, outside / jnp.maximum(count, 1.0)
