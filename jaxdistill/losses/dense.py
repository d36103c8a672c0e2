"""Losses on maps of classes and of features, for tasks with a target per pixel.

A mask holds the class of each pixel, integers `[B, H, W]`, or `IGNORE`. It may
have another size than the maps: each place of a map takes the class of the
nearest pixel.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.values import IGNORE
from jaxdistill.losses import divergences, numerics


def pixel_soft_target_loss(
  student: jax.Array,
  teacher: jax.Array,
  mask: jax.Array,
  *,
  temperature: float | jax.Array = 1.0,
) -> jax.Array:
  """Pixel-wise KD: the mean of `soft_target_loss` over pixels with a class::

    mean_hw T**2 * KL(softmax(teacher_hw / T) || softmax(student_hw / T))

  The divergence is a sum over classes. The authors of IFVD average over the
  classes too; their weight of 10 for 19 classes is 10/19 here.

  Args:
    student: the student's logits, `[B, h, w, num_classes]`.
    teacher: the teacher's logits, likewise; no gradient flows to them.
    mask: the classes `[B, H, W]`; pixels that are `IGNORE` do not count.
    temperature: `T`, a number from 0.001 to 1e6, or an array `[]`.

  Returns:
    One loss per image in nats, `[B]`; 0 for an image without classes.

  Raises:
    UsageError: the temperature is out of range, or an array with axes.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.zeros((1, 1, 2, 2))
    >>> teacher = jnp.array([[[[3.0, 0.0], [9.0, 0.0]]]])
    >>> mask = jnp.array([[[0, 255]]])  # the second pixel does not count
    >>> print(losses.pixel_soft_target_loss(student, teacher, mask).round(2))
    [0.5]

  References:
    Liu et al., Structured Knowledge Distillation for Dense Prediction, 2019,
    https://arxiv.org/abs/1903.04197
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_rank(student, 4)
  numerics.check_temperature('temperature', temperature)
  student, teacher = numerics.prepare(student, teacher)
  loss = temperature**2 * divergences.softened(student, teacher, temperature)
  return _mean_over_classes(loss, _nearest(mask, student))


def channel_wise_loss(
  student: jax.Array,
  teacher: jax.Array,
  *,
  temperature: float | jax.Array = 1.0,
) -> jax.Array:
  """CWD: divergence of each channel's distribution over the places of a map.

  The softmax runs over the places, and the mean over the channels c::

    mean_c T**2 * KL(softmax(teacher_c / T) || softmax(student_c / T))

  Args:
    student: maps or logits, `[B, H, W, C]`.
    teacher: maps or logits, likewise; no gradient flows to them.
    temperature: `T`, a number from 0.001 to 1e6, or an array `[]`.

  Returns:
    One loss per example in nats, `[B]`.

  Raises:
    UsageError: the temperature is out of range, or an array with axes.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.zeros((1, 1, 2, 1))
    >>> teacher = jnp.array([[[[3.0], [0.0]]]])
    >>> print(losses.channel_wise_loss(student, teacher).round(2))
    [0.5]

  References:
    Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, 2020,
    https://arxiv.org/abs/2011.13256
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_rank(student, 4)
  numerics.check_temperature('temperature', temperature)
  student, teacher = (
    x.reshape(len(x), -1, x.shape[-1]).swapaxes(1, 2)
    for x in numerics.prepare(student, teacher)
  )
  loss = divergences.softened(student, teacher, temperature)
  return temperature**2 * loss.mean(1)


def map_absolute_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Plain KD of depths: the mean absolute difference of two maps.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, the same shape; no gradient flows to it.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student, teacher = jnp.array([[1.0, 2.0]]), jnp.array([[2.0, 4.0]])
    >>> print(losses.map_absolute_error(student, teacher))
    [1.5]
  """
  chex.assert_equal_shape([student, teacher])
  student, teacher = numerics.prepare(student, teacher)
  return numerics.per_example(numerics.absolute(student - teacher))


