"""Sweeps: trials of a row, the one that validation chooses, and its cost."""

import json
import math

import pytest
from safetensors import numpy

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.study import run_groups, selection, sweeps
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.training import group_files, loop

TEMPERATURES = '--config.methods.kd.sweep.keys.temperature=[1.0, 3.0]'


def _trials(sweep, **row):
  section = {'name': 'kd', **row, 'sweep': sweep}
  return list(sweeps.trials('kd', section, (0, 1), 'methods.kd'))


def test_a_grid_has_every_combination_in_order():
  trials = _trials(
    {'keys': {'temperature': [1.0, 4.0], 'schedule': {'rate': (0.1, 0.3)}}},
    temperature=2.0,
    schedule={'name': 'step', 'rate': 0.5},
  )
  assert [label for label, _, _ in trials] == [
    'kd: rate=0.1, temperature=1.0',
    'kd: rate=0.1, temperature=4.0',
    'kd: rate=0.3, temperature=1.0',
    'kd: rate=0.3, temperature=4.0',
  ]
  _, section, trial = trials[2]
  assert section == {
    'name': 'kd',
    'temperature': 1.0,
    'schedule': {'name': 'step', 'rate': 0.3},
  }
  assert trial.values == {'temperature': 1.0, 'schedule.rate': 0.3}
  assert (trial.sweep, trial.seeds, trial.chosen) == ('kd', (0, 1), False)


def test_numbers_of_a_key_are_floats_if_one_of_them_is():
  keys = {'temperature': [2, 4.0, 2.0], 'epochs': [1, 2]}
  values = [trial.values for _, _, trial in _trials({'keys': keys})]
  assert [repr(v['temperature']) for v in values] == ['2.0', '4.0'] * 2
  assert [repr(v['epochs']) for v in values] == ['1', '1', '2', '2']


def test_keys_that_end_alike_keep_their_sections_in_the_label():
  keys = {'schedule': {'rate': [0.1]}, 'fine_tune': {'rate': [0.2]}}
  ((label, _, _),) = _trials({'keys': keys})
  assert label == 'kd: fine_tune.rate=0.2, schedule.rate=0.1'


def test_random_trials_are_different_and_the_same_in_every_process():
  keys = {
    'temperature': {'low': 1.0, 'high': 20.0, 'scale': 'log'},
    'epochs': {'low': 2, 'high': 9},
    'weight': [0.5, 0.9],
  }
  drawn = [t.values for _, _, t in _trials({'keys': keys, 'trials': 200})]
  assert drawn == [
    t.values for _, _, t in _trials({'keys': keys, 'trials': 200})
  ]
  other = _trials({'keys': keys, 'trials': 200, 'seed': 1})
  assert drawn != [t.values for _, _, t in other]
  assert len({tuple(d.values()) for d in drawn}) == 200
  assert {d['epochs'] for d in drawn} == set(range(2, 10))
  temperatures = [d['temperature'] for d in drawn]
  assert 1.0 <= min(temperatures) <= max(temperatures) <= 20.0
  below = sum(t < math.sqrt(20.0) for t in temperatures)
  assert 80 <= below <= 120  # half of them, on a logarithmic scale


def test_random_trials_of_lists_are_as_many_as_asked_for():
  keys = {'a': list(range(64)), 'b': {'low': 0, 'high': 63}}
  drawn = _trials({'keys': keys, 'trials': 4000})
  assert len({label for label, _, _ in drawn}) == 4000


@pytest.mark.parametrize(('trials', 'count'), [(2, 2), (3, 3), (9, 3)])
def test_there_are_no_more_random_trials_than_combinations(trials, count):
  drawn = _trials(
    {'keys': {'temperature': [1.0, 2.0, 3.0, 1.0]}, 'trials': trials}
  )
  assert len({label for label, _, _ in drawn}) == len(drawn) == count


