"""Convolutions with derivatives of their own, in all modes of differentiation.

The convolution y of x with a kernel k is bilinear, and so are the gradients of
<y, g> with respect to x and k. The derivatives of each of the three are the
other two, so reverse mode, forward mode and any mixture of them are as fast as
the three functions that a convolution is made of.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from jaxdistill.core.types import Array


def convolution(
  name: str,
  forward: Callable[..., Array],
  image_grad: Callable[..., Array],
  kernel_grad: Callable[..., Array],
  loops: bool = False,
) -> Callable[..., Array]:
  """Returns the function `(x, kernel, *, stride) -> y` of three others.

  The kernel is `[K, K, ..., ...]`, padded by K // 2 on each side.

  Args:
    name: the name of the operation in traces.
    forward: `(x, kernel, *, stride) -> y`.
    image_grad: `(grad, kernel, *, stride, height, width) -> x`, the gradient of
      <y, grad>.
    kernel_grad: `(x, grad, *, stride, size) -> kernel`, the same.
    loops: see `_primitive`.
  """
  # With y = forward(x, k):
  # <y, g> = <x, image_grad(g, k)> = <k, kernel_grad(x, g)>.
  to_output = _primitive(name, forward, keeps_batch=True, loops=loops)
  to_image = _primitive(
    f'{name}_image_grad', image_grad, keeps_batch=True, loops=loops
  )
  to_kernel = _primitive(
    f'{name}_kernel_grad', kernel_grad, keeps_batch=False, loops=loops
  )

  def output(x, kernel, *, stride, **_):
    return to_output.bind(x, kernel, stride=stride)

  def image(grad, kernel, x, *, stride, **_):
    height, width = x.aval.shape[1:3]
    return to_image.bind(
      grad, kernel, stride=stride, height=height, width=width
    )

  def kernel(x, grad, k, *, stride, **_):
    return to_kernel.bind(x, grad, stride=stride, size=k.aval.shape[0])

  ad.defbilinear(
    to_output,
    lambda g, x, k, **static: image(g, k, x, **static),
    lambda g, x, k, **static: kernel(x, g, k, **static),
  )
  ad.defbilinear(
    to_image,
    lambda x, g, k, **static: output(x, k, **static),
    lambda x, g, k, **static: kernel(x, g, k, **static),
  )
  ad.defbilinear(
    to_kernel,
    lambda k, x, g, **static: image(g, k, x, **static),
    lambda k, x, g, **static: output(x, k, **static),
  )
  return output


def _primitive(
  name: str,
  function: Callable[..., Array],
  *,
  keeps_batch: bool,
  loops: bool,
) -> core.Primitive:
  """Returns a function of two arrays that JAX does not look into.

  Args:
    name: its name.
    function: the function.
    keeps_batch: whether the examples of the first array are those of the
      result, so that several arrays can be one batch.
    loops: whether it is called once for each kernel of a batch of kernels, and
      not traced by `jax.vmap`, because its parts have no derivatives.
  """
  primitive = core.Primitive(name)

  @functools.cache
  def compiled(**static: Any) -> Callable[..., Array]:
    return jax.jit(functools.partial(function, **static))

  def shape(x: Any, y: Any, **static: Any) -> Any:
    output = jax.eval_shape(functools.partial(function, **static), x, y)
    return jax.core.ShapedArray(output.shape, output.dtype)

  def batch(operands: Any, axes: Any, **static: Any) -> tuple[Array, int]:
    x, y = operands
    size = next(a.shape[i] for a, i in zip(operands, axes) if i is not None)

    def rows(array: Any, axis: int | None) -> list[Array]:
      if axis is None:
        return [array] * size
      return list(jnp.moveaxis(array, axis, 0))

    if keeps_batch and axes[1] is None:
      x = jnp.moveaxis(x, axes[0], 0)
      result = primitive.bind(x.reshape(-1, *x.shape[2:]), y, **static)
      return result.reshape(*x.shape[:2], *result.shape[1:]), 0
    if loops:
      parts = [
        primitive.bind(*pair, **static)
        for pair in zip(*map(rows, operands, axes))
      ]
      return jnp.stack(parts), 0
    mapped = jax.vmap(functools.partial(function, **static), axes)
    return mapped(x, y), 0

  primitive.def_impl(lambda x, y, **static: compiled(**static)(x, y))
  primitive.def_abstract_eval(shape)
  mlir.register_lowering(
    primitive, mlir.lower_fun(function, multiple_results=False)
  )
  batching.primitive_batchers[primitive] = batch
  return primitive
