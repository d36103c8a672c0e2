"""Heads for segmentation, against NumPy and by their shapes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import description, graph, layers
from jaxdistill.networks.surgery import dense_heads, depth_heads

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(2, 6, 5, 8)).astype(np.float32)
HEADS = {
  'fcn': {},
  'psp': {'sizes': (1, 2, 3)},
  'deeplab': {'rates': (2, 3)},
}
EPSILON = 1e-5


def apply(module):
  """Returns (output, parameters) of a module on the map, in inference."""

  def output(rng, x):
    variables = module.init(rng, x, False)
    return module.apply(variables, x, False), variables['params']

  return jax.device_get(jax.jit(output)(jax.random.key(0), MAP))


def unit(x, kernel, dilation=1):
  """Convolution, new batch norm in inference mode, ReLU."""
  size = kernel.shape[0]
  pad = dilation * (size // 2)
  padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  height, width = x.shape[1:3]
  y = sum(
    padded[:, i * dilation :, j * dilation :][:, :height, :width] @ kernel[i, j]
    for i in range(size)
    for j in range(size)
  )
  return np.maximum(y / np.sqrt(1 + EPSILON), 0)


def weights(small, large):
  """Bilinear weights `[large, small]` with half-pixel centres."""
  place = (np.arange(large) + 0.5) * small / large - 0.5
  place = place.clip(0, small - 1)[:, None]
  return np.maximum(1 - np.abs(place - np.arange(small)), 0)


def enlarged(x):
  rows, columns = (weights(a, b) for a, b in zip(x.shape[1:3], (6, 5)))
  return np.einsum('rh,cw,bhwk->brck', rows, columns, x)


def pooled(size):
  """Means over windows from floor(i m / n) to ceil((i + 1) m / n)."""
  bounds = [
    [(i * m // size, -(-(i + 1) * m // size)) for i in range(size)]
    for m in MAP.shape[1:3]
  ]
  rows = [
    [MAP[:, a:b, c:d].mean((1, 2)) for c, d in bounds[1]] for a, b in bounds[0]
  ]
  return np.stack([np.stack(row, 1) for row in rows], 1)


def test_the_pooled_pyramid_is_that_of_pspnet():
  output, params = apply(dense_heads.PooledPyramid(4, (1, 2, 3)))
  maps = [MAP]
  for size in (1, 2, 3):
    kernel = params[f'conv{size}']['kernel']
    assert kernel.shape == (1, 1, 8, 2)  # a third of the channels each
    maps.append(enlarged(unit(pooled(size), kernel)))
  expected = unit(np.concatenate(maps, -1), params['conv']['kernel'])
  np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)


def test_the_atrous_pyramid_is_that_of_deeplab():
  output, params = apply(dense_heads.AtrousPyramid(4, (2, 3)))
  kernels = {k: v['kernel'] for k, v in params.items() if 'conv' in k}
  maps = [
    unit(MAP, kernels['conv1']),
    unit(MAP, kernels['conv2'], 2),
    unit(MAP, kernels['conv3'], 3),
    enlarged(unit(MAP.mean((1, 2), keepdims=True), kernels['mean_conv'])),
  ]
  expected = unit(np.concatenate(maps, -1), kernels['conv'])
  np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)


def backbone(name='resnet18'):
  keys = {
    'resnet18': {
      'stem': 'deep',
      'stem_width': 2,
      'widths': (2, 2, 4, 4),
      'strides': (1, 2, 1, 1),
      'dilations': (1, 1, 2, 4),
    },
    'mobilenet_v2': {
      'strides': (1, 2, 2, 1, 1, 1, 1),
      'dilations': (1, 1, 1, 2, 2, 4, 4),
    },
  }
  return jd.networks.create(name, num_classes=3, **keys[name])


def shapes(network):
  image = jax.ShapeDtypeStruct((1, 32, 48, 3), jnp.float32)
  return graph.shapes(network, {'image': image})


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('auxiliary', [False, True])
def test_logits_of_all_heads_have_an_eighth_of_the_resolution(name, auxiliary):
  head = getattr(dense_heads, name)
  network = head(backbone(), num_classes=3, auxiliary=auxiliary, **HEADS[name])
  features = shapes(network)
  outputs = graph.output(network, features)
  if auxiliary:
    assert set(outputs) == {'head', 'aux'}
    assert network.stages[-1].name == 'head'
  else:
    outputs = {'head': outputs}
  assert {x.shape for x in outputs.values()} == {(1, 4, 6, 3)}
  assert features['group4'].shape == (1, 4, 6, 4)


def test_mobilenet_v2_keeps_an_eighth_of_the_resolution():
  network = backbone('mobilenet_v2')
  assert shapes(network)['group7'].shape == (1, 4, 6, 320)
  blocks = [s.module for s in network.stages if s.name.startswith('group')]
  # The groups have 1, 2, 3, 4, 3, 3 and 1 blocks.
  assert [b.dilation for b in blocks] == [1] * 6 + [2] * 7 + [4] * 4


def test_a_deep_stem_has_three_convolutions_and_twice_the_width():
  stem = shapes(backbone())['stem']
  assert stem.shape == (1, 8, 12, 4)


def test_networks_with_heads_are_described_by_a_file():
  for name, keys in HEADS.items():
    head = getattr(dense_heads, name)
    network = head(backbone(), num_classes=3, auxiliary=True, **keys)
    text = json.dumps(description.to_description(network))
    assert description.from_description(json.loads(text)) == network


@pytest.mark.parametrize(
  'name, keys, words',
  [
    ('psp', {'sizes': (0, 2)}, 'sizes: expected'),
    ('deeplab', {'rates': (1.5,)}, 'rates: expected'),
    ('psp', {'width': -1}, 'width: expected'),
    ('deeplab', {'dropout': 1.0}, 'dropout: expected'),
  ],
)
def test_numbers_out_of_range_are_refused(name, keys, words):
  with pytest.raises(UsageError, match=words):
    getattr(dense_heads, name)(backbone(), num_classes=3, **keys)


def test_a_network_without_a_pooling_is_refused():
  network = jd.Network((jd.Stage('stem', layers.ConvUnit(2)),))
  for name in HEADS:
    with pytest.raises(UsageError, match='expected a classifier with groups'):
      getattr(dense_heads, name)(network, num_classes=3)


def test_an_up_projection_puts_zeros_between_places():
  output, params = apply(depth_heads.UpProjection())
  kernels = {k: v['kernel'] for k, v in params.items() if 'conv' in k}
  large = np.zeros((2, 12, 10, 8), np.float32)
  large[:, ::2, ::2] = MAP

  def sums(x, name):
    return unit(x, kernels[name]) - unit(x, -kernels[name])  # no ReLU

  branch = sums(unit(large, kernels['first_conv']), 'second_conv')
  expected = np.maximum(branch + sums(large, 'shortcut_conv'), 0)
  assert output[''].shape == (2, 12, 10, 4)
  np.testing.assert_allclose(output[''], expected, rtol=1e-3, atol=1e-4)


def test_an_up_convolution_has_one_branch_of_the_projection():
  output, params = apply(depth_heads.UpConvolution())
  large = np.zeros((2, 12, 10, 8), np.float32)
  large[:, ::2, ::2] = MAP
  assert params['conv']['kernel'].shape == (5, 5, 8, 4)
  expected = unit(large, params['conv']['kernel'])
  np.testing.assert_allclose(output[''], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', ['upconv', 'upproj'])
def test_a_new_decoder_gives_its_prior_at_all_pixels(name):
  network = getattr(depth_heads, name)(backbone(), doublings=1, prior=6.5)
  head = network.stages[-1].module
  variables = head.init(jax.random.key(0), MAP, train=False)
  depths = head.apply(variables, MAP, train=False)
  np.testing.assert_allclose(depths, 6.5, atol=0.2)
  assert np.std(depths) > 0
  with pytest.raises(UsageError, match='prior: expected a number'):
    getattr(depth_heads, name)(backbone(), prior='6.5 m')


def test_zeros_between_places_need_no_padding_which_onnx_lacks():
  program = jax.make_jaxpr(depth_heads._unpooled)(MAP)
  names = {equation.primitive.name for equation in program.eqns}
  assert 'concatenate' in names and 'pad' not in names


@pytest.mark.parametrize('name', ['upconv', 'upproj'])
def test_a_decoder_doubles_the_size_and_halves_the_channels(name):
  decoded = getattr(depth_heads, name)
  network = decoded(backbone(), doublings=2)
  features = shapes(network)
  assert features['group4'].shape == (1, 4, 6, 4)
  assert features['decoder'].shape == (1, 16, 24, 1)
  assert features['head'].shape == (1, 16, 24, 1)
  with pytest.raises(UsageError, match='doublings: expected'):
    decoded(backbone(), doublings=0)
