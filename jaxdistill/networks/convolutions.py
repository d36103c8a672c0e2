"""Square convolutions, each in the form that its backend is fast at.

XLA for the CPU is slow at grouped convolutions, above all at their gradients,
and at 1x1 convolutions. There a depthwise convolution is a sum of shifted
copies of the image, and a 1x1 convolution is one matrix product per group. The
kernels have the same shape and the results agree up to rounding, so weights
move freely between backends.
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from jaxdistill.networks import shifts
from jaxdistill.types import Array

_portable = contextvars.ContextVar('portable', default=False)


class Conv(nn.Module):
  """A convolution with a square kernel, padded by kernel // 2 on each side.

  Attributes:
    features: channels of the output.
    kernel: its height and width, an odd number.
    stride: in both directions.
    groups: of channels; as many as the input has: depthwise.
    use_bias: whether a bias is added.
    kernel_init: initialiser of the kernel `[K, K, C / groups, features]`.
    dtype: of the computation; parameters stay in float32.
  """

  features: int
  kernel: int
  stride: int
  groups: int
  use_bias: bool
  kernel_init: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1] // self.groups)
    kernel = self.param('kernel', self.kernel_init, (*shape, self.features))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    y = convolve(x, kernel, self.stride, self.groups)
    if not self.use_bias:
      return y
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return y + bias.astype(self.dtype)[None, None, None]


def convolve(x: Array, kernel: Array, stride: int, groups: int = 1) -> Array:
  """Convolution of `[B, H, W, C]` with `[K, K, C / groups, features]`, K odd.

  The output is `[B, ceil(H / stride), ceil(W / stride), features]`.
  """
  plain = functools.partial(general, stride=stride, groups=groups)
  if groups == x.shape[-1] == kernel.shape[-1] and groups > 1:
    return _by_backend(
      functools.partial(depthwise, stride=stride), plain, x, kernel
    )
  if kernel.shape[0] == 1:
    return _by_backend(
      functools.partial(pointwise, stride=stride, groups=groups),
      plain,
      x,
      kernel,
    )
  return plain(x, kernel)


@contextlib.contextmanager
def portable() -> Iterator[None]:
  """What is traced inside runs on any backend, on each in the form it has here.

  Otherwise the form is that of the backend that this process has.
  """
  token = _portable.set(True)
  try:
    yield
  finally:
    _portable.reset(token)


def _by_backend(
  cpu: Callable[..., Array], plain: Callable[..., Array], *arrays: Array
) -> Array:
  # Both forms in one program cost time to trace, so only where both are needed.
  if _portable.get():
    return lax.platform_dependent(*arrays, cpu=cpu, default=plain)
  return (cpu if jax.default_backend() == 'cpu' else plain)(*arrays)


def general(x: Array, kernel: Array, stride: int, groups: int = 1) -> Array:
  """The convolution in XLA's own form."""
  padding = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def pointwise(x: Array, kernel: Array, stride: int, groups: int = 1) -> Array:
  """A 1x1 convolution as one matrix product per group of channels."""
  x, matrix = x[:, ::stride, ::stride], kernel[0, 0]
  pairs = zip(jnp.split(x, groups, -1), jnp.split(matrix, groups, -1))
  parts = [_product(part, own) for part, own in pairs]
  return parts[0] if groups == 1 else jnp.concatenate(parts, -1)


def _product(x: Array, matrix: Array) -> Array:
  # With rows flattened and the matrix transposed first, XLA reads the image
  # and its gradient as they lie; otherwise it transposes them for the matrix's
  # gradient, which costs a quarter of a training step.
  rows = x.reshape(-1, x.shape[-1])
  y = lax.dot_general(rows, matrix.T, (((1,), (1,)), ((), ())))
  return y.reshape(*x.shape[:-1], -1)


def average_pool(x: Array, size: int, stride: int) -> Array:
  """Means of size * size places, zeros of the padding included; size odd."""

  def shifted(x: Array) -> Array:
    kernel = jnp.full((size, size, 1, x.shape[-1]), size**-2, x.dtype)
    return shifts.convolve(x, kernel, stride=stride)

  def plain(x: Array) -> Array:
    padding = (size // 2, size // 2)
    return nn.avg_pool(x, (size, size), (stride, stride), (padding, padding))

  return _by_backend(shifted, plain, x)


# Compiled by itself so that the trace of a network shows one depthwise
# convolution, which the count of multiply-adds recognises by its name.
@functools.partial(jax.jit, static_argnames='stride')
def depthwise(x: Array, kernel: Array, *, stride: int) -> Array:
  """A depthwise convolution, kernel `[K, K, 1, C]`, as shifts.

    y[h, w] = sum_ij x[stride * h + i - K // 2, stride * w + j - K // 2] k[i, j]

  It can be differentiated again and again, by reverse and by forward mode.
  """
  return shifts.convolve(x, kernel, stride=stride)
