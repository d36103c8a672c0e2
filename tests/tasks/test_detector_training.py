"""Detectors in training: stops, seeds together, devices, streamed images."""

import os
import pathlib
import runpy
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.data.sources import image_files, images
from jaxdistill.networks import graph
from jaxdistill.networks.weights import files
from jaxdistill.training import log as log_lib
from jaxdistill.training import loop
from jaxdistill.training.options import Run

SCRIPT = pathlib.Path(__file__).with_name('detector_run.py')
# Seeds together and several devices add numbers in another order. In three
# steps, weights move by 0.1 and more.
TOLERANCE = 2e-4


@pytest.fixture(scope='module')
def run():
  """The names in the script."""
  return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope='module')
def whole(run):
  """The weights after 30 steps on one device, without a stop."""
  assert jax.device_count() == 1
  return run['fit'](run['LONG'])


def assert_close(tree, expected):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=TOLERANCE),
    tree,
    expected,
  )


def has_moved(variables, start):
  """Whether a weight has moved much more than the tolerance."""
  before = start['student'].variables['params']
  moved = jax.tree.map(
    lambda x, y: abs(x - y).max(), variables['params'], before
  )
  return max(jax.tree.leaves(moved)) > 0.1


def test_a_detector_learns_to_find_squares(run, whole):
  data, recipe, network = run['DATA'], run['recipe'](), run['tiny']()
  batch = {k: np.asarray(v) for k, v in data.splits['train'].items()}
  batch['image'] = (batch['image'] - np.float32(data.mean)) / np.float32(
    data.std
  )

  @jax.jit
  def losses(variables):
    features, _ = graph.run(network, variables, recipe.task.inputs(batch))
    return recipe.task.progress(graph.output(network, features), batch)

  before, after = losses(run['start']()['student'].variables), losses(whole)
  assert sum(after.values()) < 0.7 * sum(before.values())


def test_a_run_stopped_in_the_middle_ends_with_the_same_bits(
  run, whole, tmp_path
):
  calls = iter(range(100))
  with pytest.raises(loop.Interrupted):
    run['fit'](
      run['LONG'],
      directory=str(tmp_path),
      interrupted=lambda: next(calls) >= 7,
    )
  resumed = run['fit'](run['LONG'], directory=str(tmp_path))
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_seeds_that_train_together_end_as_if_alone(run):
  def options(**labels):
    return jd.FitOptions(log=log_lib.Log(labels=labels, show=False))

  runs = {
    seed: Run(run['SHORT']['two'], run['start'](seed), seed, options(seed=seed))
    for seed in (0, 1)
  }
  results = loop.fit_runs(runs, run['DATA'], options())
  for seed, result in results.items():
    expected = run['fit'](run['SHORT']['two'], seed)
    assert has_moved(expected, run['start'](seed))
    assert_close(result.carry['student'].variables, expected)


@pytest.fixture(scope='module')
def short(run):
  """The weights of both detectors after three steps on one device."""
  return {kind: run['fit'](x, kind=kind) for kind, x in run['SHORT'].items()}


def test_two_devices_end_with_the_weights_of_one(run, short, tmp_path):
  flags = os.environ.get('XLA_FLAGS', '')
  flags = f'{flags} --xla_force_host_platform_device_count=2'
  subprocess.run(
    [sys.executable, SCRIPT, tmp_path],
    env={**os.environ, 'XLA_FLAGS': flags},
    check=True,
    timeout=600,
  )
  for kind, expected in short.items():
    tree, metadata = files.load_tree(tmp_path / f'{kind}.safetensors')
    assert metadata == {'devices': 2}
    assert has_moved(expected, run['start'](kind=kind))
    assert_close(tree, expected)


@pytest.mark.parametrize('kind', ['one', 'two'])
def test_streamed_images_train_like_those_in_memory(run, short, kind, tmp_path):
  data, paths = run['DATA'], []
  train = data.splits['train']
  for i, image in enumerate(train['image']):
    paths.append(str(tmp_path / f'{i}.png'))
    PIL.Image.fromarray(image).save(paths[-1])
  column = images.LazyImages(
    image_files.Paths(tuple(paths)),
    np.arange(len(paths)),
    train['image'].shape[1:],
    letterbox=True,
  )
  splits = {**data.splits, 'train': {**train, 'image': column}}
  streamed = data._replace(splits=splits)
  trained = run['fit'](run['SHORT'][kind], kind=kind, data=streamed, workers=0)
  jax.tree.map(np.testing.assert_array_equal, trained, short[kind])
