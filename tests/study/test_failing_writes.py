"""Writes that fail end in one line that names the path."""

import errno
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.training import checkpoint


def refused(cli, config, workdir, *arguments):
  """The last line of a call that a failing write ends."""
  code, _, err = cli.call(
    f'--config={config}', f'--workdir={workdir}', *arguments
  )
  assert code == 2, err
  assert 'Traceback' not in err
  line = err.splitlines()[-1]
  assert line.startswith('jaxdistill: ')
  assert 'cannot be written' in line
  assert not list(pathlib.Path(workdir).rglob('*.partial'))
  return line


@pytest.mark.parametrize('kind', ['safetensors', 'stablehlo'])
@pytest.mark.parametrize('code', ['EROFS', 'ENOSPC', 'EDQUOT'])
def test_an_export_onto_a_disk_that_refuses_it(
  cli, config, copied, monkeypatch, kind, code
):
  number = getattr(errno, code)
  arguments = ('--mode=export', f'--format={kind}', '--row=kd')

  def fail(*paths):
    raise OSError(number, os.strerror(number), *map(str, paths))

  monkeypatch.setattr(os, 'replace', fail)
  line = refused(cli, config, copied, *arguments)
  assert f'{copied}/export/kd-0-last.{kind}: ' in line
  assert os.strerror(number) in line
  assert not list((copied / 'export').iterdir())


def test_a_program_without_its_description_is_not_left(
  cli, config, copied, monkeypatch
):
  replace = os.replace

  def fail(source, target):
    if str(target).endswith('.json'):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    replace(source, target)

  monkeypatch.setattr(os, 'replace', fail)
  arguments = ('--mode=export', '--format=stablehlo', '--row=kd')
  line = refused(cli, config, copied, *arguments)
  assert 'kd-0-last.stablehlo.json: ' in line
  assert not list((copied / 'export').iterdir())


@pytest.mark.parametrize(
  'blocked',
  [
    *('results.json', 'report.html', 'config.py', 'metrics.jsonl', 'rows'),
    'export',
  ],
)
def test_a_path_that_something_else_occupies_is_named(
  cli, config, copied, workdirs, blocked
):
  path = copied / blocked
  finished = workdirs.results(copied)
  if blocked == 'rows':
    path = copied / 'rows' / 'late'
    path.write_text('a file in place of the folder of a new row')
  elif blocked == 'export':
    path.write_text('a file in place of the folder')
  else:
    path.unlink()
    path.mkdir()
  arguments = ['--mode=export'] if blocked == 'export' else []
  rows = 'late' if blocked in ('rows', 'metrics.jsonl') else 'student alone,kd'
  line = refused(cli, f'{config}:{rows}', copied, *arguments)
  assert str(path) in line
  if blocked not in ('results.json', 'rows', 'metrics.jsonl'):
    assert workdirs.results(copied) == finished


def test_a_checkpoint_that_has_no_room_is_not_begun(tmp_path, monkeypatch):
  tree = {'a': jax.random.normal(jax.random.key(0), (100, 100))}
  store = checkpoint.Checkpoints(tmp_path / 'checkpoints0')
  store.save(1, tree, {})
  usage = shutil.disk_usage(tmp_path)._replace(free=39_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(UsageError, match=r'checkpoints0: .*No space left'):
    store.save(2, tree, {})
  store.close()
  assert [p.name for p in (tmp_path / 'checkpoints0').iterdir()] == ['1']


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
  resource = pytest.importorskip('resource')
  signal = pytest.importorskip('signal')
  tree = {'a': jax.random.normal(jax.random.key(0), (100, 100))}
  store = checkpoint.Checkpoints(tmp_path / 'checkpoints0')
  store.save(1, tree, {})
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
  try:
    for call in (lambda: store.save(2, tree, {}), store.close):
      with pytest.raises(UsageError, match=r'checkpoints0: .*File too large'):
        call()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  store = checkpoint.Checkpoints(tmp_path / 'checkpoints0')
  step, read, _, problems = store.load(tree)
  store.close()
  assert (step, problems) == (1, [])
  np.testing.assert_array_equal(read['a'], tree['a'])
