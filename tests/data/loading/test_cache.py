"""The cache of facts about data sets."""

import os
import resource

import numpy as np
import PIL.Image
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.loading import cache
from jaxdistill.data.sources import decoding, folder, tfds


@pytest.fixture
def home(tmp_path, monkeypatch):
  """An empty cache."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  return tmp_path / 'home'


class Compute:
  """A function that counts its calls."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return {'x': np.arange(1000), 'y': np.ones(3)}


@pytest.fixture
def compute():
  return Compute()


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'file'
  path.write_text('old ')
  return path


def ask(compute, file, what='labels'):
  """Asks the cache, and returns how often the function has been called."""
  arrays = cache.remembered(what, [file], compute)
  assert sorted(arrays) == ['x', 'y']
  np.testing.assert_array_equal(arrays['x'], np.arange(1000))
  np.testing.assert_array_equal(arrays['y'], np.ones(3))
  return compute.calls


def entries(home):
  return list((home / 'jaxdistill' / 'data').iterdir())


def test_the_same_result_is_computed_once(home, compute, file):
  assert [ask(compute, file), ask(compute, file)] == [1, 1]
  assert len(entries(home)) == 1


def test_another_description_or_a_changed_file_is_computed_again(
  home, compute, file, tmp_path
):
  assert ask(compute, file) == 1
  assert ask(compute, file, 'sizes') == 2
  file.write_text('new ')
  os.utime(file, ns=(0, 1))
  assert ask(compute, file) == 3
  os.utime(file, ns=(0, 2))
  assert ask(compute, file) == 4
  file.write_text('longer')
  os.utime(file, ns=(0, 2))
  assert ask(compute, file) == 5
  moved = file.rename(tmp_path / 'moved')
  assert ask(compute, moved) == 6


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_an_entry_cut_short_is_computed_again(home, compute, file, share):
  ask(compute, file)
  (entry,) = entries(home)
  content = entry.read_bytes()
  entry.write_bytes(content[: int(share * len(content))])
  assert ask(compute, file) == 2
  assert entry.read_bytes() == content
  assert ask(compute, file) == 2


def test_a_flipped_bit_is_noticed(home, compute, file):
  ask(compute, file)
  (entry,) = entries(home)
  content = bytearray(entry.read_bytes())
  content[len(content) // 3] ^= 0x10
  entry.write_bytes(content)
  assert ask(compute, file) == 2


def test_nothing_is_kept_if_the_folder_cannot_be_written(
  home, compute, file, tmp_path
):
  home.write_text('a file')
  assert [ask(compute, file), ask(compute, file)] == [1, 2]


def test_a_writer_that_fails_leaves_no_file(home, compute, file, monkeypatch):
  def fail(file, **arrays):
    file.write(b'half')
    raise OSError('no space left')

  with monkeypatch.context() as patch:
    patch.setattr(np, 'savez_compressed', fail)
    assert ask(compute, file) == 1
  assert entries(home) == []


def test_labels_of_tfds_are_read_once(home, data_dir, monkeypatch):
  def load():
    return tfds.tfds('tiny', data_dir=str(data_dir), stream=True)

  first = load()
  monkeypatch.setattr(tfds, 'CHUNK', 0)  # from now on, no record can be read
  second = load()
  for name, split in first.splits.items():
    np.testing.assert_array_equal(split['label'], second.splits[name]['label'])
  with pytest.raises(ValueError, match='must not be zero'):
    tfds.tfds('tiny', data_dir=str(data_dir), stream=False)


def test_sizes_of_image_files_are_read_once(home, tmp_path, monkeypatch):
  for i in range(20):
    path = tmp_path / 'data' / f'class{i % 2}' / f'{i}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(path)
  folder.folder(str(tmp_path / 'data'))

  def fail(path, upright):
    raise OSError('it was read again')

  monkeypatch.setattr(decoding, 'size', fail)
  assert folder.folder(str(tmp_path / 'data')).splits['train']
  os.utime(path, ns=(0, 0))
  with pytest.raises(UsageError, match='20 of 20 files'):
    folder.folder(str(tmp_path / 'data'))


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(
  data_dir, monkeypatch
):
  limits = []
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (10, 4000))
  monkeypatch.setattr(
    resource, 'setrlimit', lambda kind, pair: limits.append(pair)
  )
  tfds.tfds('tiny', data_dir=str(data_dir))
  ((soft, hard),) = limits
  assert soft > tfds.SPARE_FILES and hard == 4000
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (10, 20))
  with pytest.raises(UsageError, match='the system allows 20; raise the limit'):
    tfds.tfds('tiny', data_dir=str(data_dir))
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (-1, -1))
  tfds.tfds('tiny', data_dir=str(data_dir))
  assert len(limits) == 1
