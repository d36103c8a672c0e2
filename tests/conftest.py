"""Settings of the whole suite, and tiny networks and data that tests share."""

import ctypes
import doctest
import gc
import importlib.metadata
import os
import pathlib

# These settings must be made before jax is imported.
# Compiling takes most of the time, so later runs reuse compiled programs.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', os.path.expanduser('~/.cache/jaxdistill-tests')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
# Programs that run only once need no expensive optimisation. Older versions of
# jaxlib compile twice as fast with their former emitters of fused loops.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  + ' --xla_cpu_use_fusion_emitters=false'
  * importlib.metadata.version('jaxlib').startswith('0.10.'),
)
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.types import Batch, Dataset, Model, Network, Recipe, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification

# Tracing creates many objects but few cycles, and the search for cycles would
# take a tenth of the time.
gc.set_threshold(100_000, 20, 50)

# The tests of `pytest -m fast`, as files and folders below tests/. They cover
# the foundations and take about 90 seconds without compiled programs.
FAST = (
  *('core', 'losses', 'tasks', 'test_imports.py', 'test_layers.py'),
  *('data/loading/test_batches.py', 'data/sources/test_arrays.py'),
  *('phases/test_phases.py', 'phases/test_recipes.py'),
  *('study/test_nesting.py', 'study/test_parse.py', 'study/test_settings.py'),
  'study/test_overrides.py',
  *('networks/test_graph.py', 'networks/test_splicing.py'),
  *('test_optimizers.py', 'training/test_loop.py'),
)
ROOT = pathlib.Path(__file__).parent
GROWTH = 3 << 29  # 1.5 GiB


def is_fast(path: pathlib.Path) -> bool:
  """Whether a file or folder of tests belongs to `pytest -m fast`."""
  return any(path.is_relative_to(ROOT / name) for name in FAST)


def pytest_ignore_collect(collection_path, config):
  """Does not even import slow files for `pytest -m fast`."""
  is_slow_file = collection_path.suffix == '.py' and not is_fast(
    collection_path
  )
  if config.getoption('markexpr', '') == 'fast' and is_slow_file:
    return collection_path.name != 'conftest.py'
  return None


def pytest_collection_modifyitems(items):
  """Marks the fast tests."""
  for item in items:
    if is_fast(item.path):
      item.add_marker('fast')


@pytest.fixture
def fast_paths() -> list[pathlib.Path]:
  """The files and folders of `pytest -m fast`."""
  return [ROOT / name for name in FAST]


def tiny_network(width: int) -> Network:
  """A network with every kind of stage, for images of any size; 3 classes."""
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
  """The network with random weights, for images `[8, 8, 1]`."""
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  return Model(network, graph.init(network, jax.random.key(seed), image))


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
    classification(),
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
  """Keeps the cache of facts about data sets in a temporary folder."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    yield


@pytest.fixture(scope='module', autouse=True)
def bounded_memory(memory_after_clearing):
  """Drops traced and compiled programs when a process has grown by 1.5 GiB.

  A process that kept those of the whole suite would need more than 4 GiB, and
  one that dropped them after each file would trace shared functions again.
  """
  yield
  if _memory() > memory_after_clearing[-1] + GROWTH:
    jax.clear_caches()
    gc.collect()
    if hasattr(ctypes.CDLL(None), 'malloc_trim'):
      ctypes.CDLL(None).malloc_trim(0)  # gives memory back to the system
    memory_after_clearing.append(_memory())


@pytest.fixture(scope='session')
def memory_after_clearing() -> list[int]:
  """The bytes of this process after its compiled programs were dropped."""
  return [_memory()]


def _memory() -> int:
  """Returns the bytes of memory of this process; 0 where Linux is missing."""
  file = pathlib.Path('/proc/self/statm')
  pages = int(file.read_text().split()[1]) if file.exists() else 0
  return pages * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture(scope='session')
def run_examples():
  """Runs the examples in the docstrings of an object; returns their number.

  An example sees only what it imports itself, so that a reader can copy it.
  """

  def run(thing) -> int:
    finder = doctest.DocTestFinder(exclude_empty=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in finder.find(thing, getattr(thing, '__name__', None)):
      example.globs = {}
      report: list[str] = []
      failed = runner.run(example, out=report.append).failed
      assert not failed, ''.join(report)
    return runner.tries

  return run


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """Runs each file in one process, except notebooks, which run separately."""
  from xdist import scheduler

  class Scheduling(scheduler.LoadFileScheduling):
    def _split_scope(self, nodeid):
      is_notebook = 'test_notebooks.py' in nodeid
      return nodeid if is_notebook else super()._split_scope(nodeid)

  return Scheduling(config, log)
