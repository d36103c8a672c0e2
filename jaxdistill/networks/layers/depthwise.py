"""Depthwise convolutions as sums of shifted images, with all derivatives.

Differentiating the shifts automatically would repeat work for each value of the
kernel.
"""

from jax import lax
import jax.numpy as jnp

from jaxdistill.core.types import Array
from jaxdistill.networks.layers import bilinear


def _forward(x: Array, kernel: Array, *, stride: int) -> Array:
  """Convolves `[B, H, W, C]` with `[K, K, 1, C]`, K odd.

  y[h, w] = sum_ij x[stride * h + i - K // 2, stride * w + j - K // 2] k[i, j]
  """
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


convolve = bilinear.convolution(
  'depthwise', _forward, _image_grad, _kernel_grad
)
