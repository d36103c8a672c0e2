"""The report of a study: its results as a table."""

from collections.abc import Mapping, Sequence
import io
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table


def table(results: Mapping[str, Any]) -> rich.table.Table:
  """Returns the results as a table: mean and standard deviation over seeds.

  The columns are the score on the test split after the last epoch and after the
  epoch that was best on the validation split, the agreement of the last student
  with the teacher, and the steps and seconds of all phases. Models that a
  method leaves besides its student, such as assistants, have their own lines.
  After the trials of a sweep comes a line for the row that has the sweep: its
  scores are those of the chosen trial, its steps and seconds those of the first
  seed of all trials together, which is what a tuned student costs.

  Args:
    results: see `results.collect`.
  """
  score = results['score']
  lines = rich.table.Table(box=rich.box.MARKDOWN)
  lines.add_column('network')
  for title in (
    'parameters',
    f'test {score}, last',
    f'test {score}, best on val.',
    'agreement',
    'steps',
    'seconds',
  ):
    lines.add_column(title, justify='right')
  for row in results['rows']:
    _add_row(lines, row, score)
  for sweep in dict.fromkeys(_sweep(row) for row in results['rows']):
    if sweep is not None:
      trials = [row for row in results['rows'] if _sweep(row) == sweep]
      _add_sweep(lines, sweep, trials, score)
  return lines


def as_text(results: Mapping[str, Any]) -> str:
  """Returns the table as text, and below it the trials that diverged.

  There are no blank lines and no trailing spaces.
  """
  console = rich.console.Console(width=200, record=True, file=io.StringIO())
  console.print(table(results))
  lines = console.export_text().splitlines()
  lines += [
    f'{trial["label"]}, seed {trial["seed"]}: diverged: {trial["message"]}'
    for trial in results.get('diverged', ())
  ]
  return '\n'.join(line.rstrip() for line in lines if line.strip())


def _sweep(row: Mapping[str, Any]) -> str | None:
  """Returns the label of the sweep that a row is a trial of, or None."""
  return row['trial']['sweep'] if 'trial' in row else None


def _add_sweep(
  lines: rich.table.Table,
  sweep: str,
  trials: Sequence[Mapping[str, Any]],
  score: str,
) -> None:
  """Adds the line of a sweep if a trial has been chosen."""
  for row in trials:
    if row['trial']['chosen']:
      seeds = list(row['seeds'].values())
      first = [next(iter(trial['seeds'].values())) for trial in trials]
      lines.add_row(
        rich.markup.escape(f'{sweep} (best of {len(trials)} trials)'),
        *_scores(seeds, score),
        _agreement(seeds),
        f'{sum(s["steps"] for s in first):,}',
        f'{sum(s["seconds"] for s in first):.1f}',
      )


def _add_row(
  lines: rich.table.Table, row: Mapping[str, Any], score: str
) -> None:
  """Adds the line of a row, and those of the models that it left."""
  label, seeds = row['label'], list(row['seeds'].values())
  lines.add_row(
    rich.markup.escape(label),
    *_scores(seeds, score),
    _agreement(seeds),
    f'{np.mean([s["steps"] for s in seeds]):,.0f}',
    f'{np.mean([s["seconds"] for s in seeds]):.1f}',
  )
  for key in ('beside', 'differences'):
    for name in seeds[0].get(key, {}):
      measured = [s[key][name] for s in seeds if s.get(key, {}).get(name)]
      title = rich.markup.escape(f'{label}: {name}')
      lines.add_row(title, *_scores(measured, score), *'---')


def _agreement(seeds: Sequence[Any]) -> str:
  """Returns the agreement with the teacher, or '-' without a teacher."""
  agreements = [s['agreement'] for s in seeds if s['agreement'] is not None]
  return _mean_and_sd(agreements)


def _scores(measured: Sequence[Any], score: str) -> tuple[str, str, str]:
  """Returns the parameters, and the scores of the last and the best epoch."""
  best = [m['test']['best'][score] for m in measured if 'best' in m['test']]
  last = [m['test']['last'][score] for m in measured]
  count = measured[0].get('parameters')  # differences have none
  parameters = '-' if count is None else f'{count:,}'
  return parameters, _mean_and_sd(last), _mean_and_sd(best)


def _mean_and_sd(values: list[float]) -> str:
  """Returns '97.5 ± 0.3' in percent, with the sample standard deviation."""
  if not values:
    return '-'
  mean = f'{100 * np.mean(values):.2f}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {100 * np.std(values, ddof=1):.2f}'
