"""Losses of detectors: the overlap of boxes, and classes with few examples.

Boxes are `[..., 4]`: (top, left, bottom, right) in pixels.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.losses import numerics


def box_areas(boxes: jax.Array) -> jax.Array:
  """Returns the areas of boxes, `[...]`; 0 for boxes whose sides are swapped.

  Args:
    boxes: `[..., 4]`.
  """
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
  return sides[..., 0] * sides[..., 1]


def box_overlaps(boxes: jax.Array, others: jax.Array) -> jax.Array:
  """Returns the intersection over union of boxes, `[...]`.

  It is 0 for two boxes without an area.

  Args:
    boxes: `[..., 4]`.
    others: `[..., 4]`; the leading axes are broadcast against those of `boxes`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [4.0, 4.0, 4.0, 4.0]])
    >>> print(losses.box_overlaps(boxes, jnp.array([0.0, 0.0, 2.0, 4.0])))
    [0.5 0. ]
  """
  return _overlap_and_union(boxes, others)[0]


def generalized_iou_loss(boxes: jax.Array, targets: jax.Array) -> jax.Array:
  """GIoU loss: one minus the overlap of boxes, plus a penalty for their gap.

  With the smallest box C that contains both boxes::

    1 - IoU + (area(C) - area(union)) / area(C)

  It is between 0 and 2.

  Args:
    boxes: the predicted boxes, `[..., 4]`.
    targets: the true boxes, likewise; no gradient flows to them.

  Returns:
    One loss per box, `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    >>> targets = jnp.array([[0.0, 0.0, 2.0, 2.0], [0.0, 3.0, 1.0, 4.0]])
    >>> print(losses.generalized_iou_loss(boxes, targets))
    [0.  1.5]

  References:
    Rezatofighi et al., Generalized Intersection over Union, 2019,
    https://arxiv.org/abs/1902.09630
  """
  chex.assert_equal_shape([boxes, targets])
  boxes, targets = numerics.prepare(boxes, targets)
  overlap, union = _overlap_and_union(boxes, targets)
  hull = jnp.concatenate(
    [
      jnp.minimum(boxes[..., :2], targets[..., :2]),
      jnp.maximum(boxes[..., 2:], targets[..., 2:]),
    ],
    axis=-1,
  )
  area = box_areas(hull)
  gap = jnp.where(area > 0, area - union, 0.0) / jnp.where(area > 0, area, 1.0)
  return 1.0 - overlap + gap


def focal_loss(
  logits: jax.Array,
  targets: jax.Array,
  *,
  alpha: float = 0.25,
  gamma: float = 2.0,
) -> jax.Array:
  """Focal loss: binary cross-entropy with less weight on clear cases.

  With the probability p that is predicted for the true answer::

    -a (1 - p)**gamma log p,  a = alpha for a positive and 1 - alpha otherwise

  Args:
    logits: `[...]`.
    targets: whether each logit belongs to a positive, booleans `[...]`.
    alpha: the weight of positives, in [0, 1].
    gamma: the exponent, at least 0. The larger it is, the smaller is the weight
      of logits that are already right; 0 gives the weighted cross-entropy.

  Returns:
    One loss per logit, `[...]`.

  Raises:
    UsageError: `alpha` or `gamma` is out of its range.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> logits, targets = jnp.array([0.0, 0.0, -9.0]), jnp.array([1, 0, 0])
    >>> print(losses.focal_loss(logits, targets == 1).round(2))
    [0.04 0.13 0.  ]

  References:
    Lin et al., Focal Loss for Dense Object Detection, 2017,
    https://arxiv.org/abs/1708.02002
  """
  checks.number('alpha', alpha, at_least=0, at_most=1)
  checks.number('gamma', gamma, at_least=0)
  chex.assert_equal_shape([logits, targets])
  logits = numerics.at_least_float32(logits)
  towards_truth = jnp.where(targets, logits, -logits)
  weight = jnp.where(targets, alpha, 1.0 - alpha)
  # The power of a sigmoid that is 0 would have no gradient below gamma = 1.
  unclear = jnp.exp(-gamma * jax.nn.softplus(towards_truth))
  return weight * unclear * jax.nn.softplus(-towards_truth)


def _overlap_and_union(
  boxes: jax.Array, others: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns (intersection over union, area of the union), `[...]`."""
  boxes, others = jnp.broadcast_arrays(boxes, others)
  corner = jnp.maximum(boxes[..., :2], others[..., :2])
  end = jnp.minimum(boxes[..., 2:], others[..., 2:])
  shared = box_areas(jnp.concatenate([corner, end], axis=-1))
  union = box_areas(boxes) + box_areas(others) - shared
  return jnp.where(union > 0, shared, 0.0) / jnp.where(
    union > 0, union, 1.0
  ), union
