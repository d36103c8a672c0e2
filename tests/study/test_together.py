"""The key `together`: what a study writes, how it resumes, what it refuses."""

import json

import jax
import pytest

from jaxdistill import study
from jaxdistill.core import cpu
from jaxdistill.core.checks import UsageError
from jaxdistill.study import seed_runs
from jaxdistill.training import lanes
from jaxdistill.training import log as log_lib

TWO = ('--config.seeds=2', '--row=student alone')
TOGETHER = (*TWO, '--config.together=True')


def records(workdir):
  """Returns the records of the student, without those of the teacher."""
  found = log_lib.read_records(workdir / 'metrics.jsonl')
  chosen = [x for x in found if x['row'] == 'student alone']
  return sorted(chosen, key=lambda x: (x['seed'], x['step'], x['split']))


@pytest.fixture(scope='module')
def apart(cli, config, tmp_path_factory):
  """The work directory of two seeds, one after the other."""
  workdir = tmp_path_factory.mktemp('apart') / 'workdir'
  cli.fit(config, workdir, *TWO)
  return workdir


@pytest.fixture(scope='module')
def grouped(cli, config, tmp_path_factory):
  """The work directory of two seeds together."""
  workdir = tmp_path_factory.mktemp('together') / 'workdir'
  cli.fit(config, workdir, *TOGETHER)
  return workdir


def test_a_study_writes_the_same_files_together_and_apart(
  apart, grouped, workdirs
):
  paths = [sorted(workdirs.contents(folder)) for folder in (apart, grouped)]
  without_boards = [
    [path for path in some if not path.startswith('tensorboard')]
    for some in paths
  ]
  assert without_boards[0] == without_boards[1]
  one, other = (records(folder) for folder in (apart, grouped))
  assert len(one) == len(other) > 0
  for mine, theirs in zip(one, other):
    assert theirs.keys() == mine.keys()
    for key in ('loss', 'top1'):
      if key in mine:
        assert theirs[key] == pytest.approx(mine[key], rel=1e-3, abs=0.07)
  for seed in (0, 1):
    mine, theirs = (
      workdirs.result(folder, 'student alone', seed)
      for folder in (apart, grouped)
    )
    assert theirs['test']['last'] == pytest.approx(
      mine['test']['last'], abs=0.07
    )
    assert theirs.keys() == mine.keys()


def test_a_finished_row_does_not_depend_on_the_key(cli, config, grouped):
  out, _ = cli.fit(config, grouped, *TWO)
  assert 'student alone' in out
  cli.fit(config, grouped, *TWO, '--mode=evaluate')


def test_an_unfinished_row_is_refused_with_another_value(cli, config, grouped):
  line = cli.refused(config, grouped, '--config.seeds=3', '--row=student alone')
  assert 'together (there True, now None)' in line


def test_seeds_that_began_together_must_stay(cli, config, grouped):
  folder = grouped / 'rows/student-alone/together'
  folder.mkdir()
  record = folder / 'together.json'
  record.write_text(json.dumps({'runs': [0, 1, 2], 'diverged': {}}))
  try:
    line = cli.refused(config, grouped, *TOGETHER)
  finally:
    record.unlink()
    folder.rmdir()
  assert 'expected the seeds [0, 1, 2]' in line
  assert 'got [0, 1]' in line
  assert f'delete {folder}' in line


@pytest.mark.parametrize(
  ('devices', 'lazy', 'message'),
  [
    (4, False, 'together: expected one device, got 4; .*together=False'),
    (1, True, 'together: expected data in memory, .*together=False'),
  ],
)
def test_what_cannot_be_stacked_is_refused_in_one_line(
  devices, lazy, message, cli, config, monkeypatch
):
  plan = study.plan(cli.load(config, 'together=True'))
  monkeypatch.setattr(seed_runs.streaming, 'is_lazy', lambda split: lazy)
  with pytest.raises(UsageError, match=message):
    seed_runs.check_together(plan, devices)
  seed_runs.check_together(plan._replace(together=False), devices)


def test_a_refused_row_can_be_trained_apart_in_the_same_directory(
  cli, config, tmp_path, monkeypatch
):
  """States of other shapes are only seen when the row begins."""

  def refuse(phase, states):
    if len(states) > 1:
      raise UsageError(f'{phase}: set together=False')

  with monkeypatch.context() as patch:
    patch.setattr(lanes, 'check_shapes', refuse)
    places = f'--config={config}', f'--workdir={tmp_path}'
    code, _, err = cli.call(*places, *TOGETHER)
  assert code == 2
  assert err.endswith('set together=False\n')
  assert not (tmp_path / 'rows/student-alone').exists()
  out, _ = cli.fit(config, tmp_path, *TWO)
  assert 'student alone' in out


def test_two_gpus_are_not_taken_for_the_two_parts_of_a_processor(
  cli, config, monkeypatch
):
  plan = study.plan(cli.load(config, 'together=True'))
  monkeypatch.setenv(cpu.MARK, 'oneDNN, 2 devices')
  seed_runs.check_together(plan, 2)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with pytest.raises(UsageError, match='expected one device, got 2'):
    seed_runs.check_together(plan, 2)
