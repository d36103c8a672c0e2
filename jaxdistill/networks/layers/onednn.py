"""Dense convolutions by the library oneDNN that jaxlib contains, for CPUs.

jaxlib can execute oneDNN's convolution, in float32, as a custom call with a
configuration in JSON. It is no public interface of jaxlib, and a wrong
configuration ends the process, so `check` has to be called in a process of its
own first.
"""

from collections.abc import Mapping, Sequence
import functools
import json
from typing import Any

import jax
from jax import ffi
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec
import numpy as np

from jaxdistill.core.types import Array
from jaxdistill.networks.layers import xla


def convolve(x: Array, kernel: Array, *, stride: int) -> Array:
  """Convolves `[B, H, W, C]` with `[K, K, C, F]`, K odd, padded by K // 2."""
  shape = jax.eval_shape(
    functools.partial(xla.convolve, stride=stride), x, kernel
  ).shape
  configuration = _configuration(kernel.shape[0] // 2, stride)
  return custom_call(configuration, shape, x, kernel)


def image_grad(grad: Array, kernel: Array) -> Array:
  """Returns the gradient of the image where the stride is 1.

  It is a convolution of the output's gradient with the reversed kernel.
  """
  return convolve(grad, kernel[::-1, ::-1].swapaxes(2, 3), stride=1)


def _configuration(padding: int, stride: int) -> dict[str, Any]:
  """Returns what oneDNN has to know besides the shapes."""
  data = {
    'dims': 4,
    'data': {'batch_dim': 0, 'feature_dim': 3, 'spatial_dims': [1, 2]},
  }
  kernel = {
    'input_feature_dim': 2,
    'output_feature_dim': 3,
    'spatial_dims': [0, 1],
  }
  return {
    'dims': 4,
    'feature_groups': 1,
    'input': data,
    'output': data,
    'kernel': {'dims': 4, 'filter': kernel},
    'window': {
      'strides': [stride, stride],
      'pad_left': [padding, padding],
      'pad_right': [padding, padding],
      'window_dilations': [1, 1],
    },
  }


def custom_call(
  configuration: Mapping[str, Any], shape: Sequence[int], x: Array, k: Array
) -> Array:
  """Executes oneDNN's convolution; under `vmap`, once for each entry.

  In a program for several devices, each of them computes its own rows. XLA
  cannot split such a call by itself.

  Args:
    configuration: what `_configuration` returns.
    shape: the shape of the output.
    x: the image.
    k: the kernel.
  """

  def call(x: Array, k: Array) -> Array:
    output: Array = ffi.ffi_call(
      '__onednn$convolution',
      jax.ShapeDtypeStruct((x.shape[0], *shape[1:]), jnp.float32),
      vmap_method='sequential',
      custom_call_api_version=2,
      legacy_backend_config=json.dumps(
        {'outer_dimension_partitions': [], 'onednn_conv_config': configuration}
      ),
    )(x, k)
    return output

  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return call(x, k)
  is_even = x.shape[0] % mesh.shape['data'] == 0
  rows = PartitionSpec('data' if is_even else None)
  split: Array = jax.shard_map(
    call,
    mesh=mesh,
    in_specs=(rows, PartitionSpec()),
    out_specs=rows,
    check_vma=False,
  )(x, k)
  return split


def check() -> None:
  """Compares a few results with XLA's; a wrong call may end the process.

  The calls are split over all devices.

  Raises:
    AssertionError: they differ by more than rounding errors.
  """
  rng, devices = np.random.default_rng(0), jax.devices()
  mesh = Mesh(np.array(devices), ('data',), axis_types=(AxisType.Auto,))
  for size, stride in ((3, 1), (3, 2), (1, 1), (5, 3)):
    x, kernel = (
      jnp.asarray(rng.normal(size=shape), jnp.float32)
      for shape in ((2 * len(devices), 9, 8, 16), (size, size, 16, 24))
    )
    with jax.set_mesh(mesh):
      output = jax.jit(functools.partial(convolve, stride=stride))(x, kernel)
    expected = xla.convolve(x, kernel, stride)
    _assert_close(output, expected)
    if stride == 1:
      with jax.set_mesh(mesh):
        grad = jax.jit(image_grad)(expected, kernel)
      expected = xla.image_grad(expected, kernel, stride=1, height=9, width=8)
      _assert_close(grad, expected)


def _assert_close(actual: Array, expected: Array) -> None:
  limit = 1e-4 * np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, atol=limit, rtol=0)
