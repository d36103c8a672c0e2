"""Weights of PyTorch modules give the modules' answers.

The fixtures and the script that makes them: make_fixtures.py.
"""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from jaxdistill import networks
from jaxdistill.networks import pretrained
from jaxdistill.types import Model

HERE = pathlib.Path(__file__).parent / 'fixtures'
WHOLE = os.environ.get('JAXDISTILL_WHOLE_FIXTURES')
FOLDERS = [HERE, *([pathlib.Path(WHOLE)] if WHOLE else [])]
FIXTURES = [
  path.with_suffix('').with_suffix('')
  for folder in FOLDERS
  for path in sorted(folder.glob('*.expected.safetensors'))
]


def weights(path):
  return path.with_name(f'{path.name}.safetensors')


def read(path):
  """(our network, {'image': ..., feature: ...}) of a fixture."""
  file = path.with_name(f'{path.name}.expected.safetensors')
  with safetensors.safe_open(file, framework='np') as opened:
    spec = opened.metadata()
  network = networks.NETWORKS[spec['network']](**json.loads(spec['arguments']))
  return network, safetensors.numpy.load_file(file)


def load(path):
  network, expected = read(path)
  image = jax.ShapeDtypeStruct(expected['image'].shape, np.float32)
  variables = pretrained.load(weights(path), network, {'image': image})
  return Model(network, variables), expected


@pytest.mark.parametrize('path', FIXTURES, ids=lambda path: path.name)
def test_pytorch_weights_give_pytorch_logits_and_features(path):
  (network, variables), expected = load(path)
  image = expected.pop('image')

  @jax.jit
  def run(variables, image):
    features, _ = networks.run(network, variables, {'image': image})
    return {name: features[name] for name in expected}

  options = {'xla_backend_optimization_level': 0}
  compiled = run.lower(variables, image).compile(options)
  for name, ours in compiled(variables, image).items():
    scale = np.abs(expected[name]).max()
    np.testing.assert_allclose(
      ours, expected[name], rtol=1e-4, atol=1e-4 * scale, err_msg=name
    )


@pytest.mark.parametrize('path', FIXTURES, ids=lambda path: path.name)
def test_weights_return_to_pytorch_unchanged(path):
  model, _ = load(path)
  original = safetensors.numpy.load_file(weights(path))
  again = pretrained.to_torch(model, path.name.partition('_')[0])
  assert set(again) == set(original)
  for name, tensor in original.items():
    np.testing.assert_array_equal(again[name], tensor, err_msg=name)


def test_the_fixtures_stay_small():
  assert sum(path.stat().st_size for path in HERE.iterdir()) < 2e6
