"""The report of a study as text: its results as a table."""

from collections.abc import Mapping, Sequence
import io
from typing import Any, NamedTuple

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from jaxdistill.core.metric import Metric

# How the agreement with the teacher is shown, whatever the score.
_AGREEMENT = Metric('agreement')
# The methods that learn labels without a teacher.
SUPERVISED = ('supervised', 'supervised_vectors')


class Line(NamedTuple):
  """A line of the report: a row, or all trials of a sweep together.

  Attributes:
    title: what the line is called.
    row: the row, or the chosen trial; None if no trial has been chosen yet.
    trials: the trials of a sweep; empty for a row.
  """

  title: str
  row: Mapping[str, Any] | None
  trials: tuple[Mapping[str, Any], ...] = ()

  @property
  def is_student(self) -> bool:
    """Whether it has a finished student; the row of the teacher has none."""
    return self.row is not None and 'student' in self.row['config']

  @property
  def is_supervised(self) -> bool:
    """Whether its method trains on labels alone."""
    keys = {} if self.row is None else self.row['config']
    return bool(keys) and keys['method'].get('name') in SUPERVISED

  def scores(self, score: Metric) -> list[float]:
    """Returns the test score of each seed after the last epoch, as it is shown.

    Seeds whose model does not have this score are left out.

    Args:
      score: the score.
    """
    seeds = {} if self.row is None else self.row['seeds']
    tests = [seed['test']['last'] for seed in seeds.values()]
    return [score.shown(t[score.name]) for t in tests if score.name in t]


def about_score(score: Metric) -> dict[str, Any]:
  """Returns what a result says of its score, as JSON."""
  values = score._asdict()
  return {'score': values.pop('name'), **values}


def score_of(results: Mapping[str, Any]) -> Metric:
  """Returns the score of a result.

  Args:
    results: see `results.collect`.
  """
  return Metric(
    results['score'],
    higher=results.get('higher', True),
    percent=results.get('percent', True),
  )


def probes_of(results: Mapping[str, Any]) -> tuple[Metric, ...]:
  """Returns what else is shown of each model: accuracies of probes, if any.

  Args:
    results: see `results.collect`.
  """
  return tuple(map(Metric, results.get('probes', ())))


def compared_by(results: Mapping[str, Any]) -> tuple[Metric, ...]:
  """Returns the metrics by which a verdict compares students.

  This is the score. If the score compares students with the teacher, and one
  student has learned the labels alone, the accuracies of the probes take its
  place.

  Args:
    results: see `results.collect`.
  """
  probes = probes_of(results)
  has_baseline = any(line.is_supervised for line in grouped(results))
  return probes if probes and has_baseline else (score_of(results),)


def table(results: Mapping[str, Any]) -> rich.table.Table:
  """Returns the results as a table: mean and standard deviation over seeds.

  The columns are the score on the test split after the last epoch and after the
  epoch that was best on the validation split, what probes of the last student
  show on the test split if the task has them, the agreement of the last student
  with the teacher, and the steps and seconds of all phases. Models that a
  method leaves besides its student, such as assistants, have their own lines.
  After the trials of a sweep comes a line for the row that has the sweep: its
  scores are those of the chosen trial, its steps and seconds those of the first
  seed of all trials together, which is what a tuned student costs.

  Args:
    results: see `results.collect`.
  """
  score, probes = score_of(results), probes_of(results)
  first, *others = columns(score, probes)
  lines = rich.table.Table(box=rich.box.MARKDOWN)
  lines.add_column(first)
  for title in others:
    lines.add_column(title, justify='right')
  cells = [c for row in results['rows'] for c in row_cells(row, score, probes)]
  for line in grouped(results):
    cells += sweep_cells(line, score, probes)
  for title, *numbers in cells:
    lines.add_row(rich.markup.escape(title), *numbers)
  return lines


def as_text(results: Mapping[str, Any]) -> str:
  """Returns the table as text, and below it the trials that diverged.

  There are no blank lines and no trailing spaces.
  """
  console = rich.console.Console(width=200, record=True, file=io.StringIO())
  console.print(table(results))
  lines = console.export_text().splitlines()
  lines += divergences(results)
  return '\n'.join(line.rstrip() for line in lines if line.strip())


def divergences(results: Mapping[str, Any]) -> list[str]:
  """Returns one line for each trial that diverged.

  Args:
    results: see `results.collect`.
  """
  return [
    f'{trial["label"]}, seed {trial["seed"]}: diverged: {trial["message"]}'
    for trial in results.get('diverged', ())
  ]


