"""Columns in several files."""

import pickle

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.loading import stored

VALUES = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float16)


@pytest.fixture
def column(tmp_path, monkeypatch):
  """A column in four files, which hold three rows each."""
  monkeypatch.setattr(stored, '_FILE_BYTES', 3 * VALUES[0].nbytes)
  column = stored.StoredColumn(
    tmp_path / 'column', VALUES.shape, np.dtype(np.float16)
  )
  for number, rows in column.missing().items():
    column.write(number, VALUES[rows].astype(np.float32))
  return column


def test_rows_of_several_files_are_those_that_were_written(column):
  names = sorted(path.name for path in column.folder.iterdir())
  assert names == [f'{i:05d}.npy' for i in range(4)]
  assert len(column) == 10 and column.nbytes == VALUES.nbytes
  np.testing.assert_array_equal(column[:], VALUES)
  rows = np.array([9, 0, 4, 4, 8])
  for same in (column, pickle.loads(pickle.dumps(column))):  # as for workers
    np.testing.assert_array_equal(same[rows], VALUES[rows])


def test_only_files_that_do_not_exist_are_missing(column):
  assert not column.missing()
  (column.folder / '00001.npy').unlink()
  assert column.missing() == {1: range(3, 6)}
  (column.folder / '00003.npy').unlink()
  assert column.missing() == {1: range(3, 6), 3: range(9, 10)}


@pytest.mark.parametrize('content', [b'', b'nothing', None])
def test_a_damaged_file_is_named(column, content):
  path = column.folder / '00002.npy'
  if content is None:
    np.save(path, VALUES[:1])
  else:
    path.write_bytes(content)
  np.testing.assert_array_equal(column[:6], VALUES[:6])
  with pytest.raises(UsageError, match=r'00002\.npy: .*delete it') as error:
    column[:]
  assert '\n' not in str(error.value)
