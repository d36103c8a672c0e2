"""A user's own file: its networks, data, methods and mistakes."""

import re

import pytest

from jaxdistill import networks

OPTIMIZER = 'methods.kd.encoder_optimizer'


def test_a_network_data_and_a_method_come_from_a_users_file(
  cli, workdirs, config, tmp_path, in_user_folder
):
  workdir = tmp_path / 'workdir'
  cli.fit(
    f'{config}:one',
    workdir,
    '--config.student.name=mine_for_tests:net',
    '--config.student.width=3',
    '--config.data.name=mine_for_tests:data',
    '--config.method.name=mine_for_tests:method',
    '--config.method.power=1.5',
  )
  row = workdirs.results(workdir)['rows'][1]
  assert row['label'] == 'mine_for_tests:method'
  assert row['config']['method']['power'] == 1.5
  assert row['config']['student']['width'] == 3
  assert row['config']['data']['size'] == 48
  assert row['seeds']['0']['steps'] == 6
  cli.fit(
    f'{config}:one',
    workdir,
    '--mode=export',
    '--config.student.name=mine_for_tests:net',
    '--config.student.width=3',
    '--config.data.name=mine_for_tests:data',
    '--config.method.name=mine_for_tests:method',
    '--config.method.power=1.5',
  )
  exported = workdir / 'export/mine_for_tests-method-0-last.safetensors'
  kernel = networks.load(exported).variables['params']['stem']['conv']['kernel']
  assert kernel.shape == (3, 3, 1, 3)


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    (['student.name=no_such_file:net'], ["'no_such_file:net'"]),
    (['student.name=broken_for_tests:f'], ['SyntaxError', 'line 1']),
    (['student.name=mine_for_tests:nett'], ["'nett'", 'mine_for_tests']),
    (['student.name=:net'], ["':net'"]),
    (
      ['student.name=mine_for_tests:net', 'student.widht=3'],
      ["'widht'", "did you mean 'width'"],
    ),
    (
      ['methods.kd.name=mine_for_tests:method', 'methods.kd.extra={1,2}'],
      ['methods.kd.extra', '{1, 2}'],
    ),
    (
      ['methods.kd.name=mine_for_tests:method', f'{OPTIMIZER}="sgd"'],
      ["'sgd'", 'write methods.kd.encoder_optimizer.name=sgd'],
    ),
    (
      ['methods.kd.name=mine_for_tests:method', f'{OPTIMIZER}=3'],
      ['methods.kd.encoder_optimizer', "a section {'name': ...} or None"],
    ),
    (
      [
        'methods.kd.name=mine_for_tests:method',
        f"{OPTIMIZER}={{'name':'sgdd','schedule':{{'name':'cosine'}}}}",
      ],
      ['methods.kd.encoder_optimizer.name', "did you mean 'sgd'"],
    ),
    (
      [
        'methods.kd.name=mine_for_tests:method',
        f"{OPTIMIZER}={{'name':'sgd','momentun':0.5}}",
      ],
      ['methods.kd.encoder_optimizer', "'momentun'", "did you mean 'momentum'"],
    ),
    (
      [
        'methods.kd.name=mine_for_tests:method',
        f"{OPTIMIZER}={{'name':'sgd','schedule':{{'name':'cosine','rat':1}}}}",
      ],
      ['encoder_optimizer.schedule', "'rat'", "did you mean 'rate'"],
    ),
    (
      [
        'methods.kd.name=mine_for_tests:method',
        f"{OPTIMIZER}={{'name':'sgd'}}",
      ],
      ["methods.kd.encoder_optimizer: 'sgd' needs the key 'schedule'"],
    ),
  ],
)
def test_a_mistake_in_or_about_a_users_file_is_refused(
  cli, config, tmp_path, in_user_folder, overrides, words
):
  line = cli.refused(
    config, tmp_path / 'workdir', *(f'--config.{o}' for o in overrides)
  )
  for word in words:
    assert word in line
  assert not (tmp_path / 'workdir').exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
  cli, config, tmp_path, in_user_folder
):
  workdir = tmp_path / 'workdir'
  arguments = [
    f'--config={config}:student alone',
    f'--workdir={workdir}',
    '--config.epochs=4',
    '--config.checkpoint_seconds=0',
    '--config.methods.student alone.schedule={"name":"mine_for_tests:bomb"}',
  ]
  code, out, err = cli.call(*arguments)
  assert code == 1
  assert out == ''
  line = err.splitlines()[-1]
  match = re.search(
    r"not finite at step (\d+) of phase 'supervised'; "
    r'last good checkpoint of this phase: (\d+); a lower rate .* may help$',
    line,
  )
  assert match, line
  step, last = map(int, match.groups())
  # The rate is 1e30 from the fifth step on.
  assert 4 <= last < step <= 6
  row_folder = workdir / 'rows/student-alone/0'
  kept = [int(p.name) for p in (row_folder / 'checkpoints0').glob('[0-9]*')]
  assert max(kept) == last
  assert not (row_folder / 'result.json').exists()
  again, _, err = cli.call(*arguments)
  assert again == 1
  assert f'not finite at step {step} ' in err


