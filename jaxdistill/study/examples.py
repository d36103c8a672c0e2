"""examples.npz: a few small test images that the report shows.

The choice depends on the predictions of the models of all rows, so the file is
written together with the results. It holds

  row: the numbers of the images in the test split, int32 `[N]`.
  image: the images, uint8 `[N, H, W, C]`, at most 96 pixels high and wide, or
    320 for detection.
  truth: their true classes or depths `[N, H, W]`, if the models predict maps.
"""

from collections.abc import Mapping
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.study import recorded, report, verdicts
from jaxdistill.study.recorded import TEACHER, Recorded

FILE = 'examples.npz'
# The longest side of an image in pixels, and of one with boxes.
LONGEST, LONGEST_WITH_BOXES = 96, 320
# How many images are shown with boxes.
WITH_BOXES = 4
# How many images on which models disagree are shown; how many images are shown
# with their neighbours, and with how many of them.
DIFFERING, QUERIES, NEIGHBORS = 12, 4, 4


class Compared(NamedTuple):
  """The predictions of the models that the report compares.

  Attributes:
    by_title: title -> the predictions of a model. In this order, those of the
      following models that exist: the student, the row that it is compared
      with, and the teacher. All are for the same images.
  """

  by_title: Mapping[str, Recorded]

  @property
  def first(self) -> Recorded:
    """The predictions of the first model."""
    return next(iter(self.by_title.values()))

  @property
  def probabilities(self) -> np.ndarray:
    """The probabilities of all models `[M, N, num_classes]` in float64."""
    values = [x.probabilities for x in self.by_title.values()]
    return np.array(values, np.float64)


def compared(
  workdir: pathlib.Path, results: Mapping[str, Any]
) -> Compared | None:
  """Returns the student with the best score, the reference and the teacher.

  Returns None if fewer than two of them have predictions for the same images.
  One is enough if it predicts maps.

  Args:
    workdir: the work directory.
    results: the contents of results.json.
  """
  lines, score = report.grouped(results), report.compared_by(results)[-1]
  reference, _ = verdicts.judged(lines, score)
  everything = recorded.of_lines(workdir, lines)
  others = [
    line
    for line in lines
    if line.is_student and line != reference and line.title in everything
  ]
  titles = []
  if others:
    quality = {
      line.title: score.quality(float(np.mean(line.scores(score))))
      for line in others
    }
    titles.append(max(quality, key=quality.__getitem__))
  titles += [] if reference is None else [reference.title]
  found = {t: everything[t] for t in (*titles, TEACHER) if t in everything}
  first = next(iter(found.values()), None)
  alike = {
    title: other
    for title, other in found.items()
    if first is not None and _are_alike(first, other)
  }
  if first is None or (first.maps is None and len(alike) < 2):
    return None
  return Compared(alike)


def differing(models: Compared) -> list[int]:
  """Returns the positions of images for which the models predict other classes.

  The images are grouped by which of the models are right, and the groups take
  turns. In each group, the images with the most confident models come first.

  Args:
    models: the predictions of the models.
  """
  probabilities = models.probabilities
  classes, confidence = probabilities.argmax(-1), probabilities.max(-1).sum(0)
  label = models.first.label
  is_right = classes == (classes[-1] if label is None else label)
  groups: dict[tuple[bool, ...], list[int]] = {}
  differ = np.flatnonzero((classes != classes[0]).any(0))
  for i in differ[np.argsort(-confidence[differ], kind='stable')]:
    groups.setdefault(tuple(is_right[:, i].tolist()), []).append(int(i))
  ordered = [groups[key] for key in sorted(groups, reverse=True)]
  longest = max(map(len, ordered), default=0)
  turns = [
    group[k] for k in range(longest) for group in ordered if k < len(group)
  ]
  return turns[:DIFFERING]


def neighbors(models: Compared) -> dict[int, dict[str, list[int]]]:
  """Returns position -> title -> the positions of the nearest other images.

  The nearest come first. They are those whose vectors of that model have the
  largest cosines.

  Args:
    models: the predictions of the models.
  """
  count = len(models.first.row)
  queries = np.linspace(0, count - 1, min(QUERIES, count)).astype(int)
  nearest: dict[int, dict[str, list[int]]] = {int(i): {} for i in queries}
  for title, model in models.by_title.items():
    vectors = np.asarray(model.vectors, np.float32)
    for i in nearest:
      cosines = vectors @ vectors[i]
      cosines[i] = -np.inf
      order = np.argsort(-cosines, kind='stable')[: min(NEIGHBORS, count - 1)]
      nearest[i][title] = order.tolist()
  return nearest


def positions(models: Compared) -> list[int]:
  """Returns the positions of all images that the report shows.

  Args:
    models: the predictions of the models.
  """
  if models.first.maps is not None:
    return list(range(len(models.first.row)))
  if models.first.objects is not None:
    count = len(models.first.row)
    shown = np.linspace(0, count - 1, min(WITH_BOXES, count)).astype(int)
    return shown.tolist()
  if models.first.vectors is None:
    return differing(models)
  nearest: dict[int, None] = {}
  for i, by_title in neighbors(models).items():
    nearest |= dict.fromkeys((i, *itertools.chain(*by_title.values())))
  return list(nearest)


def read(workdir: pathlib.Path, column: str = 'image') -> dict[int, np.ndarray]:
  """Returns number in the test split -> image; {} without a readable file.

  Args:
    workdir: the work directory.
    column: 'image', or 'truth' for the true maps.
  """
  try:
    with np.load(workdir / FILE, allow_pickle=False) as file:
      return dict(zip(file['row'].tolist(), file[column]))
  except Exception:  # damage may raise anything in NumPy and zlib
    return {}


def _are_alike(first: Recorded, other: Recorded) -> bool:
  """Returns whether two models predict the same kind of thing for equal images.

  Vectors may differ in length, and maps in size.
  """
  for kind in ('vectors', 'maps', 'objects'):
    if (getattr(first, kind) is None) != (getattr(other, kind) is None):
      return False
  shapes = [
    None if x.probabilities is None else x.probabilities.shape
    for x in (first, other)
  ]
  return shapes[0] == shapes[1] and np.array_equal(first.row, other.row)
