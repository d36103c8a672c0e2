"""Networks with a share of their channels, and networks of files."""

import jax
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph
from jaxdistill.networks.adapters import programs
from jaxdistill.networks.surgery import scaling
from jaxdistill.networks.weights import files

# Network -> (arguments, size of the images); one of each family.
FAMILIES = {
  'resnet8': ({}, 8),
  'wrn_16_1': ({}, 8),
  'vgg8': ({}, 32),
  'preactivation_resnet': ({'depth': 11}, 8),
  'imagenet_resnet': ({'depth': 50}, 32),
  'mobilenet_v1': ({}, 32),
  'mobilenet_v3_small': ({}, 32),
  'cifar_shufflenet_v1': ({}, 32),
  'cifar_shufflenet_v2': ({}, 32),
  'cifar_densenet': ({'depth': 10}, 8),
  'pyramidnet': ({'depth': 11}, 8),
  'vit': ({'width': 48, 'depth': 2, 'heads': 3, 'patch': 4}, 8),
}


def shapes(network, size):
  image = {'image': jax.ShapeDtypeStruct((2, size, size, 3), np.float32)}
  return graph.shapes(network, image), graph.variable_shapes(network, image)


@pytest.mark.parametrize('name', FAMILIES)
def test_half_the_width_has_about_a_quarter_of_the_parameters(name):
  arguments, size = FAMILIES[name]
  network = networks.create(name, num_classes=7, **arguments)
  half = scaling.scaled(network, share=0.5)
  assert graph.stage_names(half) == graph.stage_names(network)
  features, variables = shapes(network, size)
  half_features, half_variables = shapes(half, size)
  assert half_features[graph.main_output(half)].shape == (2, 7)
  counts = [graph.count_parameters(v) for v in (half_variables, variables)]
  assert 0.2 < counts[0] / counts[1] < 0.5
  for stage, feature in features.items():
    if len(feature.shape) == 4 and stage != 'image':
      share = half_features[stage].shape[-1] / feature.shape[-1]
      assert share == pytest.approx(0.5, abs=0.1)


def test_half_of_a_resnet_is_the_resnet_of_half_the_widths():
  network = networks.create('resnet20', num_classes=10)
  expected = networks.create(
    'resnet20', num_classes=10, stem_width=8, widths=(8, 16, 32)
  )
  half = scaling.scaled(network, share=0.5)
  assert shapes(half, 8) == shapes(expected, 8)
  assert scaling.scaled(network, share=1.0) == network


@pytest.mark.parametrize('share', [0, -0.5, 1.5, float('nan'), True])
def test_a_share_outside_of_0_to_1_is_refused(share):
  network = networks.create('resnet8', num_classes=10)
  with pytest.raises(UsageError, match='share: expected a number in'):
    scaling.scaled(network, share=share)


def test_a_network_of_unknown_blocks_cannot_be_scaled(adopted):
  with pytest.raises(UsageError, match='blocks'):
    scaling.scaled(adopted.network, share=0.5)


@pytest.fixture(scope='module')
def adopted():
  """A model that no description can rebuild, with two features."""

  def init(rng, image):
    return {'params': {'kernel': jax.random.normal(rng, (3, 5))}}

  def apply(variables, image, train, rngs):
    pooled = image.mean((1, 2))
    logits = pooled @ variables['params']['kernel']
    return {'logits': logits, 'pooled': pooled}, {}

  network = networks.from_functions(init, apply)
  image = {'image': np.zeros((1, 4, 4, 3), np.float32)}
  return Model(network, graph.init(network, jax.random.key(0), image))


def test_a_network_is_read_from_the_file_of_a_model(tmp_path, student):
  path = tmp_path / 'a.safetensors'
  files.save(path, student)
  assert files.stored(path) == student.network
  other = files.stored(path, num_classes=8)
  assert other.stages[:-1] == student.network.stages[:-1]
  assert other.stages[-1].module.num_classes == 8


@pytest.mark.parametrize('content', [None, b'text', 'no network'])
def test_a_file_without_a_network_is_refused(content, tmp_path):
  path = tmp_path / 'a.safetensors'
  if content == 'no network':
    files.save_tree(path, {'params': {'a': np.ones(2)}}, {})
  elif content is not None:
    path.write_bytes(content)
  with pytest.raises(UsageError, match=r'a\.safetensors'):
    files.stored(path)


def test_a_program_computes_the_features_of_the_model(adopted, tmp_path):
  content, variables = programs.to_program(adopted, (4, 4, 3))
  path = tmp_path / 'teacher.program'
  path.write_bytes(content)
  network = programs.program(str(path))
  rng = np.random.default_rng(0)
  for count in (1, 3):  # of any batch size
    image = rng.normal(size=(count, 4, 4, 3)).astype(np.float32)
    actual, _ = graph.run(network, variables, {'image': image})
    expected, _ = graph.run(
      adopted.network, adopted.variables, {'image': image}
    )
    for name in ('model', 'pooled'):
      np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6)
  example = {'image': jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)}
  new = graph.variable_shapes(network, example)
  assert graph.count_parameters(new) == 15


def test_a_smaller_network_keeps_the_names_of_its_outputs():
  network = networks.create('resnet8', num_classes=3)
  network = network._replace(outputs=('head', 'pool'))
  assert scaling.scaled(network, share=0.5).outputs == ('head', 'pool')


def test_a_program_cannot_be_trained(adopted, tmp_path):
  content, variables = programs.to_program(adopted, (4, 4, 3))
  (tmp_path / 'a').write_bytes(content)
  network = programs.program(str(tmp_path / 'a'))
  image = np.zeros((1, 4, 4, 3), np.float32)
  with pytest.raises(UsageError, match='cannot be trained'):
    graph.run(network, variables, {'image': image}, train=True)


@pytest.mark.parametrize('content', [None, b'', b'text'])
def test_a_file_without_a_program_is_refused(content, tmp_path):
  if content is not None:
    (tmp_path / 'a').write_bytes(content)
  with pytest.raises(UsageError, match='path: '):
    programs.program(str(tmp_path / 'a'))


def test_a_model_that_needs_to_know_its_batch_size_is_refused():
  def apply(variables, image, train, rngs):
    return image.reshape(len(image), -1), {}

  network = networks.from_functions(lambda rng, image: {}, apply)
  with pytest.raises(UsageError, match=r'x\.shape\[0\]'):
    programs.to_program(Model(network, {}), (2, 2, 1))