def intra_class_variation_loss(
  student: jax.Array, teacher: jax.Array, mask: jax.Array, *, num_classes: int
) -> jax.Array:
  """IFV: squared difference of how similar pixels are to their class's centre.

  The centre of a class is the mean of an image's features over the pixels of
  that class. With the cosine v_hw between the feature of a pixel and the centre
  of its class, the loss is::

    mean_hw (v(student)_hw - v(teacher)_hw)**2

  The mean runs over the pixels with a class. The authors' code counts ignored
  pixels too, with the value 0. The larger map is pooled to the size of the
  smaller.

  Args:
    student: `[B, h, w, C]`.
    teacher: `[B, h', w', C']`; no gradient flows to it.
    mask: the classes `[B, H, W]`; pixels that are `IGNORE` do not count.
    num_classes: the number of classes.

  Returns:
    One loss per image, `[B]`; 0 for an image without classes.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> # Two pixels of one class: orthogonal in the student's features, equal
    >>> # in the teacher's.
    >>> student = jnp.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    >>> mask = jnp.zeros((1, 1, 2), int)
    >>> loss = losses.intra_class_variation_loss(
    ...   student, jnp.ones_like(student), mask, num_classes=1
    ... )
    >>> print(loss.round(3))
    [0.086]

  References:
    Wang et al., Intra-class Feature Variation Distillation for Semantic
    Segmentation, 2020, https://github.com/YukangWang/IFVD
  """
  checks.integer('num_classes', num_classes)
  student, teacher = numerics.match_size(*numerics.prepare(student, teacher))
  classes = _nearest(mask, student)
  difference = _variation(student, classes, num_classes) - _variation(
    teacher, classes, num_classes
  )
  return _mean_over_classes(difference**2, classes)


def pairwise_similarity_loss(
  student: jax.Array, teacher: jax.Array, *, nodes: int = 8
) -> jax.Array:
  """Pair-wise distillation: squared difference of similarities between places.

  Maps are average-pooled to at most `nodes * nodes` places, the nodes. With the
  cosine a_ij between the features of the nodes i and j, the loss is::

    mean_ij (a(student)_ij - a(teacher)_ij)**2

  Args:
    student: `[B, H, W, C]`.
    teacher: `[B, H', W', C']`; no gradient flows to it.
    nodes: the largest number of rows, and of columns, of nodes.

  Returns:
    One loss per example, `[B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> # Two places: orthogonal in the student's features, equal in the
    >>> # teacher's.
    >>> student = jnp.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    >>> teacher = jnp.ones_like(student)
    >>> print(losses.pairwise_similarity_loss(student, teacher).round(2))
    [0.5]

  References:
    Liu et al., Structured Knowledge Distillation for Dense Prediction, 2019,
    https://arxiv.org/abs/1903.04197
  """
  checks.integer('nodes', nodes)
  student, teacher = numerics.match_size(*numerics.prepare(student, teacher))
  difference = _similarities(student, nodes) - _similarities(teacher, nodes)
  return numerics.per_example(difference**2)


def _nearest(mask: jax.Array, maps: jax.Array) -> jax.Array:
  """Returns the classes at the places of maps, `[B, h, w]`."""
  chex.assert_rank(mask, 3)
  chex.assert_equal_shape_prefix([mask, maps], 1)
  classes: jax.Array = jax.image.resize(mask, maps.shape[:3], 'nearest')
  return classes


def _mean_over_classes(values: jax.Array, classes: jax.Array) -> jax.Array:
  """Averages `[B, h, w]` over the places of each image that have a class."""
  counts = (classes != IGNORE).astype(values.dtype)
  total = (values * counts).sum((1, 2))
  return total / jnp.maximum(counts.sum((1, 2)), 1.0)


def _variation(
  maps: jax.Array, classes: jax.Array, num_classes: int
) -> jax.Array:
  """Returns the cosine of each feature with its class's centre, `[B, h, w]`."""
  member = jax.nn.one_hot(classes, num_classes, dtype=maps.dtype)
  totals = numerics.contract('bhwk,bhwc->bkc', member, maps)
  # The direction of a centre is that of the sum.
  centres = numerics.contract(
    'bhwk,bkc->bhwc', member, numerics.normalize(totals)
  )
  return (numerics.normalize(maps) * centres).sum(-1)


def _similarities(maps: jax.Array, nodes: int) -> jax.Array:
  """Returns the cosines between the nodes of each map, `[B, n, n]`."""
  height, width = (min(side, nodes) for side in maps.shape[1:3])
  pooled = numerics.adaptive_average_pool(maps, height, width)
  features = numerics.normalize(pooled.reshape(len(maps), -1, maps.shape[-1]))
  return numerics.gram(features)
