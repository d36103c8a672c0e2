"""Losses on relations: between the examples of a batch, between two layers.

A relation between examples covers the whole batch that is passed in. Under data
parallelism this is the global batch, provided that the arrays are global, as
they are inside `jax.jit`.
"""

from collections.abc import Sequence
import itertools

import chex
import jax
import jax.numpy as jnp

from jaxdistill.core.checks import UsageError
from jaxdistill.losses import numerics


def similarity_preserving_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """SP: squared difference of the similarities between examples.

  With the similarity matrices g, the loss is::

    sum_ij (g(student) - g(teacher))_ij**2 / B**2

  The rows of g(F) are the rows of F F^T, each divided by its norm, where F is
  the flattened feature.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`; the axes after the first may differ from the student's.
      No gradient flows to it.

  Returns:
    A scalar, because the loss compares pairs of examples.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> # The student's examples are orthogonal, the teacher's are equal.
    >>> loss = losses.similarity_preserving_loss(jnp.eye(2), jnp.ones((2, 3)))
    >>> print(f'{loss:.2f}')
    0.29

  References:
    Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019,
    https://arxiv.org/abs/1907.09682
  """
  student, teacher = _vectors(student, teacher)
  difference = numerics.normalize(numerics.gram(student)) - numerics.normalize(
    numerics.gram(teacher)
  )
  return jnp.mean(difference**2)


def relational_distance_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """RKD-D: Huber loss of the distances between examples, divided by their mean.

  With the matrix d of distances, the loss is::

    mean_ij huber(d(student)_ij - d(teacher)_ij)

  The entry d_ij is the Euclidean distance divided by the mean distance over
  pairs of different examples. The mean of the loss runs over all B**2 entries,
  including the zeros of the diagonal. The gradient flows through the student's
  mean distance as well.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`; the axes after the first may differ from the student's.
      No gradient flows to it.

  Returns:
    A scalar, because the loss compares pairs of examples.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[0.0], [1.0], [2.0]])
    >>> teacher = jnp.array([[0.0], [1.0], [1.0]])
    >>> loss = losses.relational_distance_loss(student, teacher)
    >>> print(f'{loss:.3f}')
    0.125

  References:
    Park et al., Relational Knowledge Distillation, 2019,
    https://arxiv.org/abs/1904.05068
  """
  student, teacher = _vectors(student, teacher)
  difference = _mean_distances(student) - _mean_distances(teacher)
  return jnp.mean(numerics.huber(difference))


def relational_angle_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """RKD-A: Huber loss of the angles in triangles of examples.

  With the cosine a_ijk of the angle at i between j and k, the loss is::

    mean_ijk huber(a(student)_ijk - a(teacher)_ijk)

  The mean runs over all B**3 triples. A triple that is not a triangle has the
  same cosine, 0 or 1, in both networks. The memory grows with B**2 (B + D).

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`; the axes after the first may differ from the student's.
      No gradient flows to it.

  Returns:
    A scalar, because the loss compares triples of examples.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> # The student's examples form a right angle, the teacher's a line.
    >>> student = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> teacher = jnp.array([[0.0], [-1.0], [1.0]])
    >>> loss = losses.relational_angle_loss(student, teacher)
    >>> print(f'{loss:.3f}')
    0.043

  References:
    Park et al., Relational Knowledge Distillation, 2019,
    https://arxiv.org/abs/1904.05068
  """
  student, teacher = _vectors(student, teacher)
  return jnp.mean(numerics.huber(_cosines(student) - _cosines(teacher)))


def probabilistic_transfer_loss(
  student: jax.Array, teacher: jax.Array, *, epsilon: float = 1e-7
) -> jax.Array:
  """PKT: divergence of the probabilities with which examples choose each other.

  With the matrices s and t of probabilities, the loss is::

    mean_ij t_ij * log((t_ij + epsilon) / (s_ij + epsilon))

  Each row of s and t is a row of the matrix (cosine + 1) / 2, divided by its
  sum; s belongs to the student and t to the teacher. As in the authors' code,
  the diagonal is included, and the mean runs over all entries, where a sum over
  each row would be usual.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`; the axes after the first may differ from the student's.
      No gradient flows to it.
    epsilon: a small number that keeps the logarithm finite.

  Returns:
    A scalar in nats per pair, because the loss compares pairs of examples.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> # The student's examples are orthogonal, the teacher's are equal.
    >>> loss = losses.probabilistic_transfer_loss(jnp.eye(2), jnp.ones((2, 3)))
    >>> print(f'{loss:.3f}')
    0.029

  References:
    Passalis and Tefas, Learning Deep Representations with Probabilistic
    Knowledge Transfer, 2018, https://arxiv.org/abs/1803.10837
  """
  student, teacher = _vectors(student, teacher)
  s, t = _choices(student), _choices(teacher)
  return jnp.mean(t * (jnp.log(t + epsilon) - jnp.log(s + epsilon)))


def correlation_congruence_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """CC: product of the errors of neighbouring examples.

  With the absolute error e of an embedding, the loss is::

    mean_b sum_d e_bd * e_(b+1)d,   e = |student - teacher|

  This is the surrogate in the authors' code and in RepDistiller for the paper's
  difference of Gaussian kernels. It depends on the order of the batch.

  Args:
    student: embeddings, `[B, D]`.
    teacher: embeddings, `[B, D]`. Both embeddings are trained: the gradient
      flows to both arguments, and both can collapse to one point.

  Returns:
    A scalar, because the loss multiplies the errors of pairs of examples.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = jnp.array([[1.0, -2.0], [-3.0, 0.0], [1.0, 1.0]])
    >>> print(losses.correlation_congruence_loss(student, jnp.zeros((3, 2))))
    3.0

  References:
    Peng et al., Correlation Congruence for Knowledge Distillation, 2019,
    https://arxiv.org/abs/1904.01802
  """
  chex.assert_rank([student, teacher], 2)
  chex.assert_equal_shape([student, teacher])
  student = numerics.at_least_float32(student)
  error = numerics.absolute(student - numerics.at_least_float32(teacher))
  return jnp.sum(error[:-1] * error[1:]) / max(error.shape[0] - 1, 1)


