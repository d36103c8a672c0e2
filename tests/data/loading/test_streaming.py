"""Streamed batches are the same as those of data in memory."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import PIL.Image
import pytest

from jaxdistill.core import cpu
from jaxdistill.core.checks import UsageError
from jaxdistill.data.loading import batches, streaming
from jaxdistill.data.sources import folder, images, tfds

SEEDS = (3, 0, 1)


@pytest.fixture(scope='module')
def lazy(data_dir):
  """40 images, so that an epoch has 5 steps of 8."""
  dataset = tfds.tfds('tiny', data_dir=str(data_dir), validation=0, stream=True)
  return dataset.splits['train']


@pytest.fixture(scope='module')
def expected(lazy):
  """Step -> the batch of data in memory."""
  arrays = {name: column[:] for name, column in lazy.items()}
  return batches.Batches(arrays, 8, SEEDS)


def check(batch, expected):
  assert set(batch) == set(expected)
  for name, array in expected.items():
    assert isinstance(batch[name], jax.Array)
    assert batch[name].dtype == array.dtype
    np.testing.assert_array_equal(batch[name], array)


@pytest.mark.parametrize(('workers', 'first'), [(0, 0), (0, 3), (2, 3)])
def test_batches_equal_those_in_memory(workers, first, lazy, expected):
  """For two epochs from any step, and for steps that are requested twice."""
  stream = streaming.StreamedBatches(lazy, 8, SEEDS, workers=workers)
  assert stream.steps_per_epoch == expected.steps_per_epoch == 5
  for step in [first, *range(first, first + 11), 27, 4]:
    check(stream(step), expected(step))
  stream.close()


def test_a_stream_can_jump_to_any_step(lazy, expected):
  stream = streaming.StreamedBatches(lazy, 8, SEEDS, workers=0)
  for start in (3, 12, 4):
    for step in range(start, start + 3):
      check(stream(step), expected(step))
  stream.close()


def test_batches_have_the_requested_sharding(lazy, expected):
  mesh = jax.make_mesh((1,), ('data',), (jax.sharding.AxisType.Auto,))
  sharding = jax.NamedSharding(mesh, jax.P('data'))
  stream = streaming.StreamedBatches(lazy, 8, SEEDS, sharding, workers=0)
  for step in (0, 1):
    batch = stream(step)
    check(batch, expected(step))
    assert {array.sharding for array in batch.values()} == {sharding}
  stream.close()


class PartlyLocal:
  """A sharding over four devices, two of which belong to this process."""

  def addressable_devices_indices_map(self, shape):
    assert shape == (8,)
    return {2: (slice(4, 6),), 3: (slice(6, 8),)}


def test_a_process_decodes_only_its_own_rows(lazy):
  assert streaming.own_rows(8, PartlyLocal()) == slice(4, 8)
  assert streaming.own_rows(8, None) == slice(0, 8)
  load = streaming._Load(lazy, 8, SEEDS, slice(4, 8))
  order = batches.epoch_order(SEEDS, 0, 40)[16:24]
  np.testing.assert_array_equal(load(2)['index'], order[4:])
  np.testing.assert_array_equal(load(2)['image'], lazy['image'][order[4:]])


def test_a_closed_stream_can_be_used_again(lazy, expected):
  stream = streaming.StreamedBatches(lazy, 8, SEEDS, workers=0)
  for step in (0, 1):
    check(stream(step), expected(step))
  stream.close()
  stream.close()
  for step in (1, 2):
    check(stream(step), expected(step))
  stream.close()


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(workers, tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
  for name in ('ant', 'bee'):
    (tmp_path / name).mkdir()
    for i in range(10):
      PIL.Image.fromarray(image).save(tmp_path / name / f'{i:02d}.png')
  split = folder.folder(str(tmp_path), validation=0, stream=True).splits[
    'train'
  ]
  # An image of the second batch, which is the first that a worker loads.
  row = batches.epoch_order(SEEDS, 0, 16)[4]
  wrong = pathlib.Path(split['image'].files.name(row))
  wrong.write_bytes(wrong.read_bytes()[:-50])
  stream = streaming.StreamedBatches(split, 4, SEEDS, workers=workers)
  stream(0)
  with pytest.raises(
    UsageError, match=f'1 of 4 images .* {wrong}; replace it by an intact'
  ):
    stream(1)
  stream.close()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_size': 41}, 'batch_size: .* from 1 to 40, .* got 41'),
    ({'workers': -1}, 'workers: .*got -1'),
  ],
)
def test_wrong_sizes_are_rejected(options, message, lazy):
  with pytest.raises(UsageError, match=message):
    streaming.StreamedBatches(
      lazy, **{'batch_size': 8, 'seeds': SEEDS, **options}
    )


class Space(NamedTuple):
  """The free space of a file system."""

  f_bavail: int
  f_frsize: int = 1 << 20


def test_batches_that_shared_memory_cannot_hold_are_rejected(
  monkeypatch, tmp_path
):
  """A batch has 1.5 MiB and some labels."""
  image = images.LazyImages(None, np.arange(9), (512, 512, 3))
  columns = {'image': image, 'label': np.zeros(9, np.int32)}
  monkeypatch.setattr(streaming, 'SHARED', str(tmp_path))
  monkeypatch.setattr(os, 'statvfs', lambda path: Space(25))
  streaming.StreamedBatches(columns, 2, SEEDS, workers=0)
  streaming.StreamedBatches(columns, 2, SEEDS, workers=4)
  with pytest.raises(
    UsageError, match=r'at most 4, .* 25 MiB free, got 5, .* 30 MiB'
  ):
    streaming.StreamedBatches(columns, 2, SEEDS, workers=5)
  monkeypatch.setattr(streaming, 'SHARED', str(tmp_path / 'missing'))
  streaming.StreamedBatches(columns, 2, SEEDS, workers=5)


def test_one_core_is_left_to_the_main_process(monkeypatch, lazy):
  monkeypatch.setattr(cpu, 'cores', lambda: 4)
  assert streaming.StreamedBatches(lazy, 8, SEEDS)._workers == 3
  monkeypatch.undo()
  if hasattr(os, 'sched_getaffinity'):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {3, 7})
    assert cpu.cores() == 2


@pytest.mark.skipif(
  not pathlib.Path(streaming.SHARED).is_dir(),
  reason='needs the folder of shared memory',
)
def test_workers_hold_the_documented_number_of_batches(tmp_path):
  for i in range(20):
    file = tmp_path / f'class{i % 2}' / f'{i}.png'
    file.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(np.full((64, 64, 3), i, np.uint8)).save(file)
  split = folder.folder(str(tmp_path), validation=0, stream=True).splits
  before = set(os.listdir(streaming.SHARED))
  stream = streaming.StreamedBatches(split['train'], 8, SEEDS, workers=1)
  for step in range(3):
    stream(step)

  def count_held():
    paths = set(os.listdir(streaming.SHARED)) - before
    files = [pathlib.Path(streaming.SHARED, path) for path in paths]
    sizes = [file.stat().st_size for file in files if file.exists()]
    return sum(size >= 8 * 64 * 64 * 3 for size in sizes)

  until = time.monotonic() + 20
  while count_held() < streaming.HELD and time.monotonic() < until:
    time.sleep(0.05)
  time.sleep(0.2)  # time for further batches to appear
  assert count_held() == streaming.HELD
  stream.close()


def test_a_split_in_memory_is_not_lazy(lazy):
  assert streaming.is_lazy(lazy)
  assert not streaming.is_lazy({k: v[:] for k, v in lazy.items()})


KILLED = """
import os, pathlib, signal, sys
from jaxdistill.data.loading import streaming
from jaxdistill.data.sources import folder

if __name__ == '__main__':
  data = folder.folder(sys.argv[1], validation=0, stream=True)
  source = streaming.StreamedBatches(data.splits['train'], 8, (0,), workers=1)
  for step in range(3):
    source(step)
  tasks = pathlib.Path('/proc/self/task').glob('*/children')
  children = [int(pid) for task in tasks for pid in task.read_text().split()]
  for pid in children:
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
  for step in range(3, 40):
    source(step)
  print(*children, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/task').exists(), reason='needs /proc'
)
def test_workers_outlive_signals_but_not_the_main_process(tmp_path):
  for i in range(20):
    file = tmp_path / 'images' / f'class{i % 2}' / f'{i}.png'
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(file)
  script = tmp_path / 'script.py'
  script.write_text(KILLED)
  command = [sys.executable, str(script), str(tmp_path / 'images')]
  ended = subprocess.run(command, capture_output=True, text=True, check=False)
  assert ended.returncode == -signal.SIGKILL, ended.stderr
  workers = [pathlib.Path('/proc', pid) for pid in ended.stdout.split()]
  assert workers
  until = time.monotonic() + 20
  while any(w.exists() for w in workers) and time.monotonic() < until:
    time.sleep(0.1)
  assert not any(w.exists() for w in workers)
