"""The two devices that --fast_cpu makes of a processor train like one."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdistill.networks.weights import files
from jaxdistill.training import fast_cpu

FOLDER = pathlib.Path(__file__).parent
# As in test_sharding.py, for KD after 20 steps.
TOLERANCE = 1e-3


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """(folder, numbers) of the runs on both devices, with calls of oneDNN."""
  folder = tmp_path_factory.mktemp('two')
  environment = fast_cpu.environment(os.environ, 'oneDNN', 2)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(folder))
    if not fast_cpu.works(environment):
      pytest.skip('this jaxlib has no oneDNN for this processor')
  subprocess.run(
    [sys.executable, FOLDER / 'on_fast_cpu.py', folder],
    env=environment,
    check=True,
    timeout=600,
  )
  return folder, json.loads((folder / 'numbers.json').read_text())


def test_both_devices_end_with_the_weights_of_one_without_onednn(two):
  assert jax.device_count() == 1
  one = runpy.run_path(str(FOLDER / 'on_devices.py'))['fit']('kd')
  tree, best_step = files.load_tree(two[0] / 'kd.safetensors')
  assert best_step == one.best_step
  for a, b in zip(
    jax.tree.leaves(tree['last']),
    jax.tree.leaves(one.carry['student'].variables),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def test_each_device_convolves_its_own_images(two):
  """Only statistics and gradients are exchanged, and no images."""
  assert two[1]['calls'] > 0
  assert two[1]['all-reduces'] > 0
  assert two[1]['all-gathers'] == 0


def test_batches_that_two_devices_cannot_share_train_on_one(two):
  assert two[1]['meshes'] == {'even': 2, 'odd': 1, 'together': 1, 'chosen': 1}
  assert two[1]['odd batches'] == pytest.approx(1)
