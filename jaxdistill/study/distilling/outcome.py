"""What a call returns: the trained models, their scores and the verdict."""

from collections.abc import Mapping
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core.types import Metric
from jaxdistill.study import predictors, report, results, verdicts
from jaxdistill.study.page import document
from jaxdistill.study.plans import Plan
from jaxdistill.study.predictors import Predictor
from jaxdistill.study.report import Line


class Distilled(NamedTuple):
  """What `distill` has made.

  Attributes:
    plan: the plan that was run.
    workdir: the work directory.
    results: the contents of results.json.
    files: the exported files.
    has_labels: whether the images have labels.
  """

  plan: Plan
  workdir: pathlib.Path
  results: Mapping[str, Any]
  files: tuple[pathlib.Path, ...]
  has_labels: bool

  @property
  def report(self) -> pathlib.Path:
    """The page with verdicts, the table and charts."""
    return self.workdir / document.FILE

  @property
  def student(self) -> Predictor:
    """The distilled student of the first seed, after the last epoch."""
    row = self.plan.rows[-1]
    models = results.trained(self.plan, row, row.seeds[0], self.workdir)
    return predictors.of_plan(self.plan, models['last'])

  @property
  def teacher(self) -> Predictor:
    """The teacher."""
    if self.plan.teacher is not None:
      return predictors.of_plan(self.plan, self.plan.teacher)
    row = self.plan.rows[0]
    models = results.trained(self.plan, row, row.seeds[0], self.workdir)
    return predictors.of_plan(self.plan, models['last'])

  @property
  def rows(self) -> dict[str, tuple[float, ...]]:
    """Row -> the test score of each seed after the last epoch.

    It is as the table shows it: accuracies are in percent.
    """
    score = report.score_of(self.results)
    return {
      line.title: tuple(line.scores(score))
      for line in report.grouped(self.results)
    }

  @property
  def verdict(self) -> str:
    """Says whether the teacher helped, in one sentence for each metric."""
    lines = report.grouped(self.results)
    has_baseline = any(line.is_supervised for line in lines)
    if self.results.get('reads_teacher') and not has_baseline:
      return _similarity(lines[-1], report.score_of(self.results))
    reference, others = verdicts.of_results(self.results)
    if others:
      return '; '.join(
        f'{label}: {verdict.word} ({verdicts.sentence(verdict)})'
        for label, verdict in others.items()
      )
    label = 'no row' if reference is None else f'only {reference.title!r}'
    return f'{label} was trained, so that there is nothing to compare it with'

  def __str__(self) -> str:
    """The table, the verdict and the files."""
    places = (self.report, *self.files)
    table = report.as_text(self.results)
    return '\n'.join((table, self.verdict, *map(str, places)))


def _similarity(line: Line, score: Metric) -> str:
  """Says how similar a student is to its teacher, whose outputs it learned."""
  mean = np.mean(line.scores(score))
  return (
    f'{line.title}: {score.name} {mean:.{score.digits}f}{score.unit} with the '
    'teacher on the test images; no student was trained without the teacher'
  )
