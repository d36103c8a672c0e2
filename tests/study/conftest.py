"""The command line, tiny data and configs that the tests of studies share."""

import contextlib
import io
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill import main
from jaxdistill.core import cpu
from jaxdistill.networks.layers import dense, xla
from jaxdistill.study import config as config_lib
from jaxdistill.study import overrides, runs

CONFIG = """
import ml_collections


def get_config(rows='student alone,kd'):
  config = ml_collections.ConfigDict()
  config.data = {{'name': 'npz', 'path': {path!r}, 'validation': 16}}
  tiny = {{'name': {network!r}}}
  config.teacher = {{**tiny, 'training': {{'epochs': 1}}}}
  config.student = tiny
  config.optimizer = {{'name': 'sgd'}}
  config.schedule = {{'name': 'cosine', 'rate': 0.1}}
  config.batch_size = 16
  config.epochs = 2
  config.log_every = 1
  methods = {{
    'student alone': {{'name': 'supervised'}},
    'kd': {{'name': 'kd', 'temperature': 2.0}},
    'late': {{'name': 'kd', 'temperature': 3.0}},
  }}
  config.methods = ml_collections.ConfigDict(
    {{k: methods[k] for k in rows.split(',') if k in methods}}, sort_keys=False
  )
  if rows == 'one':
    del config.methods
    config.method = methods['kd']
  return config
"""
NETWORK = """
import pathlib

from jaxdistill.phases import joint
from jaxdistill.networks import layers
from jaxdistill.core.types import Network, Stage


def net(*, num_classes: int, width: int = 2) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def from_file(recipe, *, temperature: str):
  file = pathlib.Path(temperature).expanduser()
  return joint.kd(recipe, temperature=float(file.read_text()))
"""
USER_FILE = """
import jax.numpy as jnp
import numpy as np

from jaxdistill import phases
from jaxdistill.data.sources import arrays
from jaxdistill.networks import graph, layers
from jaxdistill.optimizers import Optimizer, Schedule
from jaxdistill.core.types import Dataset, Method, Network, Recipe, Stage


def net(*, num_classes: int, width: int = 2) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def data(*, size: int = 48) -> Dataset:
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)
  label = np.arange(size) % 3
  return arrays.from_arrays(image, label, image, label, validation=0)


def method(
  recipe: Recipe,
  *,
  power: float = 2.0,
  encoder_optimizer: Optimizer | None = None,
  student: str = 'stem',  # a feature, and no role
  extra=None,
) -> Method:
  def phase(carry):
    network, teacher = carry['student'].network, carry['teacher'].network

    def loss_fn(variables, batches, rng, progress):
      image = batches['train']['image']
      features, updates = graph.run(
        network, variables['student'], {'image': image}, train=True
      )
      student_logits = graph.output(network, features)
      teacher_logits = graph.apply(teacher, variables['teacher'], image)
      loss = (jnp.abs(student_logits - teacher_logits) ** power).mean()
      return loss, ({'student': updates}, {})

    return phases.gradient_phase(
      'mine',
      loss_fn,
      (encoder_optimizer or recipe.optimizer)(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks={'student': network, 'teacher': teacher},
      trainable={'student': None},
    )

  return (phase,)


def bomb(*, rate: float = 0.01, at: int = 4) -> Schedule:
  return Schedule(lambda n: lambda step: jnp.where(step < at, rate, 1e30))
"""


def make_arrays(**changes):
  """3 classes, 64 training and 30 test images of noise, with `changes`."""
  rng = np.random.default_rng(0)
  return {
    'train_image': rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8),
    'train_label': np.arange(64) % 3,
    'test_image': rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8),
    'test_label': np.arange(30) % 3,
    **changes,
  }


