"""Losses on relations: between the examples of a batch, between two layers.

Relations between examples take the whole batch they are given. Under data
parallelism that is the global batch when the arrays are global, as they are
under `jax.jit`.
"""

from collections.abc import Sequence
import itertools

import chex
import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics
from jaxdistill.types import UsageError


def similarity_preserving_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """Squared difference of the examples' similarities.

    sum_ij (g(student) - g(teacher))_ij**2 / B**2

  g(F) are the rows of F F^T, each divided by its norm; F is flattened.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, of any shape behind the batch; no gradient flows to it.

  Returns:
    A scalar: the loss compares pairs of examples.

  References:
    Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019,
    https://arxiv.org/abs/1907.09682
  """
  student, teacher = _vectors(student, teacher)
  difference = numerics.normalize(_gram(student)) - numerics.normalize(
    _gram(teacher)
  )
  return jnp.mean(difference**2)


def relational_distance_loss(
  student: jax.Array, teacher: jax.Array
) -> jax.Array:
  """Huber loss of the distances between examples, in units of their mean.

    mean_ij huber(d(student)_ij - d(teacher)_ij)

  d is the Euclidean distance divided by its mean over pairs of different
  examples; the mean of the loss is over all B**2 entries, the zero diagonal
  included. The student's mean distance has a gradient.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, of any shape behind the batch; no gradient flows to it.

  Returns:
    A scalar: the loss compares pairs of examples.

  References:
    Park et al., Relational Knowledge Distillation, 2019,
    https://arxiv.org/abs/1904.05068
  """
  student, teacher = _vectors(student, teacher)
  difference = _mean_distances(student) - _mean_distances(teacher)
  return jnp.mean(_huber(difference))


def relational_angle_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Huber loss of the angles in triangles of examples.

    mean_ijk huber(a(student)_ijk - a(teacher)_ijk),
    a_ijk = cos of the angle at i between j and k

  The mean is over all B**3 triples; triples that are no triangle have cosine 0
  or 1 in both. Memory grows with B**2 (B + D).

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, of any shape behind the batch; no gradient flows to it.

  Returns:
    A scalar: the loss compares triples of examples.

  References:
    Park et al., Relational Knowledge Distillation, 2019,
    https://arxiv.org/abs/1904.05068
  """
  student, teacher = _vectors(student, teacher)
  return jnp.mean(_huber(_cosines(student) - _cosines(teacher)))


def probabilistic_transfer_loss(
  student: jax.Array, teacher: jax.Array, *, epsilon: float = 1e-7
) -> jax.Array:
  """Divergence of the probabilities with which examples choose each other.

    mean_ij t_ij log((t_ij + epsilon) / (s_ij + epsilon))

  t and s are the matrices (cosine + 1) / 2, each row divided by its sum. As in
  the authors' code the diagonal is included and the mean is over all entries,
  not the sum over rows.

  Args:
    student: `[B, ...]`.
    teacher: `[B, ...]`, of any shape behind the batch; no gradient flows to it.
    epsilon: keeps the logarithm finite.

  Returns:
    A scalar in nats per pair: the loss compares pairs of examples.

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
  """Product of the errors of neighbouring examples.

    mean_b sum_d e_bd e_(b+1)d,  e = |student - teacher|

  The authors' surrogate, as in RepDistiller, of the paper's difference of
  Gaussian kernels. The order of the batch matters.

  Args:
    student: embeddings, `[B, D]`.
    teacher: embeddings, `[B, D]`. They are trained as well: the gradient flows
      to both arguments, and both can collapse to one point.

  Returns:
    A scalar: the loss multiplies pairs of examples.

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
  """Squared difference of the flow matrices of consecutive features.

    sum_i mean_cd (G(student)_icd - G(teacher)_icd)**2,
    G_icd = mean over positions of f_ic f_(i+1)d

  The paper has the norm of the difference and weights; the mean over entries
  and equal weights are those of RepDistiller.

  Args:
    student: at least two features in order, each `[B, H_i, W_i, C_i]`; of two
      consecutive ones the larger is pooled to the size of the smaller.
    teacher: as many with the same channels; no gradient flows to them.

  Returns:
    One loss per example, `[B]`.

  Raises:
    UsageError: there are less than two features.

  References:
    Yim et al., A Gift from Knowledge Distillation, 2017,
    https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html
  """
  chex.assert_equal(len(student), len(teacher))
  if len(student) < 2:
    raise UsageError(f'{len(student)} features; valid: at least 2')
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
  """Both as `[B, D]`, where D may differ."""
  chex.assert_equal_shape_prefix([student, teacher], 1)
  student, teacher = numerics.prepare(student, teacher)
  return numerics.flatten(student), numerics.flatten(teacher)


def _gram(vectors: jax.Array) -> jax.Array:
  return numerics.contract('id,jd->ij', vectors, vectors)


def _differences(vectors: jax.Array) -> jax.Array:
  """Vectors from i to j, `[B, B, D]`.

  Not by way of the Gram matrix: its cancellation ruins short distances.
  """
  if jax.default_backend() == 'cpu':
    # XLA for the CPU would compute what makes a vector, such as the pooling of
    # a map, again for each of its B pairs; a matrix product it keeps.
    one = jnp.eye(vectors.shape[0], dtype=vectors.dtype)
    vectors = numerics.contract('ij,jd->id', one, vectors)
  return vectors[None] - vectors[:, None]


def _mean_distances(vectors: jax.Array) -> jax.Array:
  """Distances over their mean, `[B, B]`; zero if all vectors are equal."""
  distances = numerics.norm(_differences(vectors), axis=-1)
  batch = vectors.shape[0]
  mean = jnp.sum(distances) / max(batch * (batch - 1), 1)
  return distances / jnp.where(mean > 0, mean, 1.0)


def _cosines(vectors: jax.Array) -> jax.Array:
  """Cosines of the angles at i between j and k, `[B, B, B]`."""
  directions = numerics.normalize(_differences(vectors))
  return numerics.contract('ijd,ikd->ijk', directions, directions)


def _huber(error: jax.Array) -> jax.Array:
  size = jnp.abs(error)
  return jnp.where(size < 1.0, 0.5 * error**2, size - 0.5)


def _choices(vectors: jax.Array) -> jax.Array:
  """Probabilities of j given i, `[B, B]`."""
  similarity = 0.5 * (_gram(numerics.normalize(vectors)) + 1.0)
  # Rounding may put opposite vectors below zero, where no logarithm is.
  similarity = jnp.maximum(similarity, 0.0)
  return similarity / jnp.sum(similarity, axis=1, keepdims=True)


def _flow(feature: jax.Array, following: jax.Array) -> jax.Array:
  """Flow matrix, `[B, C, C']`."""
  feature, following = numerics.match_size(feature, following)
  positions = feature.shape[1] * feature.shape[2]
  return numerics.contract('bhwc,bhwd->bcd', feature, following) / positions
