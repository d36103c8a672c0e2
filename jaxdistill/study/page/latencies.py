"""Accuracy against the measured latency of exported files, for a page."""

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np

from jaxdistill.analysis.curves import Point
from jaxdistill.core.metric import Metric
from jaxdistill.study import verdicts
from jaxdistill.study.page import charts, markup
from jaxdistill.study.page.markup import Element, element
from jaxdistill.study.report import Line


def parts(
  workdir: pathlib.Path, lines: Sequence[Line], score: Metric
) -> Iterator[Element]:
  """Yields a chart of the files whose latency was measured, if there are any.

  Args:
    workdir: a work directory; the descriptions of its exported files are read.
    lines: the rows of the results.
    score: the score.
  """
  files = _measured(workdir)
  points = {**_students(files, lines, score), **_teachers(files, lines, score)}
  if not points:
    return
  machines = {
    f'{file["latency"]["runtime"]} on {file["latency"]["processor"]}'
    for file in files
  }
  yield element('h2', 'Score and latency')
  yield markup.figure(
    charts.costs(points, score, 'ms for one image'),
    'The exported files of the students after the last epoch, and the teacher '
    'in the same format: the median time of a call with one image, on one '
    f'thread, with {", ".join(sorted(machines))}.',
  )


def _measured(workdir: pathlib.Path) -> list[Mapping[str, Any]]:
  """Returns the descriptions of the files of last students with a latency."""
  files: list[Mapping[str, Any]] = []
  for path in sorted((workdir / 'export').glob('*.json')):
    try:
      file = json.loads(path.read_text())
    except (OSError, ValueError):  # a report without it is better than none
      continue
    if isinstance(file, dict) and 'latency' in file and file['model'] == 'last':
      files.append(file)
  return files


def _students(
  files: Sequence[Mapping[str, Any]], lines: Sequence[Line], score: Metric
) -> dict[str, Point]:
  """Returns label -> the point of all seeds of a row in one format."""
  rows = {line.row['label']: line.row for line in lines if line.row is not None}
  groups: dict[str, list[tuple[float, float]]] = {}
  for file in files:
    seeds = rows.get(file['row'], {}).get('seeds', {})
    seed = seeds.get(str(file['seed']))
    if seed is None:  # an export of a run that is no longer in the results
      continue
    scores = file.get('scores', {}).get('test')
    value = scores['file'] if scores else seed['test']['last'].get(score.name)
    if value is None:  # a student that learned no vectors of the teacher
      continue
    int8 = f', int8 {file["int8"]}' if file['int8'] else ''
    groups.setdefault(f'{file["row"]} ({file["format"]}{int8})', []).append(
      (file['latency']['student'], score.shown(value))
    )
  return {label: _point(pairs) for label, pairs in groups.items()}


def _teachers(
  files: Sequence[Mapping[str, Any]], lines: Sequence[Line], score: Metric
) -> dict[str, Point]:
  """Returns label -> the point of the teacher in one format."""
  groups: dict[str, list[float]] = {}
  for file in files:
    if file['latency']['teacher'] is not None:
      label = f'teacher ({file["format"]})'
      groups.setdefault(label, []).append(file['latency']['teacher'])
  scores = [
    value
    for line in lines
    if line.row is not None and not line.is_student
    for value in line.scores(score)
  ]
  if not scores:  # a teacher from a file has no row
    return {}
  return {
    label: _point([(float(np.mean(values)), value) for value in scores])
    for label, values in groups.items()
  }


def _point(pairs: Sequence[tuple[float, float]]) -> Point:
  """Returns the mean of (latency, score), with the spread of the scores."""
  latencies, scores = zip(*pairs)
  sd = verdicts.pooled_sd([scores]) or 0.0
  return Point(float(np.mean(latencies)), float(np.mean(scores)), sd)
