"""Runs that are killed at any moment end with the bits of unbroken runs."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import main, study
from jaxdistill.study import config as config_lib
from jaxdistill.training import log, loop

CONFIG = """
import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.data = {{'name': 'npz', 'path': {path!r}, 'validation': 16}}
  config.teacher = {{'name': 'killed_network:net', 'width': 3}}
  config.student = {{'name': 'killed_network:net'}}
  config.augment = {{'name': 'crop_flip', 'padding': 1}}
  config.schedule = {{'name': 'cosine', 'rate': 0.1, 'warmup': 0.1}}
  config.batch_size = 16
  config.epochs = 6
  config.log_every = 1
  config.checkpoint_seconds = 0.1
  config.methods = {{'kd': {{'name': 'killed_network:slow_kd'}}}}
  return config
"""
# Steps of each row: 48 examples, 6 epochs.
STEPS = 18
# Records of each row: every step, and every epoch.
RECORDS = 18 + 6
NETWORK = """
import time

from jaxdistill.phases import joint
from jaxdistill.networks import layers
from jaxdistill.core.types import Method, Network, Recipe, Stage


def net(*, num_classes: int, width: int = 2) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def slow_kd(recipe: Recipe) -> Method:
  (make,) = joint.kd(recipe)

  def phase(carry):
    # Slow enough to be killed in time: the host calls this at each step.
    return make(carry)._replace(static=lambda step: time.sleep(0.02))

  return (phase,)
"""
PATIENCE = 120  # seconds


class Child:
  """A run in its own process."""

  def __init__(self, place: pathlib.Path, workdir: pathlib.Path, *arguments):
    self.workdir = workdir
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'jaxdistill.main'),
        f'--config={place}/config.py',
        f'--workdir={workdir}',
        *arguments,
      ],
      cwd=place,
      env={**os.environ, 'XDG_CACHE_HOME': str(place / 'cache')},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def wait_for(self, condition) -> bool:
    """Returns whether the condition came true before the process ended."""
    end = time.monotonic() + PATIENCE
    while self.process.poll() is None:
      if condition():
        return True
      assert time.monotonic() < end
      time.sleep(0.002)
    return False

  def end(self) -> tuple[int, str]:
    """Waits until the process ends; returns (exit code, stderr)."""
    _, err = self.process.communicate(timeout=PATIENCE)
    return self.process.returncode, err

  def kill(self) -> None:
    self.process.kill()
    self.process.communicate()


def records(workdir):
  """Returns the records of metrics.jsonl; every line must be complete."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def count_records(workdir):
  return len(log.read_records(workdir / 'metrics.jsonl'))


def checkpoints(workdir, label):
  """Returns the steps of the complete checkpoints of a row."""
  folder = workdir / 'rows' / label / '0' / 'checkpoints0'
  return sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit())


def results(workdir):
  """Returns results.json without the times."""
  content = json.loads((workdir / 'results.json').read_text())
  for row in content['rows']:
    for result in row['seeds'].values():
      del result['seconds'], result['date']
      for phase in result['phases']:
        for key in ('seconds', 'compile_seconds', 'device_seconds'):
          del phase[key]
  return content


def assert_same_end(workdir, other):
  """Asserts that two runs left the same arrays, records and results."""
  for label in ('teacher', 'kd'):
    tensors, other_tensors = (
      safetensors.numpy.load_file(
        w / 'rows' / label / '0' / 'phase0.safetensors'
      )
      for w in (workdir, other)
    )
    assert sorted(tensors) == sorted(other_tensors)
    assert any(name.endswith('kernel') for name in tensors)
    for name in tensors:
      np.testing.assert_array_equal(
        tensors[name], other_tensors[name], err_msg=name
      )
    assert not checkpoints(workdir, label)
  assert records(workdir) == records(other)
  assert results(workdir) == results(other)


