"""predictions.npz: what models say about some test images, for the report.

The file of one seed of a row is in its folder; that of a teacher from a file,
which has no row, is in the work directory itself. A file holds

  row: the numbers of the images in the test split, int32 `[N]`.
  label: their classes `[N]`, if the data have labels.
  probabilities: of the classes, float16 `[N, num_classes]`; or
  vectors: what the task `embedding` predicts, float16 `[N, D]`.
"""

from collections.abc import Sequence
import pathlib
from typing import NamedTuple
import zipfile

import numpy as np

from jaxdistill.study.labels import slug
from jaxdistill.study.report import Line

FILE = 'predictions.npz'
# A file holds evenly spaced images: at most so many, and numbers for about a
# megabyte.
MOST_IMAGES, MOST_NUMBERS = 2000, 1 << 19
TEACHER = 'teacher'


class Recorded(NamedTuple):
  """What a model says about some test images.

  Attributes:
    row: the numbers of the images in the test split `[N]`.
    label: their classes `[N]`, or None.
    probabilities: of the classes `[N, num_classes]`, or None.
    vectors: of length 1, `[N, D]`, or None.
  """

  row: np.ndarray
  label: np.ndarray | None = None
  probabilities: np.ndarray | None = None
  vectors: np.ndarray | None = None


def of_lines(
  workdir: pathlib.Path, lines: Sequence[Line]
) -> dict[str, Recorded]:
  """Returns title -> what the first seed of each line says, then the teacher.

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

  A report without it is better than none at the end of a long run.
  """
  try:
    with np.load(path) as file:
      return Recorded(**{k: file[k] for k in Recorded._fields if k in file})
  except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
    return None