@pytest.mark.parametrize(
  ('sweep', 'message'),
  [
    ({}, 'methods.kd.sweep.keys: expected keys of the row'),
    ({'keys': {'temperature': 4.0}}, 'expected a list of values or'),
    ({'keys': {'temperature': []}}, 'expected a list of values or'),
    ({'keys': {'temperature': {'low': 1.0}}}, "a range needs the key 'high'"),
    ({'kys': {}}, "did you mean 'keys'?"),
    ({'keys': {'temperature': {'low': 1.0, 'high': 2.0}}}, 'sweep.trials'),
    (
      {'keys': {'temperature': {'low': 2.0, 'high': 1.0}}, 'trials': 2},
      'sweep.keys.temperature.high: expected a number above 2, got 1.0',
    ),
    (
      {'keys': {'weight': {'low': 0.0, 'high': 1.0, 'scale': 'log'}}},
      'sweep.keys.weight.low: expected a number above 0, got 0.0',
    ),
    (
      {'keys': {'weight': {'low': 0.1, 'high': 1.0, 'scale': 'lg'}}},
      "did you mean 'log'?",
    ),
    ({'keys': {'temperature': [1.0]}, 'trials': 0}, 'from 1 to 10000, got 0'),
    ({'keys': {'temperature': [1.0]}, 'seed': -1}, 'of at least 0, got -1'),
    ({'keys': {'temperature': {'rate': [1.0]}}}, 'expects a section at'),
    (
      {'keys': {'seed': list(range(200)), 'other': list(range(200))}},
      'expected a whole number from 1 to 10000, got 40000',
    ),
  ],
)
def test_a_wrong_sweep_is_refused_in_one_line(sweep, message):
  with pytest.raises(UsageError) as error:
    _trials(sweep, temperature=2.0)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'keys',
  [{'schedule.rate': [0.1]}, {'sweep': [{}]}, {'schedule': {'a.b': [1]}}],
)
def test_a_key_with_a_dot_or_a_sweep_in_a_sweep_is_refused(keys):
  with pytest.raises(UsageError, match='nested keys in a section'):
    _trials({'keys': keys})


def test_values_of_a_sweep_are_checked_as_those_of_a_row(cli, config, tmp_path):
  key = '--config.methods.kd.sweep.keys'
  line = cli.refused(config, tmp_path, f'{key}.temperature=[1.0, 0.0]')
  assert 'temperature' in line
  assert '0.0' in line
  line = cli.refused(config, tmp_path, f'{key}.temprature=[1.0]')
  assert "did you mean 'temperature'?" in line
  line = cli.refused(
    config, tmp_path, TEMPERATURES, '--config.data.validation=0'
  )
  assert 'kd: a sweep chooses by the validation split' in line
  assert not list(tmp_path.iterdir())


def test_the_best_trial_on_validation_is_trained_with_all_seeds(
  cli, workdirs, config, tmp_path
):
  folder = tmp_path / 'workdir'
  arguments = (TEMPERATURES, '--config.seeds=2')
  out, _ = cli.fit(config, folder, *arguments, '--row=kd: temperature=3.0')
  assert 'best of' not in out  # a trial is missing
  started = workdirs.trained_files(folder)
  out, _ = cli.fit(config, folder, *arguments)
  rows = {row['label']: row for row in workdirs.results(folder)['rows']}
  trials = [rows[f'kd: temperature={t}'] for t in ('1.0', '3.0')]
  scores = [row['seeds']['0']['validation']['last']['top1'] for row in trials]
  best = scores.index(max(scores))
  assert [row['trial'] for row in trials] == [
    {'sweep': 'kd', 'values': {'temperature': t}, 'chosen': i == best}
    for i, t in enumerate((1.0, 3.0))
  ]
  assert [set(row['seeds']) for row in trials] == [
    {'0', '1'} if i == best else {'0'} for i in range(2)
  ]
  lines = [line for line in out.splitlines() if line.startswith('| kd')]
  cells = [[c.strip() for c in line.split('|')[1:-1]] for line in lines]
  assert [row[0] for row in cells][-1] == 'kd (best of 2 trials)'
  assert cells[-1][1:5] == cells[best][1:5]
  assert cells[-1][5] == '12'  # the steps of both trials

  before = workdirs.trained_files(folder)
  results = [path for path in started if path.endswith('result.json')]
  assert all(started[path] == before[path] for path in results)
  cli.fit(config, folder, *arguments, '--row=kd')
  assert workdirs.trained_files(folder) == before
  exported, _ = cli.fit(config, folder, *arguments, '--mode=export', '--row=kd')
  assert len(exported.split()) == 6  # three runs, last and best

  by_hand = tmp_path / 'by_hand'
  cli.fit(config, by_hand, '--config.methods.kd.temperature=1.0', '--row=kd')
  file = 'rows/{}/0/phase0.safetensors'
  swept = numpy.load_file(folder / file.format('kd-temperature-1.0'))
  alone = numpy.load_file(by_hand / file.format('kd'))
  assert swept.keys() == alone.keys()
  assert all((swept[key] == alone[key]).all() for key in swept)