def resume(place, workdir, capfd):
  """Runs the same command in this process; returns its stderr."""
  capfd.readouterr()
  arguments = [f'--config={place}/config.py', f'--workdir={workdir}']
  assert main.run(arguments) == 0
  return capfd.readouterr().err


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with data, a network and a config."""
  folder = tmp_path_factory.mktemp('place')
  rng = np.random.default_rng(0)
  np.savez(
    folder / 'data.npz',
    train_image=rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8),
    train_label=np.arange(64) % 3,
    test_image=rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8),
    test_label=np.arange(30) % 3,
  )
  (folder / 'killed_network.py').write_text(NETWORK)
  text = CONFIG.format(path=str(folder / 'data.npz'))
  (folder / 'config.py').write_text(text)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield folder


@pytest.fixture(scope='module')
def unbroken(place):
  """The work directory of a run that was never stopped."""
  child = Child(place, place / 'unbroken')
  code, err = child.end()
  assert code == 0, err
  assert len(records(child.workdir)) == 2 * RECORDS
  return child.workdir


@pytest.fixture(scope='module')
def stopped(place, unbroken):
  """(work directory, step) of a run that SIGTERM stopped in row 'kd'.

  The teacher's row is that of the unbroken run. The checkpoint of the signal is
  the first one.
  """
  workdir = shutil.copytree(unbroken, place / 'stopped')
  shutil.rmtree(workdir / 'rows' / 'kd')
  (workdir / 'metrics.jsonl').write_text(
    ''.join(
      json.dumps(record) + '\n'
      for record in records(unbroken)
      if record['row'] == 'teacher'
    )
  )
  child = Child(place, workdir, '--config.checkpoint_seconds=1000')
  assert child.wait_for(lambda: count_records(workdir) >= RECORDS + 3)
  # The stopped process still holds the directory.
  child.process.send_signal(signal.SIGSTOP)
  intruder = Child(place, workdir)
  code, err = intruder.end()
  child.process.send_signal(signal.SIGTERM)
  child.process.send_signal(signal.SIGCONT)
  assert code == 2
  assert 'another run is using' in err
  assert len(err.splitlines()) == 1
  code, err = child.end()
  assert code == 75, err
  assert 'jaxdistill: stopping after this step' in err
  line = err.splitlines()[-1]
  assert "of phase 'kd'; run the same command again to resume" in line
  step = int(line.partition('at step ')[2].partition(' ')[0])
  return workdir, step


def test_killed_runs_end_with_the_same_bits(place, unbroken):
  """The kills come while Python starts, at certain records, and at random."""
  rng = np.random.default_rng(7)
  workdir = place / 'killed'

  def one_life(condition, more_seconds):
    child = Child(place, workdir)
    child.wait_for(condition)
    time.sleep(more_seconds)
    child.kill()

  def seen(number):
    return lambda: count_records(workdir) >= number

  def ahead():
    """Returns whether there are records after the newest checkpoint."""
    saved = checkpoints(workdir, 'kd')
    return (
      saved
      and (workdir / 'metrics.jsonl').exists()
      and (saved[-1] < log.read_records(workdir / 'metrics.jsonl')[-1]['step'])
    )

  one_life(lambda: True, rng.uniform(0.0, 2.0))
  one_life(seen(6), rng.uniform(0.0, 0.05))  # during the teacher's row
  one_life(seen(RECORDS + 3), rng.uniform(0.0, 0.1))  # the student's
  for _ in range(3):  # a checkpoint may come just before the kill
    one_life(ahead, 0.0)
    if ahead():
      break
  assert ahead()
  assert 0 < checkpoints(workdir, 'kd')[-1] < STEPS
  code, err = Child(place, workdir).end()
  assert code == 0, err
  assert_same_end(workdir, unbroken)


@pytest.fixture(scope='module')
def stopped_twice(place, stopped):
  """(work directory, steps) of the same run, stopped again two steps later."""
  workdir = shutil.copytree(stopped[0], place / 'stopped_twice')
  calls = itertools.count()
  config = config_lib.load(place / 'config.py')
  config.checkpoint_seconds = 1000.0
  plan = study.plan(config)
  with pytest.raises(loop.Interrupted):
    study.run(plan, workdir, show=False, interrupted=lambda: next(calls) == 2)
  steps = checkpoints(workdir, 'kd')
  assert steps == [stopped[1], stopped[1] + 2]
  return workdir, steps


def test_sigterm_leaves_a_checkpoint_of_the_current_step(stopped):
  workdir, step = stopped
  assert 0 < step < STEPS - 2
  assert checkpoints(workdir, 'kd') == [step]
  assert not (workdir / 'rows/kd/0/result.json').exists()


def test_a_stopped_run_ends_with_the_same_bits(
  place, unbroken, stopped, tmp_path, capfd
):
  workdir = shutil.copytree(stopped[0], tmp_path / 'workdir')
  err = resume(place, workdir, capfd)
  assert 'damaged' not in err
  assert_same_end(workdir, unbroken)


@pytest.mark.parametrize('damage', ['shorter', 'other bytes', 'lost'])
def test_a_damaged_newest_checkpoint_is_reported_and_skipped(
  place, unbroken, stopped_twice, tmp_path, capfd, damage
):
  workdir = shutil.copytree(stopped_twice[0], tmp_path / 'workdir')
  newest = workdir / 'rows/kd/0/checkpoints0' / str(stopped_twice[1][-1])
  arrays = [p for p in newest.rglob('*') if p.is_file()]
  largest = max(arrays, key=lambda p: p.stat().st_size)
  content = largest.read_bytes()
  if damage == 'shorter':
    largest.write_bytes(content[: len(content) // 2])
  elif damage == 'other bytes':
    middle = len(content) // 2
    changed = bytes(255 - b for b in content[middle : middle + 64])
    largest.write_bytes(content[:middle] + changed + content[middle + 64 :])
  else:
    shutil.rmtree(newest / 'tree')
  err = resume(place, workdir, capfd)
  assert f'skipped a damaged checkpoint {newest}: ' in err
  assert_same_end(workdir, unbroken)


def test_a_phase_without_a_whole_checkpoint_is_refused_by_name(
  place, stopped, tmp_path, capfd
):
  workdir = shutil.copytree(stopped[0], tmp_path / 'workdir')
  folder = workdir / 'rows/kd/0/checkpoints0'
  for step in folder.iterdir():
    for file in step.rglob('*'):
      if file.is_file():
        os.truncate(file, 0)
  arguments = [f'--config={place}/config.py', f'--workdir={workdir}']
  assert main.run(arguments) == 2
  line = capfd.readouterr().err.splitlines()[-1]
  assert str(folder) in line
  assert 'delete it to begin the phase again' in line
