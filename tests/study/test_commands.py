"""Commands that are named first: run, report, evaluate, export and list."""

import subprocess
import sys

import pytest

from jaxdistill.study import arguments, listing


@pytest.mark.parametrize(
  ('command', 'flags'),
  [
    ('run c.py', '--config=c.py'),
    ('run c.py --workdir=w --row=a', '--config=c.py --workdir=w --row=a'),
    ('run c.py --distributed', '--config=c.py --distributed'),
    ('evaluate w', '--workdir=w --mode=evaluate'),
    ('evaluate w --config=c.py', '--workdir=w --mode=evaluate --config=c.py'),
    ('export w', '--workdir=w --mode=export'),
    (
      'export w --format=stablehlo --row=a',
      '--workdir=w --mode=export --format=stablehlo --row=a',
    ),
  ],
)
def test_a_command_means_the_flags_of_the_other_form(command, flags):
  assert arguments.parse(command.split()) == arguments.parse(flags.split())


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    (['rum', 'c.py'], "unknown command 'rum'; did you mean 'run'?"),
    (['exports', 'w'], "did you mean 'export'?"),
    (['c.py'], 'valid: distill, run, report, evaluate, export, predict, list'),
    (['distill', 'd', '--out=o'], 'required: --teacher'),
    (['distill', 'd', '--teacher=resnet8', '--out=o'], "got 'd'"),
    (['distill', 'd', '--cache_teacher=yep'], 'auto, yes, no or a whole'),
    (['list', 'network'], "did you mean 'networks'?"),
    (['run'], 'CONFIG'),
    (['run', 'c.py', '--format=stablehlo'], '--format=stablehlo'),
    (['report', 'nowhere'], 'nowhere: expected a work directory'),
    (['report', 'w', '--config.epochs=2'], 'no --config.KEY=VALUE'),
    (['evaluate', 'nowhere'], "no 'nowhere/config.py'"),
  ],
)
def test_a_wrong_command_is_refused_in_one_line(cli, command, words):
  code, out, err = cli.call(*command)
  assert (code, out) == (2, '')
  (line,) = err.splitlines()
  assert words in line


@pytest.mark.parametrize(
  ('kind', 'name', 'line'),
  [
    ('networks', 'resnet8', 'cifar_resnet(8): Returns a ResNet'),
    ('methods', 'kd', 'KD: soft targets'),
    ('schedules', 'cosine', 'Lowers the learning rate'),
    ('tasks', 'depth', 'Returns the task of depth'),
  ],
)
def test_names_are_listed_with_what_they_stand_for(cli, kind, name, line):
  code, out, _ = cli.call('list', kind)
  assert code == 0
  lines = dict(text.split(maxsplit=1) for text in out.splitlines())
  assert lines[name].startswith(line)


@pytest.mark.parametrize('kind', listing.KINDS)
def test_every_name_of_a_list_has_a_line_of_its_own(kind):
  lines = listing.names(kind)
  assert len(lines) > 2
  assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_a_reader_that_stops_early_is_no_error():
  program = (
    'import os, sys\n'
    'from jaxdistill import main\n'
    'reading, writing = os.pipe()\n'
    'os.close(reading)\n'
    'os.dup2(writing, 1)\n'
    "sys.exit(main.run(['list', 'schedules']))\n"
  )
  process = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  assert process.stderr == ''


def test_help_shows_both_forms_and_every_command(capsys):
  with pytest.raises(SystemExit) as ended:
    arguments.parse(['--help'])
  assert ended.value.code == 0
  text = capsys.readouterr().out
  assert 'jaxdistill COMMAND' in text and '--config=FILE' in text
  for name in arguments.COMMANDS:
    assert f'\n  {name} ' in text


@pytest.mark.parametrize(
  'command', [['run', '--help'], ['rum'], ['report', 'nowhere']]
)
def test_help_refusals_and_reports_do_not_import_jax(command):
  program = (
    'import sys\n'
    'from jaxdistill import main\n'
    'try:\n'
    f'  main.run({command!r})\n'
    'finally:\n'
    "  print('jax' in sys.modules)\n"
  )
  process = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=False
  )
  assert process.stdout.endswith('False\n')


def test_a_finished_run_has_a_report_that_can_be_made_again(cli, copied):
  page = copied / 'report.html'
  before = page.read_bytes()
  assert b'student alone' in before and b'<svg' in before
  page.unlink()
  code, out, err = cli.call('report', copied)
  assert (code, err) == (0, '')
  path, reference, kd = out.splitlines()
  assert path == str(page)
  assert reference == 'reference: student alone'
  assert kd.startswith('kd: UNCLEAR (')
  assert page.read_text().count('copied') and page.stat().st_size < 300 * 1024


@pytest.mark.parametrize(
  ('text', 'value'),
  [('yes', True), ('no', False), ('auto', 'auto'), ('4', 4)],
)
def test_stored_outputs_are_chosen_by_a_word_or_a_number(text, value):
  line = ['distill', 'd', '--teacher=t', '--out=o', f'--cache_teacher={text}']
  chosen = arguments.parse(line).cache_teacher
  assert chosen == value and type(chosen) is type(value)
