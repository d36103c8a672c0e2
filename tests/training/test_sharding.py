"""Runs on 8 devices end as on one, and go on there; one program serves all."""

import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdistill.networks import files
from jaxdistill.training import log as log_lib

CHILD = pathlib.Path(__file__).with_name('on_devices.py')
# Float32, and 20 steps that move parameters by 0.2 and more.
TOLERANCE = 1e-5


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
  """(folder, what was found) of the runs on 8 devices."""
  folder = tmp_path_factory.mktemp('eight')
  own = os.environ.get('XLA_FLAGS', '')
  flags = f'{own} --xla_force_host_platform_device_count=8'
  subprocess.run(
    [sys.executable, CHILD, folder],
    env={**os.environ, 'XLA_FLAGS': flags},
    check=True,
    timeout=600,
  )
  found = json.loads((folder / 'found.json').read_text())
  assert found['devices'] == 8
  return folder, found


@pytest.fixture(scope='module')
def here():
  """What the child runs, on one device."""
  assert jax.device_count() == 1
  return runpy.run_path(str(CHILD))


@pytest.fixture(scope='module')
def kd(here):
  return here['fit']('kd')


def assert_close(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def assert_same_end(folder, name, fitted):
  tree, best_step = files.load_tree(folder / f'{name}.safetensors')
  assert_close(tree['last'], fitted.carry['student'].variables)
  assert_close(tree['best'], fitted.best['student'].variables)
  assert best_step == fitted.best_step


@pytest.mark.parametrize('name', ['supervised', 'sp'])
def test_eight_devices_end_where_one_does(eight, here, name):
  """With statistics and relations of the whole batch, not of a device's."""
  fitted = here['fit'](name)
  assert fitted.steps == here['STEPS']
  before = here['carry']()['student'].variables['params']
  after = fitted.carry['student'].variables['params']
  moved = jax.tree.map(lambda a, b: abs(a - b).max(), before, after)
  assert max(jax.tree.leaves(moved)) > 0.15
  assert_same_end(eight[0], name, fitted)


def test_eight_devices_distil_as_one_does(eight, kd):
  assert_same_end(eight[0], 'kd', kd)


def test_eight_devices_search_a_process_as_one_does(eight, here):
  """The raw weights move by up to 0.05 a step."""
  theirs, _ = files.load_tree(eight[0] / 'search.safetensors')
  ours = here['search']()
  assert np.abs(ours['process']['raw'][-1] - 1).min() > 0.05
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_devices_that_share_parameters_end_where_one_does(eight, kd):
  """4 groups of 2 devices."""
  assert_same_end(eight[0], 'model', kd)
  held, whole = (eight[1]['sizes'][k] for k in ('held', 'all'))
  assert whole / 2 < held < 0.6 * whole  # small ones are on both


def test_a_run_begun_on_eight_devices_ends_on_one(eight, here, kd, tmp_path):
  begun = []

  class Log(log_lib.Log):
    def begin(self, order, phase, step, num_steps, offset):
      begun.append(step)

  run = shutil.copytree(eight[0] / 'stopped', tmp_path / 'run')
  assert (run / 'seen').exists()
  fitted = here['fit']('kd', directory=str(run), log=Log(show=False))
  assert begun == [10]
  assert fitted.steps == here['STEPS']
  assert_close(fitted.carry['student'].variables, kd.carry['student'].variables)


def test_evaluation_over_devices_counts_each_example_once(eight, here):
  ours, theirs = eight[1]['metrics'], here['metrics']()
  assert list(ours) == list(theirs)
  for key in ours:
    np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5)


def test_streamed_batches_are_spread_as_those_in_memory(eight):
  assert eight[1]['streamed'] == [[2] * 8] * 3


def test_gradients_are_combined_into_few_all_reduces(eight):
  """14 arrays in 3: what is known together, and the stem's kernel at the end.

  The metrics ride with the last one. A batch norm has one going forwards (sums
  of x and x**2) and one backwards, or shares them with the one beside it.
  """
  reduced = eight[1]['all-reduces']

  kernels = [[s for s in shapes if s.count(',')] for shapes in reduced]
  with_kernels = [found for found in kernels if found]
  assert sum(map(len, with_kernels)) == 5
  assert len(with_kernels) <= 3
  norms = 4
  assert len(reduced) - len(with_kernels) <= 2 * norms


@pytest.mark.parametrize(
  ('case', 'words'),
  [
    ('model', ['model_parallel is 3', '8 devices', '1, 2, 4, 8']),
    ('none', ['model_parallel is 0', '1, 2, 4, 8']),
    ('batch', ['batch_size is 20', '8 devices', '16 and 24']),
    ('small', ['batch_size is 7', 'nearest valid: 8']),
    ('loop', ['batch_size is 12', '8 devices', '8 and 16']),
  ],
)
def test_what_the_devices_cannot_share_is_refused(eight, case, words):
  for word in words:
    assert word in eight[1]['refusals'][case]
