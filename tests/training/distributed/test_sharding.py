"""Runs on 8 devices end as on one device, and can be resumed on one."""

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

from jaxdistill.networks.weights import files
from jaxdistill.training import log as log_lib

CHILD = pathlib.Path(__file__).with_name('on_devices.py')
# For float32, after 20 steps that move parameters by 0.2 and more.
TOLERANCE = 1e-5
# With JAX 0.12 and without optimisation, as in these tests, the weights of KD
# agree to 1e-7 for five steps and differ by 1e-4 after twenty. With
# optimisation they agree to 1e-7: it is rounding, probably at a ReLU's zero.
KD_TOLERANCE = 1e-3


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
  """(folder, numbers) of the runs on 8 devices."""
  folder = tmp_path_factory.mktemp('eight')
  old_flags = os.environ.get('XLA_FLAGS', '')
  flags = f'{old_flags} --xla_force_host_platform_device_count=8'
  subprocess.run(
    [sys.executable, CHILD, folder],
    env={**os.environ, 'XLA_FLAGS': flags},
    check=True,
    timeout=600,
  )
  numbers = json.loads((folder / 'numbers.json').read_text())
  assert numbers['devices'] == 8
  return folder, numbers


@pytest.fixture(scope='module')
def script():
  """The names in the child's script, to run it on one device."""
  assert jax.device_count() == 1
  return runpy.run_path(str(CHILD))


@pytest.fixture(scope='module')
def kd(script):
  return script['fit']('kd')


def assert_close(tree, expected, tolerance=TOLERANCE):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def assert_same_end(folder, name, fitted, tolerance=TOLERANCE):
  tree, best_step = files.load_tree(folder / f'{name}.safetensors')
  assert_close(tree['last'], fitted.carry['student'].variables, tolerance)
  assert_close(tree['best'], fitted.best['student'].variables, tolerance)
  assert best_step == fitted.best_step


@pytest.mark.parametrize('name', ['supervised', 'sp'])
def test_eight_devices_end_with_the_weights_of_one(eight, script, name):
  """Statistics and relations are those of the whole batch."""
  fitted = script['fit'](name)
  assert fitted.steps == script['STEPS']
  before = script['carry']()['student'].variables['params']
  after = fitted.carry['student'].variables['params']
  moved = jax.tree.map(lambda a, b: abs(a - b).max(), before, after)
  assert max(jax.tree.leaves(moved)) > 0.15
  assert_same_end(eight[0], name, fitted)


def test_eight_devices_distil_like_one(eight, kd):
  assert_same_end(eight[0], 'kd', kd, KD_TOLERANCE)


def test_eight_devices_search_a_process_like_one(eight, script):
  """The raw weights move by up to 0.05 per step."""
  of_eight, _ = files.load_tree(eight[0] / 'search.safetensors')
  of_one = script['search']()
  assert np.abs(of_one['process']['raw'][-1] - 1).max() > 0.02
  for a, b in zip(jax.tree.leaves(of_eight), jax.tree.leaves(of_one)):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_devices_that_share_parameters_end_with_the_weights_of_one(eight, kd):
  """4 groups of 2 devices."""
  assert_same_end(eight[0], 'model', kd, KD_TOLERANCE)
  held, whole = (eight[1]['sizes'][k] for k in ('held', 'all'))
  assert whole / 2 < held < 0.6 * whole  # small arrays are on both devices


def test_a_run_begun_on_eight_devices_can_end_on_one(
  eight, script, kd, tmp_path
):
  begun = []

  class Log(log_lib.Log):
    def begin(self, order, phase, step, *others):
      begun.append(step)

  run = shutil.copytree(eight[0] / 'stopped', tmp_path / 'run')
  assert (run / 'interrupted').exists()
  fitted = script['fit']('kd', directory=str(run), log=Log(show=False))
  assert begun == [10]
  assert fitted.steps == script['STEPS']
  expected = kd.carry['student'].variables
  assert_close(fitted.carry['student'].variables, expected, KD_TOLERANCE)


def test_evaluation_over_devices_counts_each_example_once(eight, script):
  of_eight, of_one = eight[1]['metrics'], script['metrics']()
  assert list(of_eight) == list(of_one)
  for key in of_eight:
    np.testing.assert_allclose(of_eight[key], of_one[key], rtol=1e-5)


def test_streamed_batches_are_spread_like_those_in_memory(eight):
  assert eight[1]['streamed'] == [[2] * 8] * 3


def test_gradients_are_combined_into_few_all_reduces(eight):
  """The gradients of 14 arrays need only 3 all-reduces.

  Gradients that are ready at the same time share one; that of the stem's kernel
  comes last, together with the metrics. A batch norm has one all-reduce in the
  forward pass (sums of x and x**2) and one in the backward pass, or shares them
  with a batch norm that runs in parallel.
  """
  reduced = eight[1]['all-reduces']

  kernels = [[s for s in shapes if s.count(',')] for shapes in reduced]
  with_kernels = [shapes for shapes in kernels if shapes]
  assert sum(map(len, with_kernels)) == 5
  assert len(with_kernels) <= 3
  norms = 4
  assert len(reduced) - len(with_kernels) <= 2 * norms


@pytest.mark.parametrize(
  ('case', 'words'),
  [
    ('model', ['model_parallel:', '8 devices', '1, 2, 4, 8', 'got 3']),
    ('zero', ['model_parallel:', '1, 2, 4, 8', 'got 0']),
    ('batch', ['batch_size:', '8 devices', '16 and 24', 'got 20']),
    ('small', ['batch_size:', 'nearest: 8)', 'got 7']),
    ('loop', ['batch_size:', '8 devices', '8 and 16', 'got 12']),
  ],
)
def test_sizes_that_the_devices_cannot_share_are_refused(eight, case, words):
  for word in words:
    assert word in eight[1]['refusals'][case]
