"""Curves of scores: over the rows of a result, and over the epochs of a row."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.metric import TOP1

if TYPE_CHECKING:
  from matplotlib import figure


class Point(NamedTuple):
  """A score on a curve.

  Attributes:
    x: the position along the curve.
    mean: the mean over seeds, as it is shown: in percent if the score is a
      fraction.
    sd: the standard deviation of the sample, likewise; 0 for one seed.
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
  """Returns the test scores of some rows of a result.

  Args:
    results: the contents of a work directory's `results.json`.
    rows: x -> the label of a row.
    metric: the metric; None means the task's score.
    when: 'last' for the last epoch, 'best' for the best epoch on the validation
      split, or the name of another model that the method has trained.

  Raises:
    UsageError: a row does not exist, or it has no such epoch or model.
  """
  seeds = {row['label']: row['seeds'].values() for row in results['rows']}
  metric, factor = metric or results['score'], _factor(results)
  curve = []
  for x, label in rows.items():
    checks.choice('row', label, seeds)
    tests = [
      seed['test']
      | {k: v['test']['last'] for k, v in seed.get('beside', {}).items()}
      for seed in seeds[label]
    ]
    for test in tests:
      checks.choice(f'epoch or model of row {label!r}', when, test)
    scores = [factor * test[when][metric] for test in tests]
    curve.append(_point(x, scores))
  return curve


def tradeoff(
  results: Mapping[str, Any],
  label: str,
  prefix: str,
  *,
  without: str = '-',
  metric: str | None = None,
) -> list[Point]:
  """Returns test scores against the sizes of a row's further models.

  Args:
    results: the contents of a work directory's `results.json`.
    label: the label of the row.
    prefix: the beginning of the names of these models, such as 'k '.
    without: a text that excludes a name, such as 'fine-tuned'.
    metric: the metric; None means the task's score.

  Returns:
    One point for each of the first seed's models, in the order of their sizes.
    Its x is the mean number of parameters that are not zero, or of all
    parameters if the results do not hold that number.

  Raises:
    UsageError: the row or such models do not exist.
  """
  rows = {row['label']: row for row in results['rows']}
  checks.choice('row', label, rows)
  metric, factor = metric or results['score'], _factor(results)
  seeds = [seed.get('beside', {}) for seed in rows[label]['seeds'].values()]
  names = [n for n in seeds[0] if n.startswith(prefix) and without not in n]
  if not names:
    raise UsageError(
      f'prefix: expected the beginning of a model of row {label!r} '
      f'({", ".join(seeds[0]) or "there are none"}), got {prefix!r}'
    )
  curve = []
  for name in names:
    models = [seed[name] for seed in seeds]
    sizes = [model.get('nonzero', model['parameters']) for model in models]
    scores = [factor * model['test']['last'][metric] for model in models]
    curve.append(_point(float(np.mean(sizes)), scores))
  return sorted(curve)


def reached(line: Sequence[Point], score: float) -> float | None:
  """Returns the x where a curve first reaches a score.

  The curve is taken to be linear between its points. For a curve over epochs,
  the result is the training that a method needs to match another one.

  Args:
    line: points in any order.
    score: the score as the points hold it.

  Returns:
    The smallest such x, or None if the curve stays below the score.
  """
  before = None
  for point in sorted(line):
    if point.mean >= score:
      if before is None:
        return point.x
      fraction = (score - before.mean) / (point.mean - before.mean)
      return before.x + fraction * (point.x - before.x)
    before = point
  return None


def learning(
  records: Iterable[Mapping[str, Any]],
  row: str,
  *,
  steps_per_epoch: int,
  metric: str = TOP1.name,
  percent: bool = True,
  split: str = 'validation',
  without: Collection[str] = (),
) -> list[list[Point]]:
  """Returns the scores of a row during its training, over all its phases.

  Args:
    records: the records in a work directory's `metrics.jsonl`, from
      `training.log.read_records`.
    row: the label of the row.
    steps_per_epoch: the number of steps that count as one epoch.
    metric: the metric.
    percent: whether it is a fraction, which becomes percent.
    split: the split; the student's scores are those of 'validation'.
    without: the names of phases whose steps are not counted, such as 'masks'.

  Returns:
    One curve per seed. Its x counts the epochs of all phases that are counted.

  Raises:
    UsageError: there are no such records.
  """
  seeds: dict[int, list[Mapping[str, Any]]] = {}
  for record in records:
    if record.get('row') == row and record['phase'] not in without:
      seeds.setdefault(record['seed'], []).append(record)
  curves = [
    _learning_curve(
      seed_records, steps_per_epoch, metric, split, 100 if percent else 1
    )
    for seed_records in seeds.values()
  ]
  if not any(curves):
    raise UsageError(
      f'row: expected a row with records of {metric!r} on {split!r}, got '
      f'{row!r}'
    )
  return curves


def averaged(seeds: Sequence[Sequence[Point]]) -> list[Point]:
  """Averages curves over seeds, at each x that all of them have.

  Args:
    seeds: one curve per seed.
  """
  scores = [{point.x: point.mean for point in curve} for curve in seeds]
  shared = set(scores[0]).intersection(*scores)
  return [_point(x, [curve[x] for curve in scores]) for x in sorted(shared)]


def draw(
  lines: Mapping[str, list[Point]],
  *,
  levels: Mapping[str, Point] | None = None,
  xlabel: str = '',
  ylabel: str = 'test accuracy (%)',
) -> 'figure.Figure':
  """Draws curves with bars of one standard deviation, and horizontal levels.

  Args:
    lines: label -> the points of a curve.
    levels: label -> a score without an x, drawn as a horizontal line, such as
      that of the student without a teacher.
    xlabel: the label of the x axis.
    ylabel: the label of the y axis.
  """
  drawing = figures.empty(5, 3.5)
  axes = drawing.add_subplot()
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
  return drawing


def _factor(results: Mapping[str, Any]) -> int:
  """Returns by what the scores of a result are multiplied to be shown."""
  return 100 if results.get('percent', True) else 1


def _point(x: float, scores: Sequence[float]) -> Point:
  """Returns the mean and the standard deviation of scores at a position."""
  sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
  return Point(float(x), float(np.mean(scores)), sd)


def _learning_curve(
  records: Sequence[Mapping[str, Any]],
  steps_per_epoch: int,
  metric: str,
  split: str,
  factor: int,
) -> list[Point]:
  """Returns the curve of one seed."""
  phase_lengths: dict[int, int] = {}
  for record in records:
    order = record['order']
    phase_lengths[order] = max(phase_lengths.get(order, 0), record['step'])
  curve = []
  for record in records:
    if record['split'] == split and metric in record:
      earlier = sum(n for k, n in phase_lengths.items() if k < record['order'])
      x = (earlier + record['step']) / steps_per_epoch
      curve.append(Point(x, factor * record[metric], 0.0))
  return sorted(curve)
