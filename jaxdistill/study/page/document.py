"""report.html: what a run has shown, on one page that needs nothing else.

The page is made from the files of a work directory alone, so that it can be
made again at any time. It contains no scripts and loads nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.analysis import curves
from jaxdistill.analysis.curves import Point
from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError
from jaxdistill.core.metric import Metric
from jaxdistill.study import report, verdicts
from jaxdistill.study.page import answers, charts, facts, latencies, markup
from jaxdistill.study.page.markup import Element, element
from jaxdistill.study.page.style import STYLE
from jaxdistill.study.report import Line
from jaxdistill.study.verdicts import Verdict
from jaxdistill.training import log

FILE = 'report.html'
# A sweep with more trials than this shows the best ones only.
_MOST_TRIALS = 50


class Report(NamedTuple):
  """A report that has been written.

  Attributes:
    path: the file.
    reference: the label of the row that the others are compared with; None if
      no student is finished.
    verdicts: label -> the verdict of each other student.
  """

  path: pathlib.Path
  reference: str | None
  verdicts: dict[str, Verdict]


def write_report(workdir: str | os.PathLike[str]) -> Report:
  """Writes the report of a work directory into it.

  Args:
    workdir: a work directory with results.json.

  Raises:
    UsageError: there is no such file, or the report cannot be written.
  """
  workdir = pathlib.Path(workdir)
  results = _results(workdir)
  lines = report.grouped(results)
  score, metrics = report.score_of(results), report.compared_by(results)
  reference, others = verdicts.of_results(results)
  records = _records(workdir)
  head = element(
    'head',
    element('meta', charset='utf-8'),
    element(
      'meta', name='viewport', content='width=device-width, initial-scale=1'
    ),
    element('title', f'{workdir.resolve().name}: report of jaxdistill'),
    element('style', STYLE),
  )
  body = element(
    'body',
    element(
      'main',
      element('h1', f'Report of {workdir.resolve().name}'),
      *_verdict_parts(reference, others, metrics),
      *_table_parts(results, lines),
      *_chart_parts(score, metrics[-1], lines, records),
      *latencies.parts(workdir, lines, score),
      *answers.parts(workdir, results, lines),
      *facts.facts(lines),
      *facts.reproduction(workdir, lines),
    ),
  )
  path = workdir / FILE
  writing.write(path, markup.document(element('html', head, body, lang='en')))
  label = None if reference is None else reference.title
  return Report(path, label, others)


def as_text(written: Report) -> str:
  """Returns the path of a report and its verdicts, one a line.

  Args:
    written: the report.
  """
  lines = [str(written.path)]
  if written.verdicts:
    lines.append(f'reference: {written.reference}')
  for label, verdict in written.verdicts.items():
    lines.append(f'{label}: {verdict.word} ({verdicts.sentence(verdict)})')
  return '\n'.join(lines)


def _results(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the contents of results.json."""
  path = workdir / 'results.json'
  try:
    results = json.loads(path.read_text())
  except FileNotFoundError:
    raise UsageError(
      f'{workdir}: expected a work directory with results.json, which a run '
      'writes at its end'
    ) from None
  except (OSError, ValueError) as error:
    raise UsageError(f'{path}: cannot be read as JSON ({error})') from None
  if not isinstance(results, dict) or not {'rows', 'score'} <= results.keys():
    raise UsageError(f"{path}: expected the keys 'rows' and 'score'")
  return results


