"""What is remembered of data sets between runs."""

import os
import resource

import numpy as np
import PIL.Image
import pytest

from jaxdistill.data import cache, folder, tfds
from jaxdistill.types import UsageError


@pytest.fixture
def home(tmp_path, monkeypatch):
  """An empty cache."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  return tmp_path / 'home'


class Find:
  """Counts how often it is called."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return {'x': np.arange(1000), 'y': np.ones(3)}


@pytest.fixture
def find():
  return Find()


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'file'
  path.write_text('some')
  return path


def ask(find, file, what='labels'):
  found = cache.remembered(what, [file], find)
  assert sorted(found) == ['x', 'y']
  np.testing.assert_array_equal(found['x'], np.arange(1000))
  np.testing.assert_array_equal(found['y'], np.ones(3))
  return find.calls


def entries(home):
  return list((home / 'jaxdistill' / 'data').iterdir())


def test_the_same_is_found_once(home, find, file):
  assert [ask(find, file), ask(find, file)] == [1, 1]
  assert len(entries(home)) == 1


def test_another_question_or_a_changed_file_is_looked_at_anew(
  home, find, file, tmp_path
):
  assert ask(find, file) == 1
  assert ask(find, file, 'sizes') == 2
  file.write_text('more')
  os.utime(file, ns=(0, 1))
  assert ask(find, file) == 3
  os.utime(file, ns=(0, 2))
  assert ask(find, file) == 4
  file.write_text('longer')
  os.utime(file, ns=(0, 2))
  assert ask(find, file) == 5
  moved = file.rename(tmp_path / 'moved')
  assert ask(find, moved) == 6


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_an_entry_cut_short_is_made_anew(home, find, file, share):
  ask(find, file)
  (entry,) = entries(home)
  content = entry.read_bytes()
  entry.write_bytes(content[: int(share * len(content))])
  assert ask(find, file) == 2
  assert entry.read_bytes() == content
  assert ask(find, file) == 2


def test_a_bit_that_fell_over_is_noticed(home, find, file):
  ask(find, file)
  (entry,) = entries(home)
  content = bytearray(entry.read_bytes())
  content[len(content) // 3] ^= 0x10
  entry.write_bytes(content)
  assert ask(find, file) == 2


def test_without_a_place_to_write_nothing_is_remembered(
  home, find, file, tmp_path
):
  home.write_text('no folder')
  assert [ask(find, file), ask(find, file)] == [1, 2]


def test_a_writer_that_fails_leaves_nothing(home, find, file, monkeypatch):
  def fail(file, **arrays):
    file.write(b'half')
    raise OSError('no space left')

  with monkeypatch.context() as patch:
    patch.setattr(np, 'savez_compressed', fail)
    assert ask(find, file) == 1
  assert entries(home) == []


def test_labels_of_tfds_are_read_once(home, data_dir, monkeypatch):
  def made():
    return tfds.tfds('tiny', data_dir=str(data_dir), stream=True)

  first = made()
  monkeypatch.setattr(tfds, 'CHUNK', 0)  # no record can be read any more
  second = made()
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
  monkeypatch.setattr(folder, '_size', lambda path: (0, 0))
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
  with pytest.raises(UsageError, match='the system allows 20; let it allow'):
    tfds.tfds('tiny', data_dir=str(data_dir))
  monkeypatch.setattr(resource, 'getrlimit', lambda kind: (-1, -1))
  tfds.tfds('tiny', data_dir=str(data_dir))
  assert len(limits) == 1
