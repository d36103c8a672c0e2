"""Resuming: what a work directory holds is not trained again."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxdistill import study
from jaxdistill.core import cpu
from jaxdistill.networks.weights import files
from jaxdistill.study import workdir as workdir_lib


@pytest.mark.parametrize('mode', ['evaluate', 'export'])
def test_unfinished_rows_are_named(cli, config, tmp_path, mode):
  line = cli.refused(config, tmp_path / 'workdir', f'--mode={mode}')
  assert 'not finished' in line
  assert "'kd' seed 0" in line
  assert '--mode=fit' in line
  assert not (tmp_path / 'workdir').exists()


def test_one_row_is_trained_and_shown_with_all_finished_rows(
  cli, workdirs, config, copied
):
  three = f'{config}:student alone,late,kd'
  shutil.rmtree(copied / 'rows/kd')
  before = workdirs.trained_files(copied)
  out, _ = cli.fit(three, copied, '--row=late')
  assert [r['label'] for r in workdirs.results(copied)['rows']] == [
    *('teacher', 'student alone', 'late')
  ]
  assert out.count('| late') == 1
  after = workdirs.trained_files(copied)
  assert after.keys() - before.keys() == {
    f'rows/late/0/{name}' for name in ('phase0.safetensors', 'result.json')
  }
  written = cli.fit(three, copied, '--mode=export', '--row=late')[0].split()
  assert [pathlib.Path(path).name for path in written] == [
    'late-0-last.safetensors',
    'late-0-best.safetensors',
  ]
  line = cli.refused(three, copied, '--row=lat')
  assert "'lat'" in line
  assert "did you mean 'late'" in line
  line = cli.refused(three, copied, '--mode=export', '--row=teacher')
  assert "unknown row 'teacher' (valid: student alone, late, kd)" in line


@pytest.mark.parametrize('lost', ['kd', 'teacher'])
def test_evaluation_of_a_row_needs_it_and_its_teacher(
  cli, workdirs, config, copied, lost
):
  (copied / f'rows/{lost}/0/phase0.safetensors').unlink()
  before = workdirs.contents(copied)
  line = cli.refused(config, copied, '--mode=evaluate', '--row=kd')
  assert f'not finished: {lost!r} seed 0' in line
  assert workdirs.contents(copied) == before


@pytest.mark.parametrize('mode', ['fit', 'evaluate', 'export'])
def test_one_row_does_not_mix_two_configs_in_the_results(
  cli, workdirs, config, copied, mode
):
  before = workdirs.contents(copied)
  arguments = f'--mode={mode}', '--row=kd'
  change = '--config.methods.student alone.batch_size=8'
  line = cli.refused(config, copied, *arguments, change)
  assert 'batch_size (there 16, now 8)' in line
  assert workdirs.contents(copied) == before


def test_a_row_depends_on_the_content_of_its_files_not_on_their_place(
  cli, config, tmp_path, monkeypatch
):
  file = tmp_path / 'number.json'
  moved = tmp_path / 'moved.json'
  monkeypatch.setenv('HOME', str(tmp_path))
  base = cli.load(config).to_dict()
  resolved = []
  for place, content in (
    (file, '2'),
    (file, '3'),
    (moved, '2'),
    ('~/moved.json', '2'),
  ):
    moved.write_text(content)
    file.write_text(content)
    method = {'name': 'network_for_tests:from_file', 'temperature': str(place)}
    plan = study.plan({**base, 'methods': {'row': method}})
    resolved.append(workdir_lib.without_places(plan.rows[-1].resolved))
  two, three, *moved = resolved
  assert moved == [two, two]
  (differing,) = {key for key in two if two[key] != three[key]}
  assert differing == 'checksums.method.temperature'


def test_a_finished_run_prints_its_table_again_and_trains_nothing(
  cli, workdirs, config, finished, copied
):
  before = workdirs.trained_files(copied)
  out, _ = cli.fit(config, copied)
  assert out == finished[1]
  assert workdirs.trained_files(copied) == before
  assert len(before) == 7  # 3 rows, and metrics.jsonl


def test_a_directory_keeps_the_config_and_overrides_it_was_made_with(
  cli, workdirs, config, finished, copied
):
  code, out, err = cli.call(f'--workdir={copied}')
  assert code == 0, err
  labels = [line.split('|')[1] for line in out.splitlines()]
  assert labels == [line.split('|')[1] for line in finished[1].splitlines()]
  cli.fit(config, copied, '--config.seeds=(0, 5)')
  before = workdirs.trained_files(copied)
  code, out, err = cli.call(f'--workdir={copied}', '--mode=export')
  assert code == 0, err
  assert 'kd-5-last.safetensors' in out
  assert workdirs.trained_files(copied) == before


def test_an_added_seed_is_trained_and_nothing_else(
  cli, workdirs, config, finished, copied
):
  before = workdirs.trained_files(copied)
  out, _ = cli.fit(config, copied, '--config.seeds=2')
  after = workdirs.trained_files(copied)
  new = {k for k in after if k not in before}
  assert new == {
    f'rows/{name}/1/{file}'
    for name in ('student-alone', 'kd')
    for file in ('phase0.safetensors', 'result.json')
  }
  for key in before:
    if key != 'metrics.jsonl':
      assert after[key] == before[key]
  old_lines = before['metrics.jsonl'][0].splitlines()
  assert after['metrics.jsonl'][0].splitlines()[: len(old_lines)] == old_lines
  assert '±' in out
  first, second = (
    files.load_tree(copied / f'rows/kd/{s}/phase0.safetensors')[0]['student']
    for s in (0, 1)
  )
  kernels = [m['params']['head']['linear']['kernel'] for m in (first, second)]
  assert not np.array_equal(*kernels)


def test_an_added_row_is_trained_and_nothing_else(
  cli, workdirs, config, copied
):
  before = workdirs.trained_files(copied)
  out, _ = cli.fit(f'{config}:student alone,late,kd', copied)
  after = workdirs.trained_files(copied)
  assert {k for k in after if k not in before} == {
    'rows/late/0/phase0.safetensors',
    'rows/late/0/result.json',
  }
  place = [out.index(f'| {x} ') for x in ('student alone', 'late', 'kd')]
  assert place == sorted(place)


@pytest.mark.parametrize('mode', ['fit', 'evaluate', 'export'])
@pytest.mark.parametrize(
  ('override', 'words'),
  [
    ('epochs=3', ["'student alone'", 'epochs (there 2, now 3)']),
    ('methods.kd.temperature=9', ["'kd'", 'method.temperature', '2.0', '9']),
    ('student.width=4', ['student.width (there 2, now 4)']),
    ('teacher.training.epochs=2', ["'teacher'", 'there 1, now 2']),
    ('evaluate_every=2', ['evaluate_every (there 1, now 2)']),
  ],
)
def test_another_config_is_refused_with_the_keys_that_differ(
  cli, workdirs, config, finished, mode, override, words
):
  before = workdirs.contents(finished[0])
  line = cli.refused(
    config, finished[0], f'--mode={mode}', f'--config.{override}'
  )
  for word in words:
    assert word in line
  assert str(finished[0]) in line
  assert workdirs.contents(finished[0]) == before


def test_a_config_that_differs_in_many_keys_is_refused_in_a_short_line(
  cli, config, finished
):
  changes = ('epochs=3', 'batch_size=8', 'student.width=4', 'subset=validation')
  line = cli.refused(
    config, finished[0], *(f'--config.{change}' for change in changes)
  )
  assert 'batch_size (there 16, now 8), ' in line
  assert ' other keys; choose another work directory' in line
  assert len(line) < 400 + len(str(finished[0]))


def test_a_key_that_changes_no_finished_row_is_accepted(
  cli, workdirs, config, copied
):
  before = workdirs.trained_files(copied)
  cli.fit(
    f'{config}:student alone,kd',
    copied,
    '--config.log_every=2',
    '--config.checkpoint_seconds=5',
  )
  assert workdirs.trained_files(copied) == before
  # A row that has not been trained yet may be anything.
  cli.fit(
    f'{config}:student alone,late', copied, '--config.methods.late.epochs=1'
  )
  assert {
    k: workdirs.trained_files(copied)[k] for k in before if 'rows' in k
  } == {k: v for k, v in before.items() if 'rows' in k}


def test_a_lost_result_is_measured_again_without_training(
  cli, workdirs, config, copied
):
  before = workdirs.trained_files(copied)
  lost = copied / 'rows/kd/0/result.json'
  lost.unlink()
  cli.fit(config, copied)
  after = workdirs.trained_files(copied)
  key = 'rows/kd/0/result.json'
  assert after.pop(key)[0] == before.pop(key)[0]
  assert after == before


def test_a_lost_student_is_trained_again(cli, config, copied):
  lost = copied / 'rows/kd/0/phase0.safetensors'
  before = files.load_tree(lost)[0]
  lost.unlink()
  out, err = cli.fit(config, copied, '--mode=evaluate')
  assert err == "not finished: 'kd' seed 0\n"
  assert 'student alone' in out
  assert '| kd' not in out
  cli.fit(config, copied)
  jax.tree.map(np.testing.assert_array_equal, files.load_tree(lost)[0], before)


@pytest.mark.parametrize(
  'file', ['rows/kd/0/phase0.safetensors', 'rows/kd/0/result.json']
)
def test_a_damaged_file_is_named(cli, config, copied, file):
  (copied / file).write_text('{')
  assert file in cli.refused(config, copied, '--mode=evaluate')


def test_a_directory_that_another_run_uses_is_refused(cli, config, copied):
  with workdir_lib.locked(copied):
    line = cli.refused(config, copied)
  assert 'another run is using' in line
  assert str(copied) in line
  cli.fit(config, copied)


def test_a_run_with_other_cpu_settings_says_which_argument_to_give(
  cli, config, finished, copied, monkeypatch
):
  monkeypatch.setenv(cpu.MARK, 'oneDNN, 2 devices')
  line = cli.refused(config, copied, '--config.seeds=2')
  assert 'started without --fast_cpu: leave out --fast_cpu' in line
  for path in copied.glob('rows/*/row.json'):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'fast_cpu': 'oneDNN'}))
  line = cli.refused(config, copied, '--config.seeds=2')
  assert "(there 'oneDNN', now 'oneDNN, 2 devices')" in line
  monkeypatch.delenv(cpu.MARK)
  line = cli.refused(config, copied, '--config.seeds=2')
  assert 'started with --fast_cpu: give --fast_cpu, or choose' in line
  assert cli.fit(config, copied, '--config.seeds=2', '--mode=export')[0]
