"""Convolutions by oneDNN's calls equal XLA's in all derivatives."""

import os

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType
import numpy as np
import pytest

from jaxdistill.core import cpu
from jaxdistill.core.types import Model
from jaxdistill.networks import graph, registry, table
from jaxdistill.networks.layers import convolutions, dense, onednn, xla
from jaxdistill.study import stablehlo
from jaxdistill.training import fast_cpu

PROBLEMS = (  # height, width, size of the kernel, stride
  (6, 5, 3, 1),
  (6, 5, 3, 2),
  (2, 6, 5, 3),  # smaller than the kernel
)


def problem(height, width, size):
  """Random images and kernels."""
  rng = np.random.default_rng(0)
  shapes = ((2, height, width, 3), (size, size, 3, 4))
  return [jnp.float32(rng.normal(size=shape)) for shape in shapes]


def by_xla(configuration, shape, x, kernel):
  """Computes what a configuration of oneDNN describes."""
  window = configuration['window']
  result = lax.conv_general_dilated(
    x,
    kernel,
    window['strides'],
    list(zip(window['pad_left'], window['pad_right'])),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  assert result.shape == shape
  return result


@pytest.fixture
def described(monkeypatch):
  """Replaces the calls by what their configurations describe."""
  monkeypatch.setattr(onednn, 'custom_call', by_xla)


@pytest.fixture
def fast(monkeypatch):
  """Makes this process one that `--fast_cpu` has restarted."""
  monkeypatch.setenv(cpu.MARK, 'oneDNN')


@pytest.fixture(scope='module')
def calls(tmp_path_factory):
  """Skips a test of the calls where this jaxlib does not compute them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    if not fast_cpu.works(fast_cpu.environment(os.environ, 'oneDNN', 2)):
      pytest.skip('this jaxlib has no oneDNN for this processor')


def assert_close(actual, expected):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('height', 'width', 'size', 'stride'), PROBLEMS)
def test_derivatives_of_any_order_equal_those_of_xla(
  described, height, width, size, stride
):
  """Checks reverse, forward, forward over reverse, and reverse twice."""
  x, kernel = problem(height, width, size)

  def outcome(function):
    def loss(x, k):
      return jnp.sum(jnp.sin(function(x, k)))

    def squared_grads(x, k):
      return sum(jnp.sum(g**2) for g in jax.grad(loss, (0, 1))(x, k))

    def derivatives(x, k):
      grads = jax.grad(loss, (0, 1))
      tangent = jax.jvp(function, (x, k), (x + 1, k**2))
      hessian = jax.jvp(grads, (x, k), (x + 1, k**2))
      return tangent, hessian, jax.grad(squared_grads, (0, 1))(x, k)

    return jax.jit(derivatives)(x, kernel)

  assert_close(
    outcome(lambda x, k: dense.convolve(x, k, stride=stride)),
    outcome(lambda x, k: xla.convolve(x, k, stride)),
  )


@pytest.mark.parametrize('axes', [(1, None), (None, 2), (0, 3)])
def test_mapped_convolutions_equal_those_of_xla(described, axes):
  x, kernel = problem(5, 4, 3)
  mapped = [
    array if axis is None else jnp.stack([array, -2 * array], axis)
    for array, axis in zip((x, kernel), axes)
  ]

  def outcome(function):
    def loss(x, k):
      return jnp.sum(jnp.sin(function(x, k)))

    grads = jax.value_and_grad(loss, (0, 1))
    return jax.jit(jax.vmap(grads, axes))(*mapped)

  assert_close(
    outcome(lambda x, k: dense.convolve(x, k, stride=2)),
    outcome(lambda x, k: xla.convolve(x, k, 2)),
  )


@pytest.mark.filterwarnings('ignore:Error writing persistent compilation cache')
def test_the_calls_compute_what_their_configurations_describe(calls):
  x, kernel = problem(6, 5, 3)
  kernels = jnp.stack([kernel, -2 * kernel]) / 8

  def outcome(function):
    def loss(x, k):
      return jnp.sum(jnp.sin(function(function(x, k), k.swapaxes(2, 3))))

    grads = jax.vmap(jax.grad(loss, (0, 1)), (None, 0))
    return jax.jit(grads)(x, kernels)

  assert_close(
    outcome(lambda x, k: dense.convolve(x, k, stride=1)),
    outcome(lambda x, k: xla.convolve(x, k, 1)),
  )


def primitives(kernel=3, groups=1, dtype=jnp.float32):
  """The names of the operations of a convolution."""
  x = jax.ShapeDtypeStruct((2, 6, 6, 16), dtype)
  weights = jax.ShapeDtypeStruct((kernel, kernel, 16 // groups, 16), dtype)
  trace = jax.make_jaxpr(lambda x, k: convolutions.convolve(x, k, 1, groups))(
    x, weights
  )
  return {equation.primitive.name for equation in trace.eqns}


def test_only_fast_processes_use_the_calls(monkeypatch):
  assert 'dense' not in primitives()
  monkeypatch.setenv(cpu.MARK, 'XLA')
  assert 'dense' not in primitives()
  monkeypatch.setenv(cpu.MARK, 'oneDNN')
  assert 'dense' in primitives()


def test_grouped_convolutions_and_other_types_are_left_to_xla(fast):
  assert 'dense' not in primitives(groups=2)
  assert 'dense' not in primitives(groups=16)
  assert 'dense' not in primitives(dtype=jnp.bfloat16)


def test_other_backends_and_devices_without_a_mesh_are_left_to_xla(
  fast, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert 'dense' not in primitives()
  monkeypatch.setattr(jax, 'device_count', lambda: 2)
  assert 'dense' not in primitives()
  with jax.sharding.use_abstract_mesh(mesh_of(2)):
    assert 'dense' in primitives()


def mesh_of(devices):
  auto = (AxisType.Auto,) * 2
  return AbstractMesh((devices, 1), ('data', 'model'), axis_types=auto)


@pytest.mark.parametrize(('batch', 'rows'), [(6, 3), (5, 5)])
def test_each_device_computes_its_own_rows(batch, rows):
  """A batch that the devices cannot share evenly is computed by all of them."""
  x, kernel = jnp.zeros((batch, 6, 5, 3)), jnp.zeros((3, 3, 3, 4))

  def calls(devices):
    with jax.sharding.use_abstract_mesh(mesh_of(devices)):
      trace = jax.make_jaxpr(lambda *pair: onednn.convolve(*pair, stride=1))
      return str(trace(x, kernel))

  assert f'f32[{rows},6,5,4] = ffi_call' in calls(2)
  assert 'shard_map' not in calls(1)


def tiny():
  network = registry.create('resnet8', num_classes=3, widths=(4, 4, 4))
  image = jnp.zeros((1, 8, 8, 1))
  return network, graph.init(network, jax.random.key(0), {'image': image})


def test_exported_programs_have_no_calls_of_onednn(fast):
  model = Model(*tiny())
  jax.eval_shape(
    lambda image: graph.apply(*model, image), jnp.zeros((2, 8, 8, 1))
  )
  program = stablehlo.to_stablehlo(model, (8, 8, 1))
  loaded = jax.export.deserialize(bytearray(program))
  assert '__onednn' not in loaded.mlir_module()
  assert 'stablehlo.convolution' in loaded.mlir_module()


def test_the_count_of_multiply_adds_is_the_same(monkeypatch):
  network, _ = tiny()
  expected = table.summary(network, (8, 8, 1))
  monkeypatch.setenv(cpu.MARK, 'oneDNN')
  assert table.summary(network, (8, 8, 1)) == expected
