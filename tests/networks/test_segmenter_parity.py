"""Segmentation networks compute what modules of PyTorch compute.

tests/fixtures/make_dense_fixtures.py makes the fixtures and describes them.
"""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import Model, networks
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import dense_heads
from jaxdistill.networks.weights import pretrained

FIXTURES = pathlib.Path(__file__).parent.parent / 'fixtures'
BACKBONES = {
  'psp': ('resnet18', {'stem_width': 3, 'widths': (4, 4, 8, 8)}),
  'deeplab': ('resnet50', {'stem_width': 2, 'widths': (2, 2, 3, 3)}),
}
DILATED = {
  'stem': 'deep',
  'strides': (1, 2, 1, 1),
  'dilations': (1, 1, 2, 4),
}
HEADS = {'psp': {'align_corners': True}, 'deeplab': {'rates': (2, 4)}}


def build(name):
  """Returns the library's network with the numbers of a fixture."""
  backbone, widths = BACKBONES[name]
  network = networks.create(backbone, num_classes=3, **DILATED, **widths)
  return getattr(dense_heads, name)(
    network, num_classes=3, width=6, auxiliary=True, **HEADS[name]
  )


def converted(shapes, arrays):
  """Returns variables of these shapes from PyTorch's tensors, by name."""
  leaves = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
  leaves |= {'mean': 'running_mean', 'var': 'running_var'}
  used = set()

  def leaf(path, shape):
    _, *names, last = (key.key for key in path)
    name = f'weights/{".".join(names)}.{leaves[last]}'
    used.add(name)
    array = np.float32(arrays[name])
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    assert array.shape == shape.shape, name
    return array

  variables = jax.tree_util.tree_map_with_path(leaf, shapes)
  assert used == {key for key in arrays if key.startswith('weights/')}
  return variables


@pytest.mark.parametrize('name', ['psp', 'deeplab'])
def test_a_segmenter_with_pytorch_weights_computes_its_maps(name):
  network, arrays = build(name), np.load(FIXTURES / f'{name}.npz')
  features = {'image': arrays['image']}
  shapes = graph.variable_shapes(network, features)
  variables = converted(shapes, arrays)
  expected = {
    key: arrays[key] for key in arrays if '/' not in key and key != 'image'
  }
  assert {'stem', 'group4', 'aux', 'pyramid', 'head'} <= expected.keys()

  @jax.jit
  def run(variables, image):
    result, _ = graph.run(network, variables, {'image': image})
    return {key: result[key] for key in expected}

  options = {'xla_backend_optimization_level': 0}
  compiled = run.lower(variables, arrays['image']).compile(options)
  for key, value in compiled(variables, arrays['image']).items():
    scale = np.abs(expected[key]).max()
    np.testing.assert_allclose(
      value, expected[key], rtol=1e-4, atol=1e-4 * scale, err_msg=key
    )


# The convolution and the norm of each layer of a deep stem.
STEMS = {
  'csail': (('conv1', 'bn1'), ('conv2', 'bn2'), ('conv3', 'bn3')),
  'timm': (('conv1.0', 'conv1.1'), ('conv1.3', 'conv1.4'), ('conv1.6', 'bn1')),
}


@pytest.mark.parametrize('naming', STEMS)
def test_the_classifier_of_a_deep_stem_is_read_under_its_names(
  naming, tmp_path
):
  network = networks.create(
    'resnet18', num_classes=3, stem='deep', stem_width=2, widths=(2, 2, 3, 3)
  )
  image = {'image': jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)}
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.uniform(0.5, 2, x.shape).astype(np.float32),
    graph.variable_shapes(network, image),
  )
  tensors = pretrained.to_torch(Model(network, variables), naming)
  kernel = variables['params']['stem']['conv3']['kernel']
  names = STEMS[naming]
  np.testing.assert_array_equal(
    tensors[f'{names[2][0]}.weight'], kernel.transpose(3, 2, 0, 1)
  )
  stem = {f'{x}.weight' for pair in names for x in pair}
  assert stem == {
    name
    for name in tensors
    if name.endswith('weight') and 'layer' not in name and 'fc' not in name
  }
  path = tmp_path / 'backbone.safetensors'
  safetensors.numpy.save_file(tensors, path)
  loaded = pretrained.load(path, network, image)
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)
