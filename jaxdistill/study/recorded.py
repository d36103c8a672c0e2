"""predictions.npz: the predictions of a model for some test images.

The report reads these files. The file of one seed of a row is in the folder of
the seed; that of a teacher that is read from a file, which has no row, is in
the work directory itself. A file holds

  row: the numbers of the images in the test split, int32 `[N]`.
  label: the classes of these images `[N]`, if the data have labels.
  probabilities: those of the classes, float16 `[N, num_classes]`; or
  vectors: what the task `embedding` predicts, float16 `[N, D]`; or
  maps: the predicted classes of pixels, uint8 `[N, h, w]`, or depths, float16;
    or
  objects: what a detector predicts, float16 `[N, D, 6]`, with boxes as
    fractions of the height and width; and
  truth: the true objects in the same form, float16 `[N, M, 6]`.
"""

from collections.abc import Sequence
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdistill.study.labels import slug
from jaxdistill.study.report import Line

FILE = 'predictions.npz'
# A file holds the predictions for evenly spaced images: at most for so many,
# and at most so many numbers, which take about a megabyte.
MOST_IMAGES, MOST_NUMBERS = 2000, 1 << 19
# The number of images whose maps are stored.
MOST_MAPS = 4
TEACHER = 'teacher'


class Recorded(NamedTuple):
  """The predictions of a model for some test images.

  Attributes:
    row: the numbers of the images in the test split `[N]`.
    label: the classes of these images `[N]`, or None.
    probabilities: the probabilities of the classes `[N, num_classes]`, or None.
    vectors: the vectors of the images, of length 1, `[N, D]`, or None.
    maps: the predicted maps of the images `[N, h, w]`, or None.
    objects: the boxes, scores and classes of objects, `[N, D, 6]`, or None.
    truth: the true objects, `[N, M, 6]`, or None.
  """

  row: np.ndarray
  label: np.ndarray | None = None
  probabilities: np.ndarray | None = None
  vectors: np.ndarray | None = None
  maps: np.ndarray | None = None
  objects: np.ndarray | None = None
  truth: np.ndarray | None = None


def of_lines(
  workdir: pathlib.Path, lines: Sequence[Line]
) -> dict[str, Recorded]:
  """Returns title -> predictions of a line's first seed; the teacher is last.

  Lines without a readable file are left out.

  Args:
    workdir: the work directory.
    lines: the lines of the results.
  """
  students, teacher = {}, _read(workdir / FILE)
  for line in lines:
    if line.row is None:
      continue
    folder = workdir / 'rows' / slug(line.row['label'])
    read = _read(folder / next(iter(line.row['seeds'])) / FILE)
    if line.is_student:
      students[line.title] = read
    else:
      teacher = read
  everything = {**students, TEACHER: teacher}
  return {title: read for title, read in everything.items() if read is not None}


def _read(path: pathlib.Path) -> Recorded | None:
  """Returns the contents of a file; None if it cannot be read.

  At the end of a long run, a report without this file is better than none.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      return Recorded(**{k: file[k] for k in Recorded._fields if k in file})
  except Exception:  # damage may raise anything in NumPy and zlib
    return None
