"""What a call returns: the trained models, their scores and the verdict."""

from collections.abc import Mapping
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Augment, Metric, Model, Task
from jaxdistill.study import report, results, verdicts
from jaxdistill.study.page import document
from jaxdistill.study.plans import Plan
from jaxdistill.study.report import Line
from jaxdistill.tasks import evaluation


class Predictor(NamedTuple):
  """A model that takes raw images.

  Attributes:
    model: the network and its variables.
    image_shape: (H, W, C) of the images that it takes.
    preprocess: crops and standardises them.
    task: says what its predictions are.
    label_names: the names of the classes, or empty.
  """

  model: Model
  image_shape: tuple[int, ...]
  preprocess: Augment
  task: Task
  label_names: tuple[str, ...] = ()

  def __call__(self, images: Any) -> np.ndarray:
    """Returns predictions `[N, ...]`, for a classifier the class numbers.

    Args:
      images: uint8 `[N, H, W, C]`, such as `data.read_image` gives.

    Raises:
      UsageError: the images have another type or size.
    """
    images = np.asarray(images)
    expected = (len(images) if images.ndim else 0, *self.image_shape)
    if images.dtype != np.uint8 or images.shape != expected or not len(images):
      raise UsageError(
        f'images: expected uint8 [N, {", ".join(map(str, self.image_shape))}], '
        f'got {images.dtype} {list(images.shape)}'
      )
    batch = {'image': images}
    predictions: np.ndarray = evaluation.predict(
      self.model, batch, self.task, self.preprocess
    )
    return predictions


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
    return self._predictor(models['last'])

  @property
  def teacher(self) -> Predictor:
    """The teacher."""
    if self.plan.teacher is not None:
      return self._predictor(self.plan.teacher)
    row = self.plan.rows[0]
    models = results.trained(self.plan, row, row.seeds[0], self.workdir)
    return self._predictor(models['last'])

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

  def _predictor(self, model: Model) -> Predictor:
    plan = self.plan
    shape = plan.dataset.splits['train']['image'].shape[1:]
    names = tuple(plan.about_data['label_names'])
    return Predictor(model, shape, plan.preprocess, plan.task, names)


def _similarity(line: Line, score: Metric) -> str:
  """Says how similar a student is to its teacher, whose outputs it learned."""
  mean = np.mean(line.scores(score))
  return (
    f'{line.title}: {score.name} {mean:.{score.digits}f}{score.unit} with the '
    'teacher on the test images; no student was trained without the teacher'
  )