class CommandLine:
  """Calls the command line in this process and reads what it wrote."""

  def call(self, *arguments):
    """Returns (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      code = main.run([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()

  def fit(self, config, workdir, *arguments):
    """Returns (stdout, stderr) of a call that must succeed."""
    code, out, err = self.call(
      f'--config={config}', f'--workdir={workdir}', *arguments
    )
    assert code == 0, err
    return out, err

  def refused(self, config, workdir, *arguments):
    """Returns the only line of a call that must be refused."""
    code, out, err = self.call(
      f'--config={config}', f'--workdir={workdir}', *arguments
    )
    assert code == 2, err
    assert out == ''
    (line,) = err.splitlines()
    assert line.startswith('jaxdistill: ')
    assert 'Traceback' not in err
    return line

  def load(self, config, *changes):
    """Returns the config of a file with overrides such as 'epochs=3'."""
    loaded = config_lib.load(config)
    for change in changes:
      overrides.override(loaded, *change.split('=', 1))
    return loaded


class WorkDirectory:
  """Reads work directories."""

  def contents(self, folder):
    """Returns path -> (bytes, time of change) of all files but the lock."""
    return {
      str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
      for p in pathlib.Path(folder).rglob('*')
      if p.is_file() and p.name != 'lock'
    }

  def trained_files(self, folder):
    """Returns the contents of the files that only training writes."""
    return {
      path: content
      for path, content in self.contents(folder).items()
      if path.endswith(('phase0.safetensors', 'result.json', 'metrics.jsonl'))
      and not path.startswith('results')
    }

  def results(self, folder):
    return json.loads((folder / 'results.json').read_text())

  def result(self, folder, label, seed=0):
    """Returns the result of one seed of a row."""
    rows = {row['label']: row for row in self.results(folder)['rows']}
    return rows[label]['seeds'][str(seed)]


@pytest.fixture(scope='session')
def cli():
  return CommandLine()


@pytest.fixture(scope='session')
def workdirs():
  return WorkDirectory()


@pytest.fixture(scope='session')
def arrays():
  """A function that returns the arrays of the data file, with changes."""
  return make_arrays


@pytest.fixture(scope='session')
def place(tmp_path_factory):
  """A folder with data and configs of a tiny network and of resnet8."""
  folder = tmp_path_factory.mktemp('place')
  np.savez(folder / 'data.npz', **make_arrays())
  (folder / 'network_for_tests.py').write_text(NETWORK)
  for name, network in (
    ('tiny', 'network_for_tests:net'),
    ('resnet', 'resnet8'),
  ):
    text = CONFIG.format(path=str(folder / 'data.npz'), network=network)
    (folder / f'{name}.py').write_text(text)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield folder


@pytest.fixture(scope='session')
def config(place):
  """A config whose network compiles quickly."""
  return place / 'tiny.py'


@pytest.fixture(scope='session')
def resnet(place):
  """The same config with resnet8, to be refused before anything compiles."""
  return place / 'resnet.py'


@pytest.fixture(scope='session')
def finished(cli, config, tmp_path_factory):
  """(work directory, stdout, stderr) of a finished run; never changed."""
  workdir = tmp_path_factory.mktemp('finished') / 'workdir'
  return workdir, *cli.fit(config, workdir)


@pytest.fixture
def copied(finished, tmp_path):
  """A copy of the finished work directory."""
  return shutil.copytree(finished[0], tmp_path / 'copied')


@pytest.fixture(scope='session')
def user_folder(tmp_path_factory):
  """A folder with a user's own files."""
  folder = tmp_path_factory.mktemp('user')
  (folder / 'mine_for_tests.py').write_text(USER_FILE)
  (folder / 'broken_for_tests.py').write_text('def f(:\n')
  return folder


@pytest.fixture
def in_user_folder(user_folder, monkeypatch):
  """Runs the test in the folder with the user's own files."""
  monkeypatch.chdir(user_folder)
  monkeypatch.setattr(sys, 'path', list(sys.path))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of two classes with 20 images of 8 x 8 pixels each."""
  root = tmp_path_factory.mktemp('images')
  rng = np.random.default_rng(0)
  for name in ('ant', 'bee'):
    (root / name).mkdir()
    for i in range(20):
      image = rng.integers(0, 256, (8, 8, 3), np.uint8)
      PIL.Image.fromarray(image).save(root / name / f'{i}.png')
  return root


@pytest.fixture(scope='module')
def flat(tmp_path_factory):
  """A folder of 40 images without labels."""
  root = tmp_path_factory.mktemp('flat')
  for i in range(40):
    PIL.Image.new('RGB', (8, 8), (i, 0, 0)).save(root / f'{i}.png')
  return root


@pytest.fixture
def planned(monkeypatch):
  """A function that returns the plan of a call, which is not run."""
  plans = []

  def run(plan, workdir, **options):
    plans.append(plan)
    config_lib.keep(pathlib.Path(workdir), plan.config)
    return {'rows': [], 'score': 'top1'}

  monkeypatch.setattr(runs, 'run', run)

  def plan(data, **options):
    jd.distill(data, **{'formats': (), 'show': False, **options})
    return plans[-1]

  return plan


@pytest.fixture
def convolved(monkeypatch):
  """Shapes of the images that `--fast_cpu` convolves, as if on two devices."""
  shapes = []

  def convolve(x, kernel, *, stride):
    shapes.append(x.shape)
    return xla.convolve(x, kernel, stride)

  monkeypatch.setenv(cpu.MARK, 'oneDNN, 2 devices')
  monkeypatch.setattr(jax, 'device_count', lambda: 2)
  monkeypatch.setattr(dense, 'convolve', convolve)
  return shapes