def flow_loss(
  student: Sequence[jax.Array], teacher: Sequence[jax.Array]
) -> jax.Array:
  """FSP: squared difference of the flow matrices of consecutive features.

  With the flow matrix G between two consecutive features f, the loss is::

    sum_i mean_cd (G(student)_icd - G(teacher)_icd)**2,
    G_icd = mean over positions of f_ic * f_(i+1)d

  The paper prints the norm of the difference, with weights. RepDistiller takes
  the mean over entries with equal weights, and this function does the same.

  Args:
    student: at least two features in order, each `[B, H_i, W_i, C_i]`. The
      larger of two consecutive features is pooled to the size of the smaller.
    teacher: as many features with the same channels; no gradient flows to them.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: there are fewer than two features.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxdistill import losses
    >>> student = [jnp.full((1, 2, 2, 2), 2.0), jnp.ones((1, 1, 1, 4))]
    >>> teacher = [jnp.ones((1, 2, 2, 2)), jnp.ones((1, 1, 1, 4))]
    >>> print(losses.flow_loss(student, teacher))
    [1.]

  References:
    Yim et al., A Gift from Knowledge Distillation, 2017,
    https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html
  """
  chex.assert_equal(len(student), len(teacher))
  if len(student) < 2:
    raise UsageError(
      f'student: expected at least 2 features, got {len(student)}'
    )
  pairs = [numerics.prepare(s, t) for s, t in zip(student, teacher)]
  losses = []
  for (s, t), (next_s, next_t) in itertools.pairwise(pairs):
    flows = [_flow(s, next_s), _flow(t, next_t)]
    chex.assert_equal_shape(flows)
    losses.append(numerics.per_example((flows[0] - flows[1]) ** 2))
  return sum(losses[1:], losses[0])


def _vectors(
  student: jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns both as `[B, D]`, where D may differ."""
  chex.assert_equal_shape_prefix([student, teacher], 1)
  student, teacher = numerics.prepare(student, teacher)
  return numerics.flatten(student), numerics.flatten(teacher)


def _differences(vectors: jax.Array) -> jax.Array:
  """Returns the vectors from i to j, `[B, B, D]`.

  Distances computed from the Gram matrix would need less memory, but short ones
  would be lost to cancellation.
  """
  if jax.default_backend() == 'cpu':
    # On the CPU, XLA would fuse the operation that produced a vector, such as
    # the pooling of a map, into the subtraction and repeat it for each of the B
    # pairs. It keeps the result of a matrix product.
    identity = jnp.eye(vectors.shape[0], dtype=vectors.dtype)
    vectors = numerics.contract('ij,jd->id', identity, vectors)
  return vectors[None] - vectors[:, None]


@jax.custom_jvp
def _squared_distances(vectors: jax.Array) -> jax.Array:
  """Returns the squared distances of all pairs of vectors, `[B, B]`."""
  return jnp.sum(_differences(vectors) ** 2, axis=-1)


@_squared_distances.defjvp
def _squared_distances_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  # The distances are symmetric, so only the part in which j moves is computed,
  # and the gradient is one sum over the differences instead of two. Without
  # the barrier, XLA would store all differences.
  (vectors,), (tangent,) = primals, tangents
  barrier = jax.lax.optimization_barrier(vectors)  # type: ignore[no-untyped-call,unused-ignore]
  half = 2 * jnp.sum(_differences(barrier) * tangent[None], axis=-1)
  return _squared_distances(vectors), half + half.T


def _rounding(vectors: jax.Array) -> jax.Array:
  """Returns the distance at which vectors are equal but for rounding, `[]`.

  The direction and the relative length of such a distance are random, and their
  gradients have no bound.
  """
  square = jnp.sum(jax.lax.stop_gradient(vectors) ** 2, axis=1)
  return numerics.ROUNDING * jnp.sqrt(jnp.max(square))


def _mean_distances(vectors: jax.Array) -> jax.Array:
  """Returns distances over their mean, `[B, B]`, or 0 if all are equal."""
  distances = numerics.root(
    _squared_distances(vectors), shortest=_rounding(vectors)
  )
  batch = vectors.shape[0]
  mean = jnp.sum(distances) / max(batch * (batch - 1), 1)
  return distances / jnp.where(mean > 0, mean, 1.0)


def _cosines(vectors: jax.Array) -> jax.Array:
  """Returns cosines of the angles at i between j and k, `[B, B, B]`."""
  directions = numerics.normalize(
    _differences(vectors), shortest=jnp.maximum(_rounding(vectors), 1e-12)
  )
  return numerics.gram(directions)


def _choices(vectors: jax.Array) -> jax.Array:
  """Returns the probabilities of j given i, `[B, B]`."""
  similarity = 0.5 * (numerics.gram(numerics.normalize(vectors)) + 1.0)
  # For opposite vectors, rounding may give a number below zero, which has no
  # logarithm.
  similarity = jnp.maximum(similarity, 0.0)
  return similarity / jnp.sum(similarity, axis=1, keepdims=True)


def _flow(feature: jax.Array, following: jax.Array) -> jax.Array:
  """Returns the flow matrix of two features, `[B, C, C']`."""
  feature, following = numerics.match_size(feature, following)
  positions = feature.shape[1] * feature.shape[2]
  return numerics.contract('bhwc,bhwd->bcd', feature, following) / positions
