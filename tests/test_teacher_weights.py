"""A teacher of PyTorch's comes in by one key."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import experiment, networks
from jaxdistill.networks import pretrained
from jaxdistill.types import Model, UsageError

SMALL = {'name': 'resnet8', 'stem_width': 2, 'widths': (2, 2, 4)}


@pytest.fixture(scope='module')
def model():
  arguments = {k: v for k, v in SMALL.items() if k != 'name'}
  network = networks.NETWORKS['resnet8'](num_classes=10, **arguments)
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  return Model(network, networks.init(network, jax.random.key(0), image))


def _config(path, **teacher):
  return {
    'data': {'name': 'digits'},
    'student': SMALL,
    'teacher': {**teacher, 'weights': str(path)},
    'method': {'name': 'kd'},
  }


def test_the_teacher_has_the_weights_of_the_file(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  safetensors.numpy.save_file(pretrained.to_torch(model), path)
  plan = experiment.plan(_config(path, **SMALL))
  assert plan.teacher is not None and plan.teacher.network == model.network
  jax.tree.map(
    np.testing.assert_array_equal, plan.teacher.variables, model.variables
  )
  assert [row.label for row in plan.rows] == ['kd']  # nothing to train first


def test_weights_of_another_network_are_refused(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  safetensors.numpy.save_file(pretrained.to_torch(model), path)
  with pytest.raises(UsageError, match=r"lacks tensor 'layer1\.1\."):
    experiment.plan(_config(path, **{**SMALL, 'name': 'resnet14'}))


def test_weights_need_the_networks_name_and_a_file(tmp_path):
  with pytest.raises(UsageError, match=r'teacher\.weights: no file'):
    experiment.plan(_config(tmp_path / 'x.pth', **SMALL))
  (tmp_path / 'x.pth').write_bytes(b'')
  with pytest.raises(UsageError, match='teacher: wanted a section'):
    experiment.plan(_config(tmp_path / 'x.pth'))


def test_a_row_says_which_key_the_teacher_came_by(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  safetensors.numpy.save_file(pretrained.to_torch(model), path)
  (row,) = experiment.plan(_config(path, **SMALL)).rows
  teacher = row.resolved['teacher']
  assert teacher['weights'] == str(path) and 'checkpoint' not in teacher
  networks.save(path, model)
  config = _config(path)
  config['teacher'] = {'checkpoint': str(path)}
  (row,) = experiment.plan(config).rows
  teacher = row.resolved['teacher']
  assert teacher['checkpoint'] == str(path) and 'weights' not in teacher


def test_weights_and_a_checkpoint_are_too_much(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  networks.save(path, model)
  with pytest.raises(UsageError, match='both weights and checkpoint'):
    experiment.plan(_config(path, **SMALL, checkpoint=str(path)))
