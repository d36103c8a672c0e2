"""All forms of a convolution agree, whichever the backend uses."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.networks.layers import convolutions, xla


def problem(height, width, channels, kernel, features, groups):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, height, width, channels))
  weights = rng.normal(size=(kernel, kernel, channels // groups, features))
  return jnp.float32(x), jnp.float32(weights)


def jit(function):
  """Compiles as fast as possible."""
  options = {'xla_backend_optimization_level': 0}
  return jax.jit(function, compiler_options=options)


def assert_same(function, reference, x, kernel):
  """Checks that values and gradients are equal."""

  def outcome(function):
    def loss(x, kernel):
      y = function(x, kernel)
      return jnp.sum(jnp.sin(y)), y

    return jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel)

  for a, b in zip(
    jax.tree.leaves(outcome(function)), jax.tree.leaves(outcome(reference))
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('height', 'width', 'size', 'stride'),
  # The last two images are smaller than the kernel.
  [(6, 5, 3, 1), (6, 5, 3, 2), (5, 6, 5, 2), (1, 1, 5, 1), (2, 1, 5, 2)],
)
def test_shifts_equal_the_grouped_convolution(height, width, size, stride):
  x, kernel = problem(height, width, 4, size, 4, 4)
  assert_same(
    lambda x, k: convolutions.depthwise(x, k, stride=stride),
    lambda x, k: xla.convolve(x, k, stride, 4),
    x,
    kernel,
  )


@pytest.mark.parametrize('stride', [1, 2])
def test_shifts_in_bfloat16_equal_the_convolution_up_to_rounding(stride):
  x, kernel = problem(9, 8, 4, 3, 4, 4)

  def grads(function, dtype):
    def loss(x, kernel):
      return jnp.sum(jnp.sin(function(x, kernel).astype(jnp.float32)))

    both = jit(jax.grad(loss, (0, 1)))(x.astype(dtype), kernel.astype(dtype))
    assert all(grad.dtype == dtype for grad in both)
    return [np.asarray(grad, np.float32) for grad in both]

  rounded = grads(
    lambda x, k: convolutions.depthwise(x, k, stride=stride), jnp.bfloat16
  )
  exact = grads(lambda x, k: xla.convolve(x, k, stride, 4), jnp.float32)
  for a, b in zip(rounded, exact):
    # Values have 8 bits, and sines of values near 6 lose some of them.
    assert np.abs(a - b).max() < 0.03 * np.abs(b).max()


def test_shifts_have_gradients_in_float64():
  with jax.enable_x64(True):
    x, kernel = (jnp.asarray(a, jnp.float64) for a in problem(3, 3, 2, 3, 2, 2))
    grads = jax.grad(
      lambda x, k: jnp.sum(convolutions.depthwise(x, k, stride=1) ** 2), (0, 1)
    )(x, kernel)
    general = jax.grad(
      lambda x, k: jnp.sum(xla.convolve(x, k, 1, 2) ** 2), (0, 1)
    )(x, kernel)
  for actual, expected in zip(grads, general):
    assert actual.dtype == jnp.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize('stride', [1, 2])
def test_shifts_have_forward_derivatives_of_any_order(stride):
  """Checks forward, forward over reverse, and a transposed linearisation."""
  x, kernel = problem(5, 4, 3, 3, 3, 3)
  dx, dk = problem(5, 4, 3, 3, 3, 3)[0] + 1, kernel**2

  def outcome(function):
    def loss(x, k):
      return jnp.sum(jnp.sin(function(x, k)))

    def derivatives(x, k, dx, dk):
      tangent = jax.jvp(function, (x, k), (dx, dk))[1]
      hessian = jax.jvp(jax.grad(loss, (0, 1)), (x, k), (dx, dk))[1]
      value, linear = jax.linearize(loss, x, k)
      transposed = jax.linear_transpose(linear, x, k)(value)
      return tangent, hessian, linear(dx, dk), transposed

    return jit(derivatives)(x, kernel, dx, dk)

  actual = outcome(lambda x, k: convolutions.depthwise(x, k, stride=stride))
  expected = outcome(lambda x, k: xla.convolve(x, k, stride, 3))
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_shifts_can_be_mapped_over_several_kernels():
  x, kernel = problem(5, 4, 3, 3, 3, 3)
  kernels = jnp.stack([kernel, -2 * kernel])

  def mapped(function):
    def loss(k):
      return jnp.sum(jnp.sin(function(x, k)))

    return jit(jax.vmap(jax.value_and_grad(loss)))(kernels)

  actual = mapped(lambda x, k: convolutions.depthwise(x, k, stride=2))
  expected = mapped(lambda x, k: xla.convolve(x, k, 2, 3))
  for a, b in zip(actual, expected):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('groups', 'stride'), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_matrix_products_equal_the_pointwise_convolution(groups, stride):
  x, kernel = problem(5, 4, 6, 1, 9, groups)
  assert_same(
    lambda x, k: convolutions.pointwise(x, k, stride, groups),
    lambda x, k: xla.convolve(x, k, stride, groups),
    x,
    kernel,
  )


def test_average_pooling_is_the_same_on_every_backend(monkeypatch):
  x, kernel = problem(5, 6, 4, 3, 4, 4)

  def pool(x, kernel):
    del kernel
    return convolutions.average_pool(x, 3, 2)

  def reference(x, kernel):
    with monkeypatch.context() as patch:
      patch.setattr(jax, 'default_backend', lambda: 'gpu')
      return pool(x, kernel)

  assert_same(pool, reference, x, kernel)


@pytest.mark.parametrize('size', [(6, 4), (5, 7), (2, 3)])
def test_maximum_pooling_and_its_gradient_are_those_of_xla(size):
  # Many places of a patch are equal, and one is not a number.
  rng = np.random.default_rng(0)
  x = np.float32(rng.integers(-1, 3, (2, *size, 3)))
  x[0, 1, 1] = np.nan
  grad = np.float32(rng.normal(size=(2, size[0] // 2, size[1] // 2, 3)))

  @jit
  def outcomes(x):
    def of(pool):
      pooled, transpose = jax.vjp(pool, x)
      return pooled, *transpose(grad)

    return of(convolutions.max_pool), of(
      lambda x: nn.max_pool(x, *[(2, 2)] * 2)
    )

  for actual, expected in zip(*outcomes(x)):
    np.testing.assert_array_equal(actual, expected)


def test_maximum_pooling_is_one_operation_on_other_backends(monkeypatch):
  def names():
    x = jnp.zeros((1, 4, 4, 2))
    trace = jax.make_jaxpr(lambda x: convolutions.max_pool(x))(x)
    return {equation.primitive.name for equation in trace.eqns}

  assert 'reduce_window_max' not in names()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert 'reduce_window_max' in names()


def test_shifts_have_second_derivatives():
  x, kernel = problem(4, 4, 3, 3, 3, 3)

  def second(function):
    def first(kernel):
      grad = jax.grad(lambda x: jnp.sum(jnp.sin(function(x, kernel))))(x)
      return jnp.sum(grad**2)

    return jit(jax.grad(first))(kernel)

  np.testing.assert_allclose(
    second(lambda x, k: convolutions.depthwise(x, k, stride=1)),
    second(lambda x, k: xla.convolve(x, k, 1, 3)),
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
@pytest.mark.parametrize(('kernel', 'groups'), [(3, 4), (1, 2), (1, 1), (3, 1)])
def test_every_backend_has_the_same_parameters(
  monkeypatch, backend, kernel, groups
):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  layer = convolutions.Conv(
    4, kernel, 1, groups, True, jax.nn.initializers.ones, jnp.float32
  )
  image = jnp.ones((1, 3, 3, 4))
  init = jit(layer.init_with_output)
  output, variables = init(jax.random.key(0), image)
  shapes = jax.tree.map(jnp.shape, variables['params'])
  assert shapes == {
    'kernel': (kernel, kernel, 4 // groups, 4),
    'bias': (4,),
  }
  assert float(output[0, 1, 1, 0]) == kernel * kernel * 4 // groups
