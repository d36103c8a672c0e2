"""Curves over rows of a result, such as accuracy against a loss weight."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import figure
import numpy as np

from jaxdistill.types import UsageError


class Point(NamedTuple):
  """A row of a result on a curve.

  Attributes:
    x: where it stands.
    mean: of its score over seeds, in percent.
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
