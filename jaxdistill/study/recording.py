"""Writes the files from which the report shows single test images.

The module `recorded` describes and reads the predictions of models, and
`examples` the images. Both work without JAX.
"""

from collections.abc import Callable, Mapping, Sequence
import io
import math
import pathlib
from typing import Any

import numpy as np

from jaxdistill.analysis import detections, maps
from jaxdistill.core import optional, writing
from jaxdistill.study import examples, measurements, recorded
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.measurements import Answers
from jaxdistill.study.plans import Plan, Row
from jaxdistill.training.distributed import hosts


def write_answers(
  plan: Plan,
  workdir: pathlib.Path,
  row: Row,
  seed: int,
  student_answers: Answers | None,
  teacher_answers: Callable[[], Answers] | None,
) -> None:
  """Writes the predictions of one seed of a row, and of a teacher from a file.

  Nothing is written if the predictions are not probabilities, vectors, maps or
  objects.

  Args:
    plan: what was run.
    workdir: the work directory.
    row: the row.
    seed: the seed.
    student_answers: the answers of its model; None: nothing is written.
    teacher_answers: returns the answers of the teacher.
  """
  if student_answers is None or not hosts.first():
    return
  _write(
    plan,
    workdir_lib.seed_folder(workdir, row, seed) / recorded.FILE,
    student_answers,
  )
  if plan.teacher is not None and teacher_answers is not None:
    _write(plan, workdir / recorded.FILE, teacher_answers())


def write_images(
  plan: Plan, workdir: pathlib.Path, results: Mapping[str, Any]
) -> None:
  """Writes the images that the report shows, if there are any.

  Args:
    plan: what was run.
    workdir: the work directory.
    results: the contents of results.json.
  """
  models = examples.compared(workdir, results)
  chosen = [] if models is None else examples.positions(models)
  if models is None or not chosen:
    return
  rows = models.first.row[chosen]
  split = plan.dataset.splits['test']
  has_boxes = models.first.objects is not None
  longest = examples.LONGEST_WITH_BOXES if has_boxes else examples.LONGEST
  columns: dict[str, Any] = {'row': rows}
  columns['image'] = _small(np.asarray(split['image'][rows]), longest)
  target = measurements.map_target(plan.task)
  if target is not None:
    size = columns['image'].shape[1:3]
    columns['truth'] = maps.nearest(np.asarray(split[target][rows]), size)
  content = io.BytesIO()
  np.savez_compressed(content, **columns)
  writing.write(workdir / examples.FILE, content.getvalue())


def _write(plan: Plan, path: pathlib.Path, said: Answers) -> None:
  """Writes the predictions of a model for evenly spaced test images."""
  name, values = 'probabilities', said.probabilities
  test = plan.dataset.splits['test']
  if plan.task.probes is not None:
    name, values = 'vectors', said.predictions
  elif measurements.map_target(plan.task) and np.ndim(said.predictions) == 3:
    name, values = 'maps', said.predictions
  elif 'boxes' in plan.task.targets:
    name, values = 'objects', _relative(said.predictions, test['image'].shape)
  if values is None:
    return
  most = recorded.MOST_MAPS
  if name != 'maps':
    numbers = math.prod(values.shape[1:])
    most = min(recorded.MOST_IMAGES, recorded.MOST_NUMBERS // numbers)
  rows = np.linspace(0, len(values) - 1, min(max(1, most), len(values)))
  rows = rows.astype(np.int32)
  dtype = values.dtype if values.dtype.kind in 'iu' else np.float16
  columns = {'row': rows, name: values[rows].astype(dtype)}
  if name == 'objects':
    truth = detections.objects(test['boxes'][rows], test['classes'][rows])
    truth = _relative(truth, test['image'].shape)
    columns['truth'] = truth.astype(np.float16)
  label = test.get('label')
  if label is not None:
    label = np.asarray(label)[rows]
    columns['label'] = label if label.ndim == 1 else label.argmax(-1)
  content = io.BytesIO()
  np.savez_compressed(content, **columns)
  writing.write(path, content.getvalue())


def _relative(objects: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """Returns objects `[N, D, 6]` with boxes in fractions of an image."""
  _, height, width, _ = shape
  return objects / np.array((height, width, height, width, 1, 1))


def _small(images: np.ndarray, longest: int = examples.LONGEST) -> np.ndarray:
  """Returns images with sides of at most `longest`, and 1 or 3 channels."""
  if images.shape[-1] not in (1, 3):
    images = images[..., :1]
  height, width = images.shape[1:3]
  share = longest / max(height, width)
  if share >= 1:
    return images
  size = max(1, round(width * share)), max(1, round(height * share))
  pillow = optional.require('PIL.Image', 'the images of the report')
  channels = range(images.shape[-1])
  resized = [
    [np.asarray(pillow.fromarray(image[..., c]).resize(size)) for c in channels]
    for image in images
  ]
  return np.moveaxis(np.array(resized), 1, -1)
