"""Square convolutions, each in the form that is fast on its backend.

On the CPU, XLA is slow at grouped convolutions, especially at their gradients,
and at 1x1 convolutions. There, a depthwise convolution is computed as a sum of
shifted copies of the image, and a 1x1 convolution as one matrix product per
group. After `--fast_cpu`, oneDNN computes dense convolutions of larger kernels.
The kernels have the same shape and the results agree up to rounding, so weights
can be moved between backends.
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

from jaxdistill.core import cpu
from jaxdistill.core.types import Array
from jaxdistill.networks.layers import dense, xla
from jaxdistill.networks.layers import depthwise as depthwise_lib
from jaxdistill.networks.layers import plain as plain_lib

_portable = contextvars.ContextVar('portable', default=False)


class Conv(nn.Module):
  """A convolution with a square kernel, padded by kernel // 2 on each side.

  Attributes:
    features: the channels of the output.
    kernel: its height and width, an odd number.
    stride: the stride in both directions.
    groups: the number of groups of channels. If it equals the channels of the
      input, the convolution is depthwise.
    use_bias: whether a bias is added.
    kernel_init: the initialiser of the kernel `[K, K, C / groups, features]`.
    dtype: the type of the computation; parameters stay in float32.
    dilation: the distance of the places that the kernel reads.
    initial_bias: the initial value of the bias.
  """

  features: int
  kernel: int
  stride: int
  groups: int
  use_bias: bool
  kernel_init: Any
  dtype: Any
  dilation: int = 1
  initial_bias: float = 0.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1] // self.groups)
    kernel = self.param('kernel', self.kernel_init, (*shape, self.features))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    y = convolve(x, kernel, self.stride, self.groups, self.dilation)
    if not self.use_bias:
      return y
    initial = nn.initializers.constant(self.initial_bias)
    bias = self.param('bias', initial, (self.features,))
    return y + bias.astype(self.dtype)[None, None, None]


def convolve(
  x: Array, kernel: Array, stride: int, groups: int = 1, dilation: int = 1
) -> Array:
  """Convolves `[B, H, W, C]` with `[K, K, C / groups, features]`, K odd.

  The output is `[B, ceil(H / stride), ceil(W / stride), features]`.
  """
  if dilation > 1:
    return xla.convolve(x, kernel, stride, groups, dilation)
  plain = functools.partial(xla.convolve, stride=stride, groups=groups)
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
  if groups == 1 and _has_onednn(x, kernel):
    return dense.convolve(x, kernel, stride=stride)
  return plain(x, kernel)


def _has_onednn(*arrays: Array) -> bool:
  mesh = jax.sharding.get_abstract_mesh()
  return (
    cpu.convolutions() == 'oneDNN'
    and not _portable.get()
    and not plain_lib.is_active()
    and jax.default_backend() == 'cpu'
    # Without a mesh, it is not known over which devices to split the calls.
    and (jax.device_count() == 1 or not mesh.empty)
    and all(array.dtype == jnp.float32 for array in arrays)
  )


@contextlib.contextmanager
def portable() -> Iterator[None]:
  """Makes programs that are traced inside it run on every backend.

  They hold both forms of each convolution, and no calls of oneDNN, which cannot
  be exported. Programs that are traced outside of it hold only the form for the
  backend of this process.
  """
  token = _portable.set(True)
  try:
    yield
  finally:
    _portable.reset(token)


def form() -> tuple[str, ...]:
  """Returns what decides, besides the arrays, which forms are traced."""
  return (
    cpu.convolutions(),
    jax.default_backend(),
    'portable' * _portable.get(),
    'plain' * plain_lib.is_active(),
  )


def _by_backend(
  cpu: Callable[..., Array], plain: Callable[..., Array], *arrays: Array
) -> Array:
  if plain_lib.is_active():
    return plain(*arrays)
  # Tracing both forms takes longer, so a program holds both only on request.
  if _portable.get():
    return lax.platform_dependent(*arrays, cpu=cpu, default=plain)
  return (cpu if jax.default_backend() == 'cpu' else plain)(*arrays)


def pointwise(x: Array, kernel: Array, stride: int, groups: int = 1) -> Array:
  """Computes a 1x1 convolution as one matrix product per group of channels."""
  x, matrix = x[:, ::stride, ::stride], kernel[0, 0]
  pairs = zip(jnp.split(x, groups, -1), jnp.split(matrix, groups, -1))
  parts = [_product(part, group_matrix) for part, group_matrix in pairs]
  return parts[0] if groups == 1 else jnp.concatenate(parts, -1)


def _product(x: Array, matrix: Array) -> Array:
  # If the rows are flattened and the matrix is transposed first, XLA reads the
  # image and its gradient in their memory order. Otherwise it transposes them
  # to compute the gradient of the matrix, which costs a quarter of a training
  # step.
  rows = x.reshape(-1, x.shape[-1])
  y = lax.dot_general(rows, matrix.T, (((1,), (1,)), ((), ())))
  return y.reshape(*x.shape[:-1], -1)


def average_pool(x: Array, size: int, stride: int) -> Array:
  """Averages size * size places, zeros of the padding included; size is odd."""
  kernel = jnp.full((size, size, 1, x.shape[-1]), size**-2, x.dtype)
  if plain_lib.is_active():  # converters do not know sums over windows
    return xla.convolve(x, kernel, stride, groups=x.shape[-1])

  def shifted(x: Array) -> Array:
    return depthwise_lib.convolve(x, kernel, stride=stride)

  def plain(x: Array) -> Array:
    padding = (size // 2, size // 2)
    return nn.avg_pool(x, (size, size), (stride, stride), (padding, padding))

  return _by_backend(shifted, plain, x)


def max_pool(x: Array) -> Array:
  """Takes the maximum of each 2x2 patch; a last odd row or column is ignored.

  Where several places are equally large, the gradient goes to the first one.
  XLA's own max-pooling with its gradient takes 6 to 9 times as long on a CPU.
  """

  def halves(x: Array) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    patches = x[:, : 2 * rows, : 2 * columns].reshape(
      batch, rows, 2, columns, 2, channels
    )
    upper, lower = (
      _larger(patches[:, :, row, :, 0], patches[:, :, row, :, 1])
      for row in range(2)
    )
    return _larger(upper, lower)

  def plain(x: Array) -> Array:
    return nn.max_pool(x, (2, 2), (2, 2))

  return _by_backend(halves, plain, x)


def _larger(first: Array, second: Array) -> Array:
  """Returns the larger of two numbers, or NaN if one of them is NaN."""
  return jnp.where((first >= second) | jnp.isnan(first), first, second)


# It is jitted separately so that the trace of a network shows one depthwise
# convolution, which the count of multiply-adds recognises by its name.
@functools.partial(jax.jit, static_argnames='stride')
def depthwise(x: Array, kernel: Array, *, stride: int) -> Array:
  """Computes a depthwise convolution with a kernel `[K, K, 1, C]` by shifts.

    y[h, w] = sum_ij x[stride * h + i - K // 2, stride * w + j - K // 2] k[i, j]

  It can be differentiated any number of times, in reverse and forward mode.
  """
  return depthwise_lib.convolve(x, kernel, stride=stride)
