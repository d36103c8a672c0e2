"""Settings of the whole suite, and tiny networks and data that tests share."""

import gc
import os

# All this must come before jax is imported.
# Compiling takes most of the time: a second run finds the programs there.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', os.path.expanduser('~/.cache/jaxdistill-tests')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
# Programs that run once need not be good ones.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
)
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import numpy as np
import pytest

from jaxdistill import optimizers, recipes
from jaxdistill.data import arrays
from jaxdistill.networks import layers, resnet, staged
from jaxdistill.tasks import classification
from jaxdistill.types import Batch, Dataset, Model, Network, Recipe, Stage

# Tracing makes many objects and few cycles: looking for them takes a tenth.
gc.set_threshold(100_000, 20, 50)


def tiny_network(width: int) -> Network:
  """Every kind of stage once, for images of any size; 3 classes."""
  return Network(
    (
      Stage('stem', layers.ConvUnit(width)),
      Stage('group1.block1', resnet.BasicBlock(width)),
      Stage('group2.block1', resnet.BasicBlock(2 * width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )


def initialized(network: Network, seed: int) -> Model:
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  return Model(network, staged.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='session')
def student() -> Model:
  """Stages 'stem', 'group1.block1', 'group2.block1', 'pool', 'head'."""
  return initialized(tiny_network(2), 0)


@pytest.fixture(scope='session')
def teacher() -> Model:
  """The same stages, wider."""
  return initialized(tiny_network(3), 1)


@pytest.fixture(scope='session')
def dataset() -> Dataset:
  """Noise `[N, 8, 8, 1]` of 3 classes: 24 train, 10 validation, 14 test."""
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
  label = np.arange(48) % 3
  return arrays.from_arrays(
    image[:34], label[:34], image[34:], label[34:], validation=10
  )


@pytest.fixture(scope='session')
def recipe(dataset) -> Recipe:
  """Two epochs of 3 steps of 8 examples at a constant rate."""
  return recipes.recipe(
    dataset,
    classification.classification(),
    epochs=2,
    batch_size=8,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )


@pytest.fixture(scope='session')
def batch(dataset, recipe) -> Batch:
  """The first 8 training examples, standardised."""
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  return recipe.stream.augment(jax.random.key(0), raw)


@pytest.fixture(scope='session', autouse=True)
def cache_home(tmp_path_factory):
  """What is remembered of data sets does not outlive the tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """A file is one process, but each notebook by itself: they come last."""
  from xdist import scheduler

  class Scheduling(scheduler.LoadFileScheduling):
    def _split_scope(self, nodeid):
      alone = 'test_notebooks.py' in nodeid
      return nodeid if alone else super()._split_scope(nodeid)

  return Scheduling(config, log)