def columns(score: Metric, probes: Sequence[Metric] = ()) -> tuple[str, ...]:
  """Returns the titles of the columns.

  Args:
    score: the score.
    probes: see `probes_of`.
  """
  tests = f'test {score.name}, last', f'test {score.name}, best on val.'
  probed = (f'test {probe.name}, last' for probe in probes)
  costs = 'agreement', 'steps', 'seconds'
  return 'network', 'parameters', *tests, *probed, *costs


def grouped(results: Mapping[str, Any]) -> list[Line]:
  """Returns the rows of a result with the trials of each sweep together.

  Args:
    results: see `results.collect`.
  """
  groups: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
  for row in results['rows']:
    sweep = row['trial']['sweep'] if 'trial' in row else row['label']
    groups.setdefault((sweep, 'trial' in row), []).append(row)
  lines = []
  for (label, is_sweep), rows in groups.items():
    if is_sweep:
      title = f'{label} (best of {len(rows)} trials)'
      chosen = [row for row in rows if row['trial']['chosen']]
      lines.append(Line(title, chosen[0] if chosen else None, tuple(rows)))
    else:
      lines.append(Line(label, rows[0]))
  return lines


def sweep_cells(
  line: Line, score: Metric, probes: Sequence[Metric] = ()
) -> list[tuple[str, ...]]:
  """Returns the cells of a sweep if a trial has been chosen.

  Args:
    line: a row or a sweep.
    score: the score.
    probes: see `probes_of`.
  """
  if not line.trials or line.row is None:
    return []
  seeds = list(line.row['seeds'].values())
  first = [next(iter(trial['seeds'].values())) for trial in line.trials]
  steps = f'{sum(s["steps"] for s in first):,}'
  seconds = f'{sum(s["seconds"] for s in first):.1f}'
  numbers = *_scores(seeds, score, probes), _agreement(seeds)
  return [(line.title, *numbers, steps, seconds)]


def row_cells(
  row: Mapping[str, Any], score: Metric, probes: Sequence[Metric] = ()
) -> list[tuple[str, ...]]:
  """Returns the cells of a row, and those of the models that it left.

  Args:
    row: a row of a result.
    score: the score.
    probes: see `probes_of`.
  """
  label, seeds = row['label'], list(row['seeds'].values())
  steps = f'{np.mean([s["steps"] for s in seeds]):,.0f}'
  seconds = f'{np.mean([s["seconds"] for s in seeds]):.1f}'
  numbers = *_scores(seeds, score, probes), _agreement(seeds)
  cells: list[tuple[str, ...]] = [(label, *numbers, steps, seconds)]
  for key in ('beside', 'differences'):
    for name in seeds[0].get(key, {}):
      measured = [s[key][name] for s in seeds if s.get(key, {}).get(name)]
      scores = _scores(measured, score, probes)
      cells.append((f'{label}: {name}', *scores, *'---'))
  return cells


def _agreement(seeds: Sequence[Any]) -> str:
  """Returns the agreement with the teacher, or '-' without a teacher."""
  agreements = [s['agreement'] for s in seeds if s['agreement'] is not None]
  return _mean_and_sd(agreements, _AGREEMENT)


def _scores(
  measured: Sequence[Any], score: Metric, probes: Sequence[Metric]
) -> tuple[str, ...]:
  """Returns parameters, the scores of last and best epoch, and the probes."""
  tests = [m['test'] for m in measured]
  best = [test['best'][score.name] for test in tests if 'best' in test]
  last = [t['last'][score.name] for t in tests if score.name in t['last']]
  count = measured[0].get('parameters')  # differences have none
  parameters = '-' if count is None else f'{count:,}'
  probed = (
    _mean_and_sd([test['last'][probe.name] for test in tests], probe)
    for probe in probes
  )
  scores = _mean_and_sd(last, score), _mean_and_sd(best, score)
  return parameters, *scores, *probed


def _mean_and_sd(values: list[float], metric: Metric) -> str:
  """Returns '97.50 ± 0.30' as shown, with the sample standard deviation."""
  if not values:
    return '-'
  mean = f'{metric.shown(np.mean(values)):.{metric.digits}f}'
  if len(values) == 1:
    return mean
  sd = metric.shown(np.std(values, ddof=1))
  return f'{mean} ± {sd:.{metric.digits}f}'
