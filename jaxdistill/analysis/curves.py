"""Curves of accuracy: over rows of a result, and over the epochs of a row."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import figure
import numpy as np

from jaxdistill.types import UsageError


class Point(NamedTuple):
  """A score on a curve.

  Attributes:
    x: where it stands.
    mean: over seeds, in percent.
    sd: the standard deviation of a sample; 0 for one seed.
  """

  x: float
  mean: float
  sd: float


def points(
  results: Mapping[str, Any],
  rows: Mapping[float, str],
  *,
  metric: str | None = None,
  when: str = 'last',
) -> list[Point]:
  """The scores of some rows of a result on the test split.

  Args:
    results: what `results.json` of a work directory holds.
    rows: x -> label of the row.
    metric: None: the task's score.
    when: 'last' epoch, 'best' on validation, or the name of a model that the
      method left beside its student.

  Raises:
    UsageError: there is no such row, or it has no best epoch.
  """
  seeds = {row['label']: row['seeds'].values() for row in results['rows']}
  metric = metric or results['score']
  found = []
  for x, label in rows.items():
    if label not in seeds:
      raise UsageError(f'no row {label!r}; there are {", ".join(seeds)}')
    tests = [
      s['test'] | {k: v['test']['last'] for k, v in s.get('beside', {}).items()}
      for s in seeds[label]
    ]
    if any(when not in test for test in tests):
      raise UsageError(f'row {label!r} has no {when!r} epoch')
    values = 100 * np.array([test[when][metric] for test in tests])
    sd = values.std(ddof=1) if len(values) > 1 else 0.0
    found.append(Point(float(x), float(values.mean()), float(sd)))
  return found


def tradeoff(
  results: Mapping[str, Any],
  label: str,
  prefix: str,
  *,
  without: str = '-',
  metric: str | None = None,
) -> list[Point]:
  """Scores against sizes of models that a row left beside its student.

  Args:
    results: what `results.json` of a work directory holds.
    label: of the row.
    prefix: with which their names begin, such as 'k '.
    without: what no name holds, such as 'fine-tuned'.
    metric: None: the task's score.

  Returns:
    One point for each of the first seed's models, in the order of their sizes;
    x is the mean of their parameters that are not zero, or of all in results
    that do not count those.

  Raises:
    UsageError: there is no such row or model.
  """
  rows = {row['label']: row for row in results['rows']}
  if label not in rows:
    raise UsageError(f'no row {label!r}; there are {", ".join(rows)}')
  metric = metric or results['score']
  seeds = [s.get('beside', {}) for s in rows[label]['seeds'].values()]
  names = [n for n in seeds[0] if n.startswith(prefix) and without not in n]
  if not names:
    raise UsageError(
      f'row {label!r} has no model {prefix!r}...; there are '
      f'{", ".join(seeds[0]) or "none"}'
    )
  found = []
  for name in names:
    values = [100 * s[name]['test']['last'][metric] for s in seeds]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    sizes = [s[name].get('nonzero', s[name]['parameters']) for s in seeds]
    size = float(np.mean(sizes))
    found.append(Point(size, float(np.mean(values)), sd))
  return sorted(found)


def reached(line: Sequence[Point], score: float) -> float | None:
  """Where a curve first comes to a score, in a line between its points.

  Over epochs of training it is what a method needs to match another.

  Args:
    line: points in any order.
    score: in percent.

  Returns:
    The least such x; None: it stays below.
  """
  before = None
  for point in sorted(line):
    if point.mean >= score:
      if before is None:
        return point.x
      share = (score - before.mean) / (point.mean - before.mean)
      return before.x + share * (point.x - before.x)
    before = point
  return None


def learning(
  records: Iterable[Mapping[str, Any]],
  row: str,
  *,
  steps_per_epoch: int,
  metric: str = 'top1',
  split: str = 'validation',
  without: Collection[str] = (),
) -> list[list[Point]]:
  """What a row scored while it was trained, over all its phases.

  Args:
    records: of metrics.jsonl of a work directory, see `log.read_records`.
    row: its label.
    steps_per_epoch: by which steps are told in epochs.
    metric: the score.
    split: that of the student is 'validation'.
    without: phases whose steps do not count, such as 'masks'.

  Returns:
    For each seed a curve of points: x in epochs of all phases that count, the
    score in percent.

  Raises:
    UsageError: there is no such record.
  """
  seeds: dict[int, list[Mapping[str, Any]]] = {}
  for record in records:
    if record.get('row') == row and record['phase'] not in without:
      seeds.setdefault(record['seed'], []).append(record)
  found = []
  for own in seeds.values():
    ends: dict[int, int] = {}
    for record in own:
      ends[record['order']] = max(ends.get(record['order'], 0), record['step'])
    curve = []
    for record in own:
      if record['split'] == split and metric in record:
        before = sum(n for k, n in ends.items() if k < record['order'])
        x = (before + record['step']) / steps_per_epoch
        curve.append(Point(x, 100 * record[metric], 0.0))
    found.append(sorted(curve))
  if not any(found):
    raise UsageError(f'no record of {metric!r} on {split!r} of row {row!r}')
  return found


def averaged(seeds: Sequence[Sequence[Point]]) -> list[Point]:
  """The mean and deviation over seeds, at each x that all of them have."""
  values = [{point.x: point.mean for point in curve} for curve in seeds]
  shared = set(values[0]).intersection(*values)
  found = []
  for x in sorted(shared):
    scores = np.array([own[x] for own in values])
    sd = scores.std(ddof=1) if len(scores) > 1 else 0.0
    found.append(Point(x, float(scores.mean()), float(sd)))
  return found


def draw(
  lines: Mapping[str, list[Point]],
  *,
  levels: Mapping[str, Point] | None = None,
  xlabel: str = '',
  ylabel: str = 'test accuracy (%)',
) -> figure.Figure:
  """Lines with bars of one standard deviation, and levels that have no x.

  Args:
    lines: label -> its points.
    levels: label -> a score drawn across, such as the student alone's.
    xlabel: below the axis.
    ylabel: beside it.
  """
  drawn = figure.Figure(figsize=(5, 3.5), layout='constrained')
  axes = drawn.add_subplot()
  for label, line in lines.items():
    x, mean, sd = zip(*sorted(line))
    axes.errorbar(x, mean, sd, marker='o', capsize=3, label=label)
  for i, (label, level) in enumerate((levels or {}).items()):
    color = f'C{len(lines) + i}'
    axes.axhline(level.mean, ls='--', color=color, label=label)
    if level.sd:
      band = (level.mean - level.sd, level.mean + level.sd)
      axes.axhspan(*band, color=color, alpha=0.15)
  axes.set(xlabel=xlabel, ylabel=ylabel)
  axes.legend()
  return drawn
