"""Programs for other runtimes hold ordinary convolutions only."""

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.networks import graph, layers
from jaxdistill.networks.layers import convolutions, plain


def primitives(function, *shapes):
  """Returns the names of the operations of a program, nested ones included."""
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  names, jaxprs = set(), [jax.make_jaxpr(function)(*arguments).jaxpr]
  while jaxprs:
    for equation in jaxprs.pop().eqns:
      names.add(equation.primitive.name)
      jaxprs += core.jaxprs_in_params(equation.params)
  return names


# The shapes of image and kernel, and the number of groups.
FORMS = {
  'depthwise': ((1, 6, 6, 4), (3, 3, 1, 4), 4),
  'pointwise': ((1, 6, 6, 4), (1, 1, 4, 8), 1),
  'pointwise in groups': ((1, 6, 6, 4), (1, 1, 2, 8), 2),
  'in groups': ((1, 6, 6, 4), (3, 3, 2, 8), 2),
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_becomes_one_ordinary_convolution(form):
  image, kernel, groups = FORMS[form]

  def convolve(x, kernel):
    return convolutions.convolve(x, kernel, stride=2, groups=groups)

  with plain.convolutions():
    assert primitives(convolve, image, kernel) == {'conv_general_dilated'}
  assert not plain.is_active()


def test_average_pooling_becomes_an_ordinary_convolution():
  with plain.convolutions():
    names = primitives(
      lambda x: convolutions.average_pool(x, 3, 2), (1, 6, 6, 4)
    )
  assert names == {'broadcast_in_dim', 'conv_general_dilated'}


@pytest.mark.parametrize('width', [4, 5, 9])
def test_channels_of_zeros_are_appended_by_a_concatenation(width):
  x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype('float32')
  expected = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - 4)))
  np.testing.assert_array_equal(layers.append_zeros(x, width), expected)
  with plain.convolutions():
    names = primitives(lambda x: layers.append_zeros(x, width), x.shape)
    zeros = layers.append_zeros(jnp.asarray(x), width)
  np.testing.assert_array_equal(zeros, expected)
  assert 'pad' not in names and 'concatenate' in names


@pytest.mark.parametrize(
  ('name', 'arguments'),
  [
    ('cifar_resnet', {'depth': 8, 'shortcut': 'A'}),
    ('cifar_resnet', {'depth': 8, 'shortcut': 'pool'}),
    ('pyramidnet', {'depth': 11, 'widening': 12}),
  ],
  ids=['A', 'pool', 'pyramid'],
)
def test_networks_of_parameter_free_shortcuts_pad_nothing(name, arguments):
  network = networks.NETWORKS[name](num_classes=3, **arguments)
  shape = (1, 8, 8, 3)
  image = {'image': jax.ShapeDtypeStruct(shape, jnp.float32)}
  variables = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), graph.variable_shapes(network, image)
  )
  with plain.convolutions():
    names = primitives(lambda x: graph.apply(network, variables, x), shape)
  assert 'pad' not in names


def test_a_depthwise_network_holds_no_operation_of_this_library():
  network = networks.NETWORKS['cifar_shufflenet_v1'](
    num_classes=7, stem_width=12, widths=(24, 48, 96), blocks=(1, 2, 1)
  )
  shape = (1, 16, 16, 3)
  image = {'image': jax.ShapeDtypeStruct(shape, jnp.float32)}
  variables = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), graph.variable_shapes(network, image)
  )

  def forward(image):
    return graph.apply(network, variables, image)

  assert 'depthwise' in primitives(forward, shape)
  with plain.convolutions():
    names = primitives(lambda image: forward(image), shape)
  assert 'depthwise' not in names
  assert 'conv_general_dilated' in names
