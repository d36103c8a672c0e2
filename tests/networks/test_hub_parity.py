"""Pretrained folders give what transformers computes from them.

make_hub_fixtures.py makes the folders.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import networks
from jaxdistill.core.types import Network
from jaxdistill.networks.layers import convolutions
from jaxdistill.networks.weights import huggingface

HERE = pathlib.Path(__file__).parent / 'hub_fixtures'
NAMES = (
  *('clip', 'clip_vision', 'convnext', 'dinov2', 'dinov2_classifier'),
  *('dinov2_larger', 'dinov2_registers', 'dinov3', 'dinov3_convnext'),
  *('siglip', 'siglip_vision', 'vit', 'vit_model'),
)


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_gives_the_features_of_transformers(name, monkeypatch):
  # XLA's own convolutions compile fast; 7x7 shifts do not.
  monkeypatch.setattr(
    convolutions, '_by_backend', lambda cpu, plain, *arrays: plain(*arrays)
  )
  network, variables = huggingface.load(HERE / name).model
  expected = safetensors.numpy.load_file(HERE / name / 'expected.safetensors')
  image = expected.pop('image')

  def run(variables, image):
    features, _ = networks.run(network, variables, {'image': image})
    return {feature: features[feature] for feature in expected}

  options = {'xla_backend_optimization_level': 0}
  compiled = jax.jit(run).lower(variables, image).compile(options)
  for feature, value in compiled(variables, image).items():
    scale = np.abs(expected[feature]).max()
    np.testing.assert_allclose(
      value, expected[feature], rtol=0, atol=1e-4 * scale, err_msg=feature
    )


def test_no_folder_is_missing_and_all_stay_small():
  assert {path.name for path in HERE.iterdir()} == {*NAMES}
  sizes = [path.stat().st_size for path in HERE.rglob('*') if path.is_file()]
  assert max(sizes) < 1e5
  assert sum(sizes) < 5e5


def test_both_towers_of_a_model_or_one_alone_give_the_same_network():
  for both, alone in (('clip', 'clip_vision'), ('siglip', 'siglip_vision')):
    first, second = (
      huggingface.load(HERE / name).model.network for name in (both, alone)
    )
    assert first == second


def test_a_folder_says_how_images_were_standardised_and_what_classes_are():
  loaded = huggingface.load(HERE / 'vit')
  assert loaded.metadata['label_names'] == ['cat', 'dog', 'frog']
  np.testing.assert_allclose(loaded.metadata['mean'], [123.675, 116.28, 103.53])
  np.testing.assert_allclose(loaded.metadata['std'], [58.395, 57.12, 57.375])
  assert loaded.image_size == 28
  assert loaded.about == 'licence apache-2.0'
  assert 'label_names' not in huggingface.load(HERE / 'dinov2').metadata


@pytest.mark.parametrize('name', ['dinov2', 'dinov3', 'siglip_vision'])
def test_a_transformer_without_some_blocks_still_runs(name):
  network = huggingface.load(HERE / name).model.network
  stages = tuple(s for s in network.stages if s.name != 'group1.block2')
  image = jax.ShapeDtypeStruct((1, 21, 21, 3), jnp.float32)
  shapes = networks.shapes(Network(stages), {'image': image})
  assert shapes['pool'].shape == (1, 16)
  rebuilt = networks.from_description(networks.to_description(network))
  assert rebuilt == network
