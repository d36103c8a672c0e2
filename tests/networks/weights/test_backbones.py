"""Initial weights from a trained network of which some stages are shared."""

import jax
import numpy as np
import pytest
import safetensors.numpy

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import detectors
from jaxdistill.networks.weights import backbones
from jaxdistill.networks.weights import pretrained as torch_weights

IMAGE = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)}


def classifier(width=2):
  return jd.networks.create(
    'imagenet_resnet',
    num_classes=7,
    stem_width=width,
    widths=(width,) * 4,
  )


def filled(network, level):
  """Variables in which every number is the level."""
  return jax.tree.map(
    lambda x: np.full(x.shape, level, np.float32),
    graph.variable_shapes(network, IMAGE),
  )


@pytest.fixture(scope='module')
def detector():
  network = detectors.retinanet(classifier(), num_classes=3, width=2, depth=0)
  return filled(network, 1.0)


def check(variables):
  """The groups come from the file, and the rest is new."""
  for tree in variables.values():
    for stage, leaves in tree.items():
      is_shared = stage.startswith(('stem', 'group'))
      expected = 2.0 if is_shared else 1.0
      assert all(
        (np.asarray(x) == expected).all() for x in jax.tree.leaves(leaves)
      )


def test_shared_stages_come_from_a_file_of_this_library(detector, tmp_path):
  path = tmp_path / 'classifier.safetensors'
  jd.save(path, jd.Model(classifier(), filled(classifier(), 2.0)))
  scheme = backbones.pretrained(path=str(path))
  check(scheme(jax.random.key(0), detector))
  groups = ('stem', *(f'group{i}' for i in range(1, 5)))
  new = [k for k in detector['params'] if not k.startswith(groups)]
  stages = len(detector['params'])
  assert scheme.note(detector) == (
    f'{stages - len(new)} of {stages} stages begin with the weights of {path}; '
    f'these are new: {", ".join(new[:6])} and {len(new) - 6} others'
  )


def test_shared_stages_come_from_a_file_of_pytorch(detector, tmp_path):
  path = tmp_path / 'resnet18.safetensors'
  network = classifier()
  tensors = torch_weights.to_torch(jd.Model(network, filled(network, 2.0)))
  arrays = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
  safetensors.numpy.save_file(arrays, path)
  scheme = backbones.pretrained(path=str(path), network=network)
  check(scheme(jax.random.key(0), detector))


def test_a_stage_can_keep_its_new_weights(detector, tmp_path):
  path = tmp_path / 'detector.safetensors'
  network = detectors.retinanet(classifier(), num_classes=3, width=2, depth=0)
  jd.save(path, jd.Model(network, filled(network, 2.0)))
  new = [name for name in detector['params'] if not name.startswith('group')]
  new.remove('stem')
  scheme = backbones.pretrained(path=str(path), without=new)
  check(scheme(jax.random.key(0), detector))
  scheme = backbones.pretrained(path=str(path), without=['haed'])
  with pytest.raises(UsageError, match=r"'haed'.*did you mean 'head'"):
    scheme(jax.random.key(0), detector)


def test_files_that_share_nothing_are_refused(detector, tmp_path):
  path = tmp_path / 'wide.safetensors'
  network = classifier(4)
  jd.save(path, jd.Model(network, filled(network, 2.0)))
  with pytest.raises(UsageError, match='names and shapes of the network'):
    backbones.pretrained(path=str(path))(jax.random.key(0), detector)
  with pytest.raises(UsageError, match='no file'):
    backbones.pretrained(path=str(tmp_path / 'none.safetensors'))
