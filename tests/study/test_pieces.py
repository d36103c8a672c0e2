"""Pieces of a row, each trained by a command of its own."""

import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

CONFIG = """
def get_config():
  teacher = {{'name': 'blocks_for_tests:net'}}
  return {{
    'data': {{'name': 'npz', 'path': {path!r}, 'validation': 16}},
    'teacher': {{**teacher, 'training': {{'epochs': 1}}}},
    'student': {{'name': 'narrowed', 'network': teacher, 'multiplier': 0.5}},
    'batch_size': 16,
    'epochs': 1,
    'methods': {{
      'alone': {{'name': 'supervised'}},
      'pieces': {{
        'name': 'neighbourhood',
        'neighbourhood_epochs': 2,
        'statistics_steps': 0,
      }},
    }},
  }}
"""
# Blocks that compile quickly, and say what is inside of them.
NETWORK = """
from flax import linen as nn

from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import layers


class Block(nn.Module):
  width: int
  inner: int = 4

  def inner_widths(self):
    return {'inner': self.inner}

  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.relu(nn.Dense(self.width)(nn.relu(nn.Dense(self.inner)(x))))


def net(*, num_classes: int) -> Network:
  return Network(
    (
      Stage('stem', Block(3)),
      Stage('group1.block1', Block(3)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )
"""
# The narrow stem makes the first piece begin at the image.
NAMES = ('stem', 'group1.block1')
ROW = '--row=pieces'


@pytest.fixture(scope='module')
def config(place):
  (place / 'blocks_for_tests.py').write_text(NETWORK)
  path = place / 'pieces.py'
  path.write_text(CONFIG.format(path=str(place / 'data.npz')))
  return path


@pytest.fixture(scope='module')
def together(cli, config, tmp_path_factory):
  """A work directory with the teacher, and with all pieces trained at once."""
  workdir = tmp_path_factory.mktemp('together') / 'workdir'
  cli.fit(config, workdir, ROW)
  return workdir


@pytest.fixture
def workdir(together, tmp_path):
  """A work directory that holds the teacher alone."""
  folder = shutil.copytree(together, tmp_path / 'workdir')
  shutil.rmtree(folder / 'rows' / 'pieces')
  return folder


def student(workdir):
  arrays = safetensors.load_file(workdir / 'rows/pieces/0/phase1.safetensors')
  return {k: v for k, v in arrays.items() if k.startswith('student/')}


def test_pieces_of_separate_commands_become_the_student_of_one_program(
  cli, config, together, workdir, workdirs, monkeypatch
):
  """One piece by itself, those that are missing, then the usual run."""
  out, _ = cli.fit(config, workdir, ROW, '--piece=1')
  assert out.startswith(f'pieces, seed 0, piece 1 ({NAMES[1]}): 6 steps')
  code, _, err = cli.call('run', config, f'--workdir={workdir}', ROW)
  assert code == 2
  assert 'expected all pieces or none, got no piece 0 (stem); train' in err
  monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices() * 2)
  out, _ = cli.fit(config, workdir, ROW, '--piece=all')
  assert [line.split('(')[1].split(')')[0] for line in out.splitlines()] == [
    *NAMES
  ]
  cli.fit(config, workdir, ROW)
  ours, reference = student(workdir), student(together)
  assert ours.keys() == reference.keys()
  for name, array in reference.items():
    np.testing.assert_allclose(ours[name], array, rtol=1e-5, atol=1e-6)
  results = [workdirs.result(w, 'pieces') for w in (workdir, together)]
  for result in results:
    (cost,) = result['phases']
    assert (cost['phase'], cost['steps']) == ('neighbourhoods', 6)
    assert cost['device_seconds'] <= cost['seconds']
  assert results[0]['steps'] == results[1]['steps'] == 6
  assert results[0]['test']['last'] == results[1]['test']['last']


def test_a_piece_that_cannot_be_trained_is_refused(
  cli, config, workdir, tmp_path
):
  for argument, message in (
    ('--piece=3', 'piece: expected a whole number from 0 to 1, got 3'),
    ('--piece=two', "--piece: expected a number from 0, or 'all', got 'two'"),
  ):
    assert message in cli.refused(config, workdir, ROW, argument)
  line = cli.refused(config, workdir, '--row=alone', '--piece=0')
  assert 'expected a row whose method trains independent pieces' in line
  line = cli.refused(config, tmp_path / 'empty', ROW, '--piece=0')
  assert 'expected a trained teacher with --piece; train it with --row=' in line
