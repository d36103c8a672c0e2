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
    when: 'last' epoch, or 'best' on validation.

  Raises:
    UsageError: there is no such row, or it has no best epoch.
  """
  seeds = {row['label']: row['seeds'].values() for row in results['rows']}
  metric = metric or results['score']
  found = []
  for x, label in rows.items():
    if label not in seeds:
      raise UsageError(f'no row {label!r}; there are {", ".join(seeds)}')
    if any(when not in s['test'] for s in seeds[label]):
      raise UsageError(f'row {label!r} has no {when!r} epoch')
    values = 100 * np.array([s['test'][when][metric] for s in seeds[label]])
    sd = values.std(ddof=1) if len(values) > 1 else 0.0
    found.append(Point(float(x), float(values.mean()), float(sd)))
  return found


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


def epochs_to(curve: Sequence[Point], score: float) -> float | None:
  """The first x at which a curve reaches a score in percent; None: nowhere."""
  return min((p.x for p in curve if p.mean >= score), default=None)


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
