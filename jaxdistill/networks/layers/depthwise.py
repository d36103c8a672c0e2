"""Depthwise convolutions as sums of shifted images, with all derivatives.

The convolution y of x with a kernel k is bilinear, and so are the gradients of
<y, g> with respect to x and k. The derivatives of each of the three are the
other two, so reverse mode, forward mode and any mixture of them are as fast as
the three functions below. Differentiating the shifts automatically would repeat
work for each value of the kernel.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from jaxdistill.core.types import Array


def convolve(x: Array, kernel: Array, *, stride: int) -> Array:
  """Convolves `[B, H, W, C]` with `[K, K, 1, C]`, K odd.

  y[h, w] = sum_ij x[stride * h + i - K // 2, stride * w + j - K // 2] k[i, j]
  """
  return _convolution.bind(x, kernel, stride=stride)


def _convolve(x: Array, kernel: Array, *, stride: int) -> Array:
  size = kernel.shape[0]
  weights = kernel.reshape(size * size, 1, 1, 1, -1)
  parts = _shifted(x, size, stride)
  total = parts[0] * weights[0]
  for part, weight in zip(parts[1:], weights[1:]):
    total += part * weight
  return total


def _shifted(x: Array, size: int, stride: int) -> list[Array]:
  """Returns the input `[B, H', W', C]` of each kernel value, row by row."""
  batch, height, width, channels = x.shape
  pad = size // 2
  last_h, last_w = (
    (height - 1) // stride * stride,
    (width - 1) // stride * stride,
  )
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  return [
    lax.slice(
      x,
      (0, i, j, 0),
      (batch, i + last_h + 1, j + last_w + 1, channels),
      (1, stride, stride, 1),
    )
    for i in range(size)
    for j in range(size)
  ]


def _kernel_grad(x: Array, grad: Array, *, stride: int, size: int) -> Array:
  # With a loop over the examples, XLA computes `x` and `grad` once instead of
  # inside each of the K * K sums, and reads them while they are in the cache.
  def add(i, sums):
    image, image_grad = (lax.dynamic_slice_in_dim(a, i, 1) for a in (x, grad))
    parts = _shifted(image, size, stride)
    return [s + (part * image_grad)[0] for s, part in zip(sums, parts)]

  dtype = jnp.promote_types(grad.dtype, jnp.float32)
  zeros = [jnp.zeros(grad.shape[1:], dtype)] * size**2
  sums = lax.fori_loop(0, x.shape[0], add, zeros)
  total = jnp.stack([s.sum((0, 1)) for s in sums])
  return total.reshape(size, size, 1, -1).astype(x.dtype)


def _image_grad(
  grad: Array, kernel: Array, *, stride: int, height: int, width: int
) -> Array:
  """Computes each of the stride * stride phases of the input by shifts."""
  batch, channels = grad.shape[0], grad.shape[-1]
  size, pad = kernel.shape[0], kernel.shape[0] // 2
  rows, columns = -(-height // stride), -(-width // stride)
  grad = jnp.pad(grad, ((0, 0), (size, size), (size, size), (0, 0)))

  def phase(row, column):
    total = jnp.zeros((batch, rows, columns, channels), grad.dtype)
    for i in range((row + pad) % stride, size, stride):
      for j in range((column + pad) % stride, size, stride):
        h = size + (row + pad - i) // stride
        w = size + (column + pad - j) // stride
        part = grad[:, h : h + rows, w : w + columns]
        total += part * kernel[i, j][None, None]
    return total

  if stride == 1:
    return phase(0, 0)
  phases = [
    jnp.stack([phase(r, c) for c in range(stride)], 3) for r in range(stride)
  ]
  full = jnp.stack(phases, 2)
  full = full.reshape(batch, rows * stride, columns * stride, channels)
  return full[:, :height, :width]


def _primitive(name: str, function: Callable[..., Array]) -> core.Primitive:
  """Returns a function of two arrays that JAX does not look into."""
  primitive = core.Primitive(name)

  @functools.cache
  def compiled(**static: Any) -> Callable[..., Array]:
    return jax.jit(functools.partial(function, **static))

  def shape(x: Any, y: Any, **static: Any) -> Any:
    output = jax.eval_shape(functools.partial(function, **static), x, y)
    return jax.core.ShapedArray(output.shape, output.dtype)

  def batch(operands: Any, axes: Any, **static: Any) -> tuple[Array, int]:
    mapped = jax.vmap(functools.partial(function, **static), axes)
    return mapped(*operands), 0

  primitive.def_impl(lambda x, y, **static: compiled(**static)(x, y))
  primitive.def_abstract_eval(shape)
  mlir.register_lowering(
    primitive, mlir.lower_fun(function, multiple_results=False)
  )
  batching.primitive_batchers[primitive] = batch
  return primitive


_convolution = _primitive('depthwise', _convolve)
_image_grad_primitive = _primitive('depthwise_image_grad', _image_grad)
_kernel_grad_primitive = _primitive('depthwise_kernel_grad', _kernel_grad)


# With y = convolve(x, k):
# <y, g> = <x, image_grad(g, k)> = <k, kernel_grad(x, g)>.
def _transposed_by_image(grad, x, kernel, *, stride):
  height, width = x.aval.shape[1:3]
  return _image_grad_primitive.bind(
    grad, kernel, stride=stride, height=height, width=width
  )


def _transposed_by_kernel(grad, x, kernel, *, stride):
  size = kernel.aval.shape[0]
  return _kernel_grad_primitive.bind(x, grad, stride=stride, size=size)


ad.defbilinear(_convolution, _transposed_by_image, _transposed_by_kernel)
ad.defbilinear(
  _image_grad_primitive,
  lambda image, grad, kernel, *, stride, **_: _convolution.bind(
    image, kernel, stride=stride
  ),
  lambda image, grad, kernel, *, stride, **_: _kernel_grad_primitive.bind(
    image, grad, stride=stride, size=kernel.aval.shape[0]
  ),
)
ad.defbilinear(
  _kernel_grad_primitive,
  lambda kernel, x, grad, *, stride, **_: _image_grad_primitive.bind(
    grad,
    kernel,
    stride=stride,
    height=x.aval.shape[1],
    width=x.aval.shape[2],
  ),
  lambda kernel, x, grad, *, stride, **_: _convolution.bind(
    x, kernel, stride=stride
  ),
)