def test_a_run_whose_measured_loss_is_not_finite_is_not_finished(
  cli, config, tmp_path, in_user_folder
):
  """The last of 12 steps makes the weights huge; all losses are finite."""
  workdir = tmp_path / 'workdir'
  schedule = '{"name": "mine_for_tests:bomb", "at": 11}'
  arguments = [
    f'--config={config}:student alone',
    f'--workdir={workdir}',
    '--config.epochs=4',
    f'--config.methods.student alone.schedule={schedule}',
  ]
  for _ in range(2):  # the second call finds the trained weights
    code, out, err = cli.call(*arguments)
    assert (code, out) == (1, '')
    assert err.splitlines()[-1] == (
      'jaxdistill: the training ended, but the test loss of the last model is '
      'not finite'
    )
    folder = workdir / 'rows/student-alone/0'
    assert (folder / 'phase0.safetensors').exists()
    assert not (folder / 'result.json').exists()


def test_a_trial_whose_measured_loss_is_not_finite_has_lost(
  cli, workdirs, config, tmp_path, in_user_folder
):
  workdir = tmp_path / 'workdir'
  schedule = '{"name": "mine_for_tests:bomb", "rate": 0.01}'
  out, _ = cli.fit(
    f'{config}:student alone',
    workdir,
    '--config.epochs=4',
    f'--config.methods.student alone.schedule={schedule}',
    '--config.methods.student alone.sweep.keys.schedule.at=[11, 20]',
  )
  label = 'student alone: at=11'
  line = 'the training ended, but the test loss of the last model is not finite'
  assert f'{label}, seed 0: diverged: {line}' in out
  results = workdirs.results(workdir)
  assert results['diverged'] == [{'label': label, 'seed': 0, 'message': line}]
  chosen = [row['label'] for row in results['rows'] if 'trial' in row]
  assert chosen == ['student alone: at=20']


def test_a_section_of_a_users_method_is_built_like_the_librarys(
  cli, workdirs, config, tmp_path, in_user_folder
):
  workdir = tmp_path / 'workdir'
  optimizer = (
    '{"name": "sgd", "momentum": 0.5, "schedule": {"name": "constant"}}'
  )
  cli.fit(
    f'{config}:one',
    workdir,
    '--config.teacher.name=mine_for_tests:net',
    '--config.method.name=mine_for_tests:method',
    f'--config.method.encoder_optimizer={optimizer}',
  )
  row = workdirs.results(workdir)['rows'][1]
  resolved = row['config']['method']['encoder_optimizer']
  assert resolved['momentum'] == 0.5
  assert resolved['nesterov'] is True  # a default
  assert resolved['schedule'] == {'name': 'constant', 'rate': 0.01, 'warmup': 0}
