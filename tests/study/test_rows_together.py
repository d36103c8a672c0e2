"""Rows that differ only in fractions share one program, together or not."""

import pytest
from safetensors import numpy

from jaxdistill import study
from jaxdistill.study import run_groups
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.training import group_files, lanes, loop

ROWS = ('kd', 'late')
RUNS = [f'{row}, seed {seed}' for row in ROWS for seed in (0, 1)]
TWO = '--config.seeds=2'
TOGETHER = (TWO, '--config.together=True')


@pytest.fixture(scope='module')
def rows(config):
  """A config with two rows that differ only in the temperature."""
  return f'{config}:{",".join(ROWS)}'


@pytest.fixture(scope='module')
def apart(cli, rows, tmp_path_factory):
  """The work directory of both rows, one after the other, and their steps."""
  workdir = tmp_path_factory.mktemp('apart') / 'workdir'
  steps, jit = [], lanes._compiled
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      *(
        lanes,
        '_compiled',
        lambda step, *a: steps.append(step) or jit(step, *a),
      )
    )
    cli.fit(rows, workdir, TWO)
  return workdir, steps


def interrupted(plan, workdir, after, **options):
  """Runs a plan and stops it after so many calls of a step."""
  calls = iter(range(1000))
  with pytest.raises(loop.Interrupted):
    study.run(
      *(plan, workdir),
      **{'interrupted': lambda: next(calls) >= after, 'show': False, **options},
    )


def assert_same_models(workdir, other, rows=ROWS):
  """Checks that the students of two work directories have the same bits."""
  for row in rows:
    for seed in (0, 1):
      file = f'rows/{row}/{seed}/phase0.safetensors'
      one, two = (numpy.load_file(x / file) for x in (workdir, other))
      assert one.keys() == two.keys()
      assert all((one[key] == two[key]).all() for key in one)


def test_rows_and_seeds_share_one_step(apart):
  _, (teacher, *students) = apart
  assert len(students) == len(RUNS)
  assert len(set(students)) == 1
  assert teacher not in students


def test_rows_differ_although_they_share_a_program(apart):
  with pytest.raises(AssertionError):
    one, other = (
      numpy.load_file(apart[0] / f'rows/{row}/0/phase0.safetensors')
      for row in ROWS
    )
    assert all((one[key] == other[key]).all() for key in one)


def test_rows_together_are_rows_apart(cli, rows, apart, workdirs, tmp_path):
  cli.fit(rows, tmp_path, *TOGETHER)
  assert_same_models(tmp_path, apart[0])
  assert not list(tmp_path.glob('rows/*/together'))
  files = [
    [x for x in sorted(workdirs.contents(y)) if not x.startswith('tensorboard')]
    for y in (tmp_path, apart[0])
  ]
  assert files[0] == files[1]


def test_a_row_alone_has_the_program_of_the_study(cli, rows, apart, tmp_path):
  cli.fit(rows, tmp_path, TWO, '--row=late')
  assert_same_models(tmp_path, apart[0], ['late'])


def test_a_study_stopped_in_its_second_row_ends_with_the_same_bits(
  cli, rows, apart, tmp_path
):
  plan = study.plan(cli.load(rows, 'seeds=2'))
  interrupted(plan, tmp_path, 3 + 2 * 6 + 2)
  assert not (tmp_path / 'rows/late/0/phase0.safetensors').exists()
  assert (tmp_path / 'rows/late/0/checkpoints0').exists()
  study.run(plan, tmp_path, show=False)
  assert_same_models(tmp_path, apart[0])


def test_rows_that_began_together_continue_together(cli, rows, apart, tmp_path):
  plan = study.plan(cli.load(rows, 'seeds=2', 'together=True'))
  interrupted(plan, tmp_path, 6)
  folder = workdir_lib.group_folder(tmp_path, plan.rows[1])
  assert list(group_files.names(folder)) == RUNS
  line = cli.refused(rows, tmp_path, *TOGETHER, '--row=late')
  assert f'expected the runs {RUNS}' in line
  study.run(plan, tmp_path, show=False)
  assert not folder.exists()
  assert_same_models(tmp_path, apart[0])


def test_a_row_that_began_alone_continues_alone(cli, rows, apart, tmp_path):
  plan = study.plan(cli.load(rows, 'seeds=2', 'together=True'))
  interrupted(plan, tmp_path, 6, rows=['late'])
  late = workdir_lib.group_folder(tmp_path, plan.rows[2])
  assert group_files.names(late) == (0, 1)
  assert [
    [f'{run.row.label}{run.seed}' for run in group]
    for group in run_groups.groups(plan, tmp_path, plan.rows[1:])
  ] == [['late0', 'late1'], ['kd0', 'kd1']]
  study.run(plan, tmp_path, show=False)
  assert_same_models(tmp_path, apart[0])


def test_only_rows_that_differ_in_fractions_are_alike(cli, rows):
  plan = study.plan(cli.load(rows, 'together=True'))
  teacher, first, second = plan.rows
  other = second._replace(resolved={**second.resolved, 'batch_size': 8})
  changed = plan._replace(rows=(teacher, first, other))
  assert run_groups.alike(plan.rows) == [[teacher], [first, second]]
  assert run_groups.alike(changed.rows) == [[teacher], [first], [other]]
  assert run_groups.batches(plan, plan.rows) == [[teacher], [first, second]]
  assert run_groups.batches(changed, changed.rows) == [
    *([teacher], [first], [other])
  ]
