"""XLA's own convolution and the gradients that JAX derives from it."""

import jax
from jax import lax

from jaxdistill.core.types import Array


def convolve(
  x: Array, kernel: Array, stride: int, groups: int = 1, dilation: int = 1
) -> Array:
  """Convolves `[B, H, W, C]` with `[K, K, C / groups, F]`, K odd.

  It pads by K // 2 places on each side, times the dilation.
  """
  padding = dilation * (kernel.shape[0] // 2)
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def image_grad(
  grad: Array, kernel: Array, *, stride: int, height: int, width: int
) -> Array:
  """Returns the gradient `[B, height, width, C]` of the image."""
  shape = (grad.shape[0], height, width, kernel.shape[2])
  image = jax.ShapeDtypeStruct(shape, grad.dtype)
  transpose = jax.linear_transpose(lambda x: convolve(x, kernel, stride), image)
  return transpose(grad)[0]


def kernel_grad(x: Array, grad: Array, *, stride: int, size: int) -> Array:
  """Returns the gradient `[size, size, C, F]` of the kernel."""
  shape = (size, size, x.shape[-1], grad.shape[-1])
  kernel = jax.ShapeDtypeStruct(shape, x.dtype)
  transpose = jax.linear_transpose(lambda k: convolve(x, k, stride), kernel)
  return transpose(grad)[0]