def _records(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of the log; [] if they cannot be read.

  A report without curves is better than none at the end of a long run.
  """
  try:
    return log.read_records(workdir / 'metrics.jsonl')
  except OSError:
    return []


def _verdict_parts(
  reference: Line | None,
  others: Mapping[str, Verdict],
  metrics: Sequence[Metric],
) -> Iterator[Element]:
  """Yields the verdicts and what they are compared with."""
  if reference is None:
    yield element('p', 'No student is finished yet.')
    return
  kind = (
    'which trains without a teacher'
    if reference.is_supervised
    else 'the first student of the config'
  )
  label = element('strong', reference.title)
  if not others:
    yield element(
      'p',
      *('The only student is ', label, '. A second row, such as one with the '),
      *('method ', element('code', 'supervised'), ', would show what the '),
      'teacher adds.',
    )
    return
  by = 'score'
  if len(metrics) > 1:
    by = f'accuracies {" and ".join(metric.name for metric in metrics)}'
  yield element(
    'p',
    *('Each student is compared with ', label, f', {kind}, by its test {by} '),
    'after the last epoch.',
  )
  rows = (
    element(
      'tr',
      element('th', title, scope='row'),
      element('td', element('span', verdict.word, class_=_word_class(verdict))),
      element('td', verdicts.sentence(verdict)),
    )
    for title, verdict in others.items()
  )
  yield markup.table(
    ('student', 'verdict', 'what it rests on'), rows, numbers=False
  )
  yield element(
    'p',
    'HELPS and HURTS: the difference is larger than 2 sd √(1/n + 1/m), where '
    'sd is the standard deviation over seeds, pooled over both rows, and n and '
    'm are their numbers of seeds. NO GAIN: it is smaller and may be due to '
    'chance. UNCLEAR: a row has a single seed.',
    class_='soft',
  )


def _word_class(verdict: Verdict) -> str:
  return f'word {verdict.word.lower().replace(" ", "-")}'


def _table_parts(
  results: Mapping[str, Any], lines: Sequence[Line]
) -> Iterator[Element]:
  """Yields the table of results, and the trials of each sweep."""
  score, probes = report.score_of(results), report.probes_of(results)
  columns = report.columns(score, probes)
  yield element('h2', 'Results')
  cells = []
  for line in lines:
    if line.trials:
      cells += report.sweep_cells(line, score, probes)
    elif line.row is not None:
      cells += report.row_cells(line.row, score, probes)
  yield markup.table(columns, map(markup.row, cells))
  yield element(
    'p',
    f'{_percentages(score)} in percent: the mean ± the standard deviation over '
    'seeds. Agreement is measured with the predictions of the teacher.',
    class_='soft',
  )
  for line in lines:
    if line.trials:
      yield _trials(line, score)
  for text in report.divergences(results):
    yield element('p', text)


def _percentages(score: Metric) -> str:
  return 'Scores and agreement are' if score.percent else 'Agreement is'


def _trials(line: Line, score: Metric) -> Element:
  """Returns the trials of a sweep, the best on the validation split first."""

  def validation(trial: Mapping[str, Any]) -> float:
    first = next(iter(trial['seeds'].values()))
    return first['validation']['last'][score.name]

  def quality(trial: Mapping[str, Any]) -> float:
    return score.quality(validation(trial))

  def cell(trial: Mapping[str, Any]) -> str:
    return f'{score.shown(validation(trial)):.{score.digits}f}'

  trials = sorted(line.trials, key=quality, reverse=True)
  rows = (
    element(
      'tr',
      element('th', facts.values(trial['trial']['values']), scope='row'),
      element('td', cell(trial), class_='number'),
      *markup.row(report.row_cells(trial, score)[0])[1:],
      element('td', 'chosen' if trial['trial']['chosen'] else ''),
    )
    for trial in trials[:_MOST_TRIALS]
  )
  columns = (
    *('trial', f'validation {score.name}, first seed'),
    *(*report.columns(score)[1:], 'choice'),
  )
  shown = min(len(trials), _MOST_TRIALS)
  title = f'{line.title}: the trials of the sweep'
  if shown < len(trials):
    title += f', the best {shown} of {len(trials):,} on the validation split'
  return element(
    'details',
    element('summary', title),
    markup.table(columns, rows),
    open='open',
  )


def _chart_parts(
  score: Metric,
  compared: Metric,
  lines: Sequence[Line],
  records: Sequence[Mapping[str, Any]],
) -> Iterator[Element]:
  """Yields the curves over the training, and the scores against the sizes.

  Args:
    score: the score, which is measured during the training.
    compared: the metric that compares all students.
    lines: the rows of the results.
    records: the log.
  """
  finished = {line.title: line.row for line in lines if line.row is not None}
  learning = {
    title: _learning_curve(records, row['label'], score)
    for title, row in finished.items()
  }
  yield element('h2', 'Learning curves')
  if any(learning.values()):
    yield markup.figure(
      charts.learning_curves(learning, score),
      'The mean over seeds on the validation split; the band is one standard '
      'deviation wide on either side. The steps of all phases of a method are '
      'counted.',
    )
  else:
    yield element(
      'p',
      'The log of the work directory, metrics.jsonl, cannot be read or has no '
      'scores on a validation split.',
    )
  points = {line.title: _size(line, compared) for line in lines}
  measured = {k: p for k, p in points.items() if k in finished and _finite(p)}
  if measured:
    yield element('h2', 'Score and size')
    yield markup.figure(
      charts.costs(measured, compared, 'parameters'),
      'The test score after the last epoch; the bar is one standard deviation '
      'long in either direction.',
    )


def _learning_curve(
  records: Sequence[Mapping[str, Any]], label: str, score: Metric
) -> list[Point]:
  """Returns the validation scores of a row over its steps; [] without any."""
  try:
    seeds = curves.learning(
      records,
      label,
      steps_per_epoch=1,
      metric=score.name,
      percent=score.percent,
    )
  except UsageError:  # the data set has no validation split
    return []
  averaged = curves.averaged([seed for seed in seeds if seed])
  return [point for point in averaged if _finite(point)]


def _size(line: Line, score: Metric) -> Point:
  """Returns the test score of a line against its number of parameters."""
  scores = line.scores(score)
  if line.row is None or not scores:
    return Point(math.nan, math.nan, 0.0)
  parameters = [seed['parameters'] for seed in line.row['seeds'].values()]
  sd = verdicts.pooled_sd([scores]) or 0.0
  return Point(float(np.mean(parameters)), float(np.mean(scores)), sd)


def _finite(point: Point) -> bool:
  return all(map(math.isfinite, point))