def test_trials_together_end_as_trials_apart(cli, workdirs, config, tmp_path):
  """The one that diverges loses, and does not disturb the others."""
  rates = '--config.methods.kd.sweep.keys.schedule.rate=[0.05, 0.1, 1e4]'
  arguments = (rates, '--row=kd')
  apart, together = tmp_path / 'apart', tmp_path / 'together'
  cli.fit(config, apart, *arguments)
  _, err = cli.fit(config, together, *arguments, '--config.together=True')
  assert 'kd: rate=10000.0: diverged: the ' in err
  one, other = map(workdirs.results, (apart, together))
  assert [row['label'] for row in other['diverged']] == [
    row['label'] for row in one['diverged']
  ]
  for mine, theirs in zip(one['rows'], other['rows'], strict=True):
    assert theirs['label'] == mine['label']
    assert theirs.get('trial') == mine.get('trial')
    for seed in mine['seeds']:
      scores = [row['seeds'][seed]['test']['last'] for row in (mine, theirs)]
      assert scores[1] == pytest.approx(scores[0], abs=0.07)
  assert not list(together.glob('rows/*/together'))
  before = workdirs.trained_files(together)
  cli.fit(config, together, *arguments, '--config.together=True')
  assert workdirs.trained_files(together) == before


def test_trials_that_began_together_continue_together(cli, config, tmp_path):
  rates = 'methods.kd.sweep.keys.schedule.rate=[0.05, 0.1]'
  plan = study.plan(cli.load(config, rates, 'together=True'))
  trials = [row for row in plan.rows if row.trial is not None]
  calls = iter(range(100))
  with pytest.raises(loop.Interrupted):
    study.run(
      *(plan, tmp_path),
      rows=['kd'],
      interrupted=lambda: next(calls) >= 6,
      show=False,
    )
  folder = workdir_lib.group_folder(tmp_path, trials[0])
  assert group_files.names(folder) == tuple(row.label for row in trials)
  arguments = f'--config.{rates}', '--config.together=True'
  line = cli.refused(config, tmp_path, *arguments, f'--row={trials[1].label}')
  assert f'expected the runs {[row.label for row in trials]}' in line
  cli.fit(config, tmp_path, *arguments, '--row=kd')
  assert not folder.exists()


def test_only_trials_that_differ_in_fractions_train_together(cli, config):
  rates = 'methods.kd.sweep.keys.schedule.rate=[0.05, 0.1]'
  plan = study.plan(cli.load(config, rates, 'together=True'))
  *_, first, second = plan.rows
  other = second._replace(resolved={**second.resolved, 'batch_size': 8})
  assert run_groups.batches(plan, [first, second]) == [[first, second]]
  assert run_groups.batches(plan, [first, other]) == [[first], [other]]
  apart = plan._replace(together=False)
  assert run_groups.batches(apart, [first, second]) == [[first], [second]]


def test_a_trial_that_diverges_loses(cli, workdirs, config, tmp_path):
  folder = tmp_path / 'workdir'
  rates = '--config.methods.kd.sweep.keys.schedule.rate'
  out, err = cli.fit(config, folder, f'{rates}=[1e4, 0.1]', '--row=kd')
  assert 'kd: rate=10000.0: diverged: the ' in err
  assert 'kd: rate=10000.0, seed 0: diverged: ' in out
  results = workdirs.results(folder)
  assert [row['label'] for row in results['rows']] == [
    'teacher',
    'kd: rate=0.1',
  ]
  assert results['rows'][1]['trial']['chosen']
  assert [trial['label'] for trial in results['diverged']] == [
    'kd: rate=10000.0'
  ]
  code, _, err = cli.call(
    *(f'--config={config}', f'--workdir={folder}'),
    *(f'{rates}=[1e4]', '--row=kd'),
  )
  assert code == 1
  rows = workdirs.results(folder)['rows']  # other rows keep their results
  assert [row['label'] for row in rows] == ['teacher']
  assert (
    'kd: the loss or the score of every trial became NaN or infinite' in err
  )


def test_a_trial_whose_score_is_not_a_number_loses(cli, config, tmp_path):
  rates = 'methods.kd.sweep.keys.schedule.rate=[0.05, 0.1]'
  plan = study.plan(cli.load(config, rates))
  *_, first, second = plan.rows
  assert not selection.all_lost(plan, 'kd', tmp_path)  # they are not finished

  def finish(row, score):
    folder = workdir_lib.seed_folder(tmp_path, row, row.seeds[0])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(row.method)):
      (folder / f'phase{i}.safetensors').touch()
    metrics = {'last': {plan.task.score.name: score}}
    result = json.dumps({'validation': metrics})
    (folder / 'result.json').write_text(result)

  for score in (0.3, math.nan):
    finish(first, math.nan)
    finish(second, score)
    assert selection.all_lost(plan, 'kd', tmp_path) == math.isnan(score)
  finish(second, 0.3)
  *_, first, second = selection.with_chosen_trials(plan, tmp_path).rows
  assert (first.trial.chosen, second.trial.chosen) == (False, True)
