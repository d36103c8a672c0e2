"""Building blocks that the losses share: safe norms, reductions, pooling."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError

# A vector shorter than this has no direction (the bound of torch's normalize).
_SHORTEST = 1e-12
# Numbers that differ by this fraction of their size, or less, are equal but for
# the rounding of float32.
ROUNDING = 1e-6

REDUCTIONS = ('mean', 'sum', 'position_mean')


def check_temperature(name: str, temperature: float | jax.Array) -> None:
  """Checks that logits can be divided by a temperature in float32.

  Args:
    name: the name of the argument, for the message.
    temperature: what the user passed. The value of an array is not checked,
      because it may be traced.

  Raises:
    UsageError: it is neither a number from 0.001 to 1e6 nor a scalar array.
  """
  if not isinstance(temperature, jax.Array):
    checks.number(name, temperature, at_least=1e-3, at_most=1e6)
  elif temperature.shape:
    raise UsageError(
      f'{name}: expected a number or a scalar array, got an array of shape '
      f'{temperature.shape}'
    )


def at_least_float32(x: jax.Array) -> jax.Array:
  """Returns the array, converted to float32 if its type is narrower."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def prepare(
  student: jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns both in at least float32; no gradient flows to the teacher."""
  teacher = jax.lax.stop_gradient(teacher)
  return at_least_float32(student), at_least_float32(teacher)


def contract(subscripts: str, *operands: jax.Array) -> jax.Array:
  """Computes `jnp.einsum` in full float32.

  By default, accelerators multiply float32 matrices with fewer bits. That is
  too inexact for losses that subtract nearly equal similarities.
  """
  return jnp.einsum(subscripts, *operands, precision='highest')


@jax.custom_jvp
def absolute(x: jax.Array) -> jax.Array:
  """Returns the absolute value, whose gradient at 0 is 0.

  The gradient of `jnp.abs` at 0 is 1.
  """
  return jnp.abs(x)


@absolute.defjvp
def _absolute_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  (x,), (tangent,) = primals, tangents
  return absolute(x), jnp.sign(x) * tangent


@jax.custom_jvp
def gram(vectors: jax.Array) -> jax.Array:
  """Returns the inner products of all pairs of vectors, in full float32.

  Args:
    vectors: `[..., N, D]`.

  Returns:
    `[..., N, N]`.
  """
  return contract('...id,...jd->...ij', vectors, vectors)


@gram.defjvp
def _gram_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  # The result is symmetric, so one product serves for both factors.
  (vectors,), (tangent,) = primals, tangents
  half = contract('...id,...jd->...ij', tangent, vectors)
  return gram(vectors), half + half.swapaxes(-1, -2)


def norm(
  x: jax.Array, *, axis: int, shortest: float | jax.Array = 0.0
) -> jax.Array:
  """Returns the Euclidean norm; its gradient at zero is zero instead of NaN.

  Args:
    x: `[...]`.
    axis: the axis to reduce.
    shortest: vectors that are not longer than this count as zero.

  Returns:
    `[...]` without that axis.
  """
  return root(jnp.sum(x * x, axis=axis), shortest=shortest)


def root(square: jax.Array, *, shortest: float | jax.Array = 0.0) -> jax.Array:
  """Returns lengths from their squares, with the gradient of `norm`.

  Args:
    square: `[...]`.
    shortest: lengths up to this count as zero.

  Returns:
    `[...]`.
  """
  positive = square > shortest**2
  # The inner `where` keeps the infinite derivative out of the backward pass.
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def normalize(
  x: jax.Array, *, axis: int = -1, shortest: float | jax.Array = _SHORTEST
) -> jax.Array:
  """Scales vectors to Euclidean norm 1.

  A zero vector stays zero and has a zero gradient.

  Args:
    x: `[...]`.
    axis: the axis that holds the entries of a vector.
    shortest: vectors that are not longer than this count as zero.

  Returns:
    `[...]`, the same shape as `x`.
  """
  square = jnp.sum(x * x, axis=axis, keepdims=True)
  directed = square > shortest**2
  return jnp.where(
    directed, x * jax.lax.rsqrt(jnp.where(directed, square, 1.0)), 0.0
  )


def huber(error: jax.Array) -> jax.Array:
  """Returns the Huber loss of each entry, with its threshold at 1."""
  size = jnp.abs(error)
  return jnp.where(size < 1.0, 0.5 * error**2, size - 0.5)


def flatten(x: jax.Array) -> jax.Array:
  """Reshapes `[B, ...]` to `[B, D]`."""
  return x.reshape(x.shape[0], -1)


def per_example(x: jax.Array, reduction: str = 'mean') -> jax.Array:
  """Reduces all axes but the first.

  Args:
    x: `[B, ..., C]`.
    reduction: 'mean', 'sum' or 'position_mean'. The last one sums over the last
      axis, the channels, and averages over the positions in between.

  Returns:
    `[B]`.

  Raises:
    UsageError: the reduction does not exist.
  """
  checks.choice('reduction', reduction, REDUCTIONS)
  if reduction == 'mean':
    return jnp.mean(flatten(x), axis=1)
  if reduction == 'sum':
    return jnp.sum(flatten(x), axis=1)
  return jnp.mean(flatten(jnp.sum(x, axis=-1)), axis=1)


def adaptive_average_pool(x: jax.Array, height: int, width: int) -> jax.Array:
  """Averages a map of any size over windows that cover it.

  Window i of n along an axis of length m goes from floor(i m / n) to
  ceil((i + 1) m / n), as in PyTorch; windows overlap unless n divides m.

  Args:
    x: `[B, H, W, C]`.
    height: the number of rows of the result.
    width: the number of columns of the result.

  Returns:
    `[B, height, width, C]`.
  """
  chex.assert_rank(x, 4)
  return _pool_axis(_pool_axis(x, height, 1), width, 2)


def bilinear(
  maps: jax.Array, size: Sequence[int], *, align_corners: bool = False
) -> jax.Array:
  """Resizes maps by bilinear interpolation without antialiasing.

  Args:
    maps: `[B, h, w, C]`.
    size: the height and width of the result.
    align_corners: True: the centres of the corner pixels of both maps coincide,
      as in the code of many papers on segmentation; False: the outer edges of
      the maps coincide.

  Returns:
    `[B, height, width, C]`.
  """
  chex.assert_rank(maps, 4)
  if align_corners:
    rows, columns = (
      jnp.asarray(_corner_weights(old, new), maps.dtype)
      for old, new in zip(maps.shape[1:3], size)
    )
    return contract('rh,sw,bhwc->brsc', rows, columns, maps)
  shape = (maps.shape[0], *size, maps.shape[-1])
  resized: jax.Array = jax.image.resize(
    maps, shape, 'bilinear', antialias=False
  )
  return resized


def match_size(
  first: jax.Array, second: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Pools the larger of two maps to the size of the smaller.

  Args:
    first: `[B, H1, W1, C1]`.
    second: `[B, H2, W2, C2]`.

  Returns:
    Both maps, `[B, min(H1, H2), min(W1, W2), C1]` and the same with `C2`.
  """
  chex.assert_rank([first, second], 4)
  chex.assert_equal_shape_prefix([first, second], 1)
  size = (
    min(first.shape[1], second.shape[1]),
    min(first.shape[2], second.shape[2]),
  )
  return (
    adaptive_average_pool(first, *size),
    adaptive_average_pool(second, *size),
  )


def _corner_weights(old: int, new: int) -> np.ndarray:
  """Returns the weights of old places for each new one, `[new, old]`."""
  distance = np.linspace(0, old - 1, new)[:, None] - np.arange(old)
  weights: np.ndarray = np.maximum(1 - np.abs(distance), 0)
  return weights


def _pool_axis(x: jax.Array, size: int, axis: int) -> jax.Array:
  """Pools one axis to a given length."""
  length = x.shape[axis]
  if size == length:
    return x
  if length % size == 0:
    windows = (*x.shape[:axis], size, length // size, *x.shape[axis + 1 :])
    return jnp.mean(x.reshape(windows), axis=axis + 1)
  means = []
  for i in range(size):
    start, stop = i * length // size, -(-(i + 1) * length // size)
    window = jax.lax.slice_in_dim(x, start, stop, axis=axis)
    means.append(jnp.mean(window, axis=axis))
  return jnp.stack(means, axis=axis)
