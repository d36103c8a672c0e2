"""Results as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.markup
import rich.table


def table(results: Mapping[str, Any]) -> rich.table.Table:
  """The results as a table: mean and standard deviation over seeds.

  The metric on the test split of the last epoch and of the one that was best
  on validation, the last one's agreement with the teacher, and the steps of
  all phases. Models that a method left beside its student, such as assistants,
  have lines of their own.
  """
  made = rich.table.Table(box=rich.box.MARKDOWN)
  made.add_column('network')
  score = results['score']
  for title in (
    'parameters',
    f'test {score}, last',
    f'test {score}, best on val.',
    'agreement',
    'steps',
    'seconds',
  ):
    made.add_column(title, justify='right')
  for row in results['rows']:
    seeds = list(row['seeds'].values())
    agreed = [s['agreement'] for s in seeds if s['agreement'] is not None]
    made.add_row(
      rich.markup.escape(row['label']),
      *_scores(seeds, score),
      _mean_and_sd(agreed),
      f'{np.mean([s["steps"] for s in seeds]):,.0f}',
      f'{np.mean([s["seconds"] for s in seeds]):.1f}',
    )
    # What the method left beside it, such as a pruned network.
    for role in seeds[0].get('beside', {}):
      beside = [s['beside'][role] for s in seeds if role in s.get('beside', ())]
      name = rich.markup.escape(f'{row["label"]}: {role}')
      made.add_row(name, *_scores(beside, score), *'---')
    for key in seeds[0].get('differences', {}):
      each = [s.get('differences', {}).get(key) for s in seeds]
      name = rich.markup.escape(f'{row["label"]}: {key}')
      made.add_row(name, *_scores([x for x in each if x], score), *'---')
  return made


def _scores(measured: Sequence[Any], score: str) -> tuple[str, str, str]:
  """Parameters and the scores of the last and the best epoch, over seeds."""
  best = [m['test']['best'][score] for m in measured if 'best' in m['test']]
  last = [m['test']['last'][score] for m in measured]
  count = measured[0].get('parameters')  # a difference has none
  shown = '-' if count is None else f'{count:,}'
  return shown, _mean_and_sd(last), _mean_and_sd(best)


def _mean_and_sd(values: list[float]) -> str:
  """'97.5 ± 0.3' in percent; the standard deviation of a sample."""
  if not values:
    return '-'
  mean = f'{100 * np.mean(values):.2f}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {100 * np.std(values, ddof=1):.2f}'
