"""Networks with the weights of PyTorch modules compute what those compute.

make_fixtures.py makes the fixtures and describes them.
"""

import functools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks.layers import convolutions
from jaxdistill.networks.weights import pretrained, torch_names

HERE = pathlib.Path(__file__).parent / 'fixtures'
WHOLE = os.environ.get('JAXDISTILL_WHOLE_FIXTURES')
# The fixtures that are committed, whatever the folder holds.
NAMES = {
  'plain': (
    *('basic_pyramidnet', 'densenet', 'mobilenet_v1', 'preactivation_resnet'),
    'pyramidnet',
  ),
  'repdistiller': (
    *('bottleneck_resnet', 'mobilenet_v2', 'padded_resnet', 'resnet'),
    *('shufflenet_v1', 'shufflenet_v2', 'slim_vgg', 'vgg', 'wrn'),
  ),
  'timm': (
    *('bottleneck_resnet', 'convnext', 'dinov2', 'efficientnet'),
    *('efficientnet_lite', 'mobilenet_v2', 'mobilenet_v3', 'resnet', 'vit'),
  ),
  'torchvision': (
    *('cifar_densenet', 'convnext', 'densenet', 'efficientnet'),
    *('mobilenet_v2', 'mobilenet_v3', 'plain_vgg', 'shufflenet_v2', 'vgg'),
    'vit',
  ),
}
FOLDERS = [HERE, *([pathlib.Path(WHOLE)] if WHOLE else [])]
FIXTURES = [
  path.with_suffix('').with_suffix('')
  for folder in FOLDERS
  for path in sorted(folder.glob('*.expected.safetensors'))
]


def weights(path):
  return path.with_name(f'{path.name}.safetensors')


def read(path):
  """Returns the network and {'image': ..., feature: ...} of a fixture."""
  file = path.with_name(f'{path.name}.expected.safetensors')
  with safetensors.safe_open(file, framework='np') as opened:
    metadata = opened.metadata()
  function = networks.NETWORKS[metadata['network']]
  network = function(**json.loads(metadata['arguments']))
  return network, safetensors.numpy.load_file(file)


@pytest.fixture(autouse=True)
def plain_names(monkeypatch):
  """Adds a naming in which tensors have the names of the variables."""
  namings = torch_names.namings
  monkeypatch.setattr(
    torch_names, 'namings', lambda network: {**namings(network), 'plain': {}}
  )


@functools.cache
def load(path):
  network, expected = read(path)
  image = jax.ShapeDtypeStruct(expected['image'].shape, np.float32)
  variables = pretrained.load(weights(path), network, {'image': image})
  return Model(network, variables), expected


@pytest.fixture
def plain_convolutions(monkeypatch):
  """Uses XLA's own convolutions, which compile fast; 7x7 shifts do not."""
  monkeypatch.setattr(
    convolutions, '_by_backend', lambda cpu, plain, *arrays: plain(*arrays)
  )


@pytest.mark.parametrize('path', FIXTURES, ids=lambda path: path.name)
def test_pytorch_weights_give_pytorch_logits_and_features(path, request):
  if 'convnext' in path.name:
    request.getfixturevalue('plain_convolutions')
  (network, variables), expected = load(path)
  image, expected = expected['image'], {**expected}
  del expected['image']

  @jax.jit
  def run(variables, image):
    features, _ = networks.run(network, variables, {'image': image})
    return {name: features[name] for name in expected}

  options = {'xla_backend_optimization_level': 0}
  compiled = run.lower(variables, image).compile(options)
  for name, value in compiled(variables, image).items():
    scale = np.abs(expected[name]).max()
    np.testing.assert_allclose(
      value, expected[name], rtol=1e-4, atol=1e-4 * scale, err_msg=name
    )


@pytest.mark.parametrize('path', FIXTURES, ids=lambda path: path.name)
def test_weights_return_to_pytorch_unchanged(path):
  model, _ = load(path)
  original = safetensors.numpy.load_file(weights(path))
  again = pretrained.to_torch(model, path.name.partition('_')[0])
  assert set(again) == set(original)
  for name, tensor in original.items():
    np.testing.assert_array_equal(again[name], tensor, err_msg=name)


@pytest.mark.parametrize(
  ('name', 'epsilon', 'expected_epsilon'),
  [
    ('torchvision_efficientnet', 1e-3, 1e-5),
    ('torchvision_mobilenet_v3', 1e-5, 1e-3),
    ('timm_mobilenet_v3', 1e-3, 1e-5),
    ('timm_efficientnet_lite', 1e-5, 1e-3),
  ],
)
def test_weights_of_another_epsilon_are_refused(
  name, epsilon, expected_epsilon
):
  (network, _), expected = load(HERE / name)
  stages = tuple(
    stage._replace(module=stage.module.clone(epsilon=epsilon))
    if hasattr(stage.module, 'epsilon')
    else stage
    for stage in network.stages
  )
  image = jax.ShapeDtypeStruct(expected['image'].shape, np.float32)
  with pytest.raises(UsageError, match=f'epsilon={expected_epsilon}'):
    pretrained.load(weights(HERE / name), Network(stages), {'image': image})


@pytest.mark.parametrize(
  ('name', 'naming'),
  [
    ('timm_efficientnet_lite', 'efficientnet_pytorch'),
    ('timm_dinov2', 'huggingface'),
    ('timm_convnext', 'huggingface'),
    ('timm_convnext', 'huggingface_dinov3'),
    ('timm_vit', 'huggingface'),
  ],
)
def test_weights_under_another_naming_are_read_as_the_same(
  name, naming, tmp_path
):
  model, expected = load(HERE / name)
  tensors = pretrained.to_torch(model, naming)
  assert tensors.keys() != pretrained.to_torch(model, 'timm').keys()
  file = tmp_path / 'file.safetensors'
  safetensors.numpy.save_file(tensors, file)
  image = jax.ShapeDtypeStruct(expected['image'].shape, np.float32)
  again = pretrained.load(file, model.network, {'image': image})
  jax.tree.map(np.testing.assert_array_equal, again, model.variables)


def test_no_fixture_is_missing_and_all_stay_small():
  expected = {
    f'{naming}_{name}{kind}.safetensors'
    for naming, names in NAMES.items()
    for name in names
    for kind in ('', '.expected')
  }
  assert {path.name for path in HERE.iterdir()} == expected
  assert sum(path.stat().st_size for path in HERE.iterdir()) < 2.75e6
