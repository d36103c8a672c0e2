"""The README's code runs."""

import pathlib
import re
import sys
import types

from flax import linen as nn
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import export, main, networks
from jaxdistill.data import augment
from jaxdistill.types import Model

README = (pathlib.Path(__file__).parent.parent / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', README, re.DOTALL)


def _block(start: str) -> str:
  (found,) = [block for block in BLOCKS if start in block]
  return found


class _Linen(nn.Module):
  @nn.compact
  def __call__(self, image, train):
    del train
    return nn.Dense(10)(image.reshape(image.shape[0], -1))


class _Nnx(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(2, rngs=rngs)
    self.out = nnx.Linear(2, 10, rngs=rngs)

  def __call__(self, image):
    hidden = self.norm(self.conv(image))
    return hidden, self.out(hidden.mean((1, 2)))


@pytest.fixture(scope='module')
def model():
  network = networks.from_linen(_Linen())
  image = {'image': jnp.ones((2, 8, 8, 1))}
  return Model(network, networks.init(network, jax.random.key(0), image))


def test_a_loss_in_ones_own_loop(model, monkeypatch):
  monkeypatch.setattr(networks, 'load', lambda path: model)
  space = {
    'my_apply': lambda params, image: image.reshape(len(image), -1) @ params
  }
  exec(_block('def loss_fn(params, image, label)'), space)
  loss, gradient = jax.value_and_grad(space['loss_fn'])(
    jnp.zeros((64, 10)), jnp.ones((2, 8, 8, 1)), jnp.array([1, 2])
  )
  assert np.isfinite(loss) and np.abs(gradient).max() > 0


def test_a_method_with_the_librarys_loop(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  block = _block('joint.supervised(recipe')
  shorter = block.replace('epochs=3', 'epochs=0.1')
  assert shorter != block
  exec(shorter, {})
  network, variables = networks.load('student.safetensors')
  logits = networks.apply(network, variables, jnp.zeros((1, 8, 8, 1)))
  assert logits.shape == (1, 10)


def test_a_model_of_ones_own():
  space = {'MyLinenModule': _Linen, 'MyModel': _Nnx}
  exec(_block('staged.from_linen'), space)
  network, image = space['network'], {'image': jnp.ones((2, 8, 8, 1))}
  variables = networks.init(network, jax.random.key(0), image)
  features, updates = networks.run(network, variables, image, train=True)
  assert features['hidden'].shape == (2, 8, 8, 2)
  assert features['model'].shape == (2, 10)
  assert 'norm' in updates['batch_stats']['model']


def test_a_program_is_read_with_jax_alone(model, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  preprocess = augment.standardize((128.0,), (64.0,))
  program = export.to_stablehlo(model, (8, 8, 1), preprocess=preprocess)
  export.save('student.stablehlo', program)
  images = np.full((3, 8, 8, 1), 192, np.uint8)
  space = {'images': images}
  exec(_block('export.deserialize'), space)
  expected = networks.apply(*model, jnp.ones((3, 8, 8, 1)))
  np.testing.assert_allclose(space['logits'], expected, rtol=1e-5)


def test_a_part_of_a_network():
  network = networks.NETWORKS['resnet8'](num_classes=10, widths=(2, 2, 2))
  image = jnp.ones((1, 8, 8, 1))
  variables = networks.init(network, jax.random.key(0), {'image': image})
  space = {
    'networks': networks,
    'network': network,
    'variables': variables,
    'image': image,
  }
  exec(_block('only=names'), space)
  assert space['names'] == ('group2.block1',)


@pytest.mark.parametrize(
  'overrides',
  [
    [
      '--config.student.name=my_file:my_network',
      '--config.optimizer.name=my_file:my_optimizer',
      '--config.initial.name=my_file:my_weights',
    ],
    [
      '--config.method.name=joint',
      "--config.method.terms={'mine': {'name': 'my_file:my_loss'}}",
    ],
    ['--config.method.name=my_file:my_method'],
    ['--config.data.name=my_file:my_data'],
  ],
)
def test_an_addition_in_one_file_is_found(overrides, tmp_path, monkeypatch):
  """Down to the plan; the rest of the way is the same for all."""
  image = np.random.default_rng(0).integers(0, 255, (200, 8, 8, 1), np.uint8)
  np.save(tmp_path / 'digits.npy', image)
  (tmp_path / 'config.py').write_text(
    'def get_config():\n'
    "  small = {'name': 'resnet8', 'widths': (2, 2, 2)}\n"
    "  return {'data': {'name': 'digits'}, 'student': small,\n"
    "    'teacher': small, 'method': {'name': 'kd'}, 'epochs': 1}\n"
  )
  module = types.ModuleType('my_file')
  exec(_block('# my_file.py'), module.__dict__)
  monkeypatch.setitem(sys.modules, 'my_file', module)
  monkeypatch.chdir(tmp_path)
  planned = []
  monkeypatch.setattr(
    main.study, 'run', lambda plan, *a, **k: planned.append(plan) or {}
  )
  monkeypatch.setattr(main.study, 'table', lambda results: '')
  assert main.run(['--config=config.py', *overrides]) == 0
  assert len(planned) == 1
