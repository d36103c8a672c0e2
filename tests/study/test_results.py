"""Results: what a finished run prints, writes and measures again."""

import json
import re

import jax

from jaxdistill.tasks import evaluation


def test_the_teacher_is_trained_and_its_accuracy_printed_first(
  workdirs, finished
):
  workdir, out, err = finished
  lines = err.splitlines()
  accuracy = 100 * workdirs.result(workdir, 'teacher')['test']['last']['top1']
  teacher = lines.index(f'teacher: top1 {accuracy:.2f}% on test')
  assert [n for n, line in enumerate(lines) if 'kd' in line] == [teacher + 2]
  lines = [line for line in out.splitlines() if line.startswith('|')]
  labels = [line.split('|')[1].strip() for line in lines]
  assert labels[-3:] == ['teacher', 'student alone', 'kd']
  assert f'{accuracy:.2f}' in lines[-3]


def test_results_hold_their_config_versions_device_and_date(workdirs, finished):
  rows = workdirs.results(finished[0])['rows']
  assert [row['label'] for row in rows] == [
    'teacher',
    'student alone',
    'kd',
  ]
  kd = rows[2]
  assert kd['config']['method']['temperature'] == 2.0
  assert kd['config']['optimizer']['momentum'] == 0.9  # a default
  assert list(kd['seeds']) == ['0']
  assert kd['seeds']['0']['steps'] == 6
  assert set(kd['seeds']['0']['test']) == {'last', 'best'}
  run = kd['seeds']['0']
  assert 0 < run['nonzero'] <= run['parameters']
  assert run['versions']['jax'] == jax.__version__
  assert run['device'].startswith('cpu')
  assert re.fullmatch(r'\d{4}-\d\d-\d\d', run['date'])


def test_a_second_evaluation_gives_the_numbers_of_the_fit(
  cli, workdirs, config, copied, monkeypatch
):
  """The predictions of the teacher are computed once for all rows."""
  calls = []
  answer = evaluation.answer

  def counted(*arguments, **options):
    calls.append(arguments)
    return answer(*arguments, **options)

  monkeypatch.setattr(evaluation, 'answer', counted)
  before = workdirs.result(copied, 'kd')
  file = copied / 'rows/kd/0/result.json'
  wrong = {**before, 'test': {'last': {'top1': 2.0}}, 'agreement': 2.0}
  file.write_text(json.dumps(wrong))
  out, _ = cli.fit(config, copied, '--mode=evaluate')
  assert json.loads(file.read_text()) == before
  assert workdirs.result(copied, 'kd') == before
  assert '200.00' not in out
  rows = json.loads((copied / 'results.json').read_text())['rows']
  students = [r for r in rows if r['label'] != 'teacher']
  assert len(calls) == 1 + sum(len(r['seeds']) for r in students)


def test_a_method_that_trains_another_role_leaves_no_result(
  cli, config, tmp_path, monkeypatch
):
  workdir = tmp_path / 'workdir'
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'elsewhere.py').write_text(
    'import jaxdistill as jd\n\n\ndef method(recipe):\n'
    "  return jd.methods.supervised(recipe, student='teacher')\n"
  )
  arguments = [f'--config={config}:student alone', f'--workdir={workdir}']
  override = '--config.methods.student alone.name=elsewhere:method'
  code, _, err = cli.call(*arguments, override)
  assert code == 2
  assert "row 'student alone': the method does not train the 'student'" in err
  assert not (workdir / 'rows/student-alone/0/result.json').exists()


def test_without_a_validation_split_no_epoch_is_best(cli, config, tmp_path):
  out, _ = cli.fit(
    f'{config}:one',
    tmp_path / 'workdir',
    '--config.data.validation=0',
    '--config.epochs=1',
    '--config.teacher.training.batch_size=64',
  )
  teacher, student = (
    [cell.strip() for cell in line.split('|')[1:-1]]
    for line in out.splitlines()
    if line.startswith(('| teacher', '| kd'))
  )
  assert teacher[0:5:3] == ['teacher', '-']
  assert student[0:5:3] == ['kd', '-']
  assert float(student[2]) >= 0
  assert teacher[4] == '-'
