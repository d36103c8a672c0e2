"""A tiny ResNet, and its tensors under PyTorch's names."""

import jax
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.types import Model
from jaxdistill.networks.weights import pretrained

NETWORK = networks.NETWORKS['resnet8'](
  num_classes=3, stem_width=2, widths=(2, 3, 4)
)
EXAMPLE = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}


@pytest.fixture(scope='session')
def model():
  shapes = jax.eval_shape(
    lambda rng: networks.init(NETWORK, rng, EXAMPLE), jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  return Model(
    NETWORK,
    jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes),
  )


@pytest.fixture(scope='session')
def tensors(model):
  return pretrained.to_torch(model)
