"""Writing files: completely or not at all, with the path in the message."""

import errno
import os
import pathlib
import stat

import pytest

from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError


def test_a_file_is_written_into_a_folder_that_is_made(tmp_path):
  path = tmp_path / 'a' / 'b' / 'file.txt'
  writing.write(path, 'größer')
  assert path.read_text(encoding='utf-8') == 'größer'
  writing.write(path, b'\x00\xff')
  assert path.read_bytes() == b'\x00\xff'
  assert [p.name for p in path.parent.iterdir()] == ['file.txt']


@pytest.mark.parametrize('code', ['ENOSPC', 'EROFS', 'EDQUOT', 'EIO'])
@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(
  tmp_path, monkeypatch, code, call
):
  path = tmp_path / 'file.txt'
  writing.write(path, 'before')
  number = getattr(errno, code)

  def fail(*arguments):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(os, call, fail)
  with pytest.raises(UsageError) as error:
    writing.write(path, 'after')
  line = f'{path}: cannot be written ({os.strerror(number)})'
  assert str(error.value) == line
  assert path.read_text() == 'before'
  assert [p.name for p in tmp_path.iterdir()] == ['file.txt']


def test_a_path_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UsageError, match=r'file/x: .*(Not a directory|exists)'):
    writing.write(tmp_path / 'file' / 'x', '')
  (tmp_path / 'folder').mkdir()
  with pytest.raises(UsageError, match=r'folder: .*not a regular file'):
    writing.write(tmp_path / 'folder', '')
  assert sorted(p.name for p in tmp_path.iterdir()) == ['file', 'folder']


def test_a_limit_of_the_size_of_files_is_named(tmp_path):
  resource = pytest.importorskip('resource')
  signal = pytest.importorskip('signal')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
  try:
    with pytest.raises(UsageError, match='File too large'):
      writing.write(tmp_path / 'x', 'x' * 101)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  assert not list(tmp_path.iterdir())


def test_errors_of_other_kinds_are_not_hidden():
  with pytest.raises(ZeroDivisionError), writing.reported('x'):
    print(1 // 0)
  with pytest.raises(ValueError, match='other'), writing.reported('x'):
    raise ValueError('other')


def test_the_errors_of_tensorstore_are_understood():
  text = "OUT_OF_RANGE: Failed [tensorstore_spec='{}'] [os_error_code='28']"
  with pytest.raises(UsageError) as error, writing.reported(pathlib.Path('x')):
    raise ValueError(text)
  assert str(error.value) == 'x: cannot be written (No space left on device)'


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_never_replaced(tmp_path, make):
  path = tmp_path / 'x'
  make(path)
  kind = stat.S_IFMT(path.stat().st_mode)
  with pytest.raises(UsageError, match='is not a regular file'):
    writing.write(path, 'content')
  assert stat.S_IFMT(path.stat().st_mode) == kind
  assert [p.name for p in tmp_path.iterdir()] == ['x']


def test_a_link_stays_a_link(tmp_path):
  (tmp_path / 'file').write_text('old')
  (tmp_path / 'link').symlink_to('file')
  writing.write(tmp_path / 'link', 'new')
  assert (tmp_path / 'link').is_symlink()
  assert (tmp_path / 'file').read_text() == 'new'
