"""Pictures with boxes: the objects of images, and those that models find."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError

if TYPE_CHECKING:
  from matplotlib import figure

# The colours of the classes, in turn.
COLOURS = (
  *((230, 60, 50), (50, 120, 220), (250, 180, 30), (60, 170, 80)),
  *((150, 80, 190), (60, 200, 210), (240, 110, 180), (150, 150, 60)),
)


def objects(
  boxes: np.ndarray, classes: np.ndarray, scores: float | np.ndarray = 1.0
) -> np.ndarray:
  """Returns boxes in the form of predictions of the task `detection`.

  Args:
    boxes: `[N, M, 4]`.
    classes: `[N, M]`; -1 for no box.
    scores: `[N, M]`, or one score for all.

  Returns:
    `[N, M, 6]`: the box, its score and its class.
  """
  scores = np.broadcast_to(scores, classes.shape)
  return np.concatenate([boxes, np.stack([scores, classes], -1)], axis=-1)


def drawn(
  image: np.ndarray, found: np.ndarray, *, least_score: float = 0.3
) -> np.ndarray:
  """Returns an image with the boxes of objects, uint8 `[H, W, 3]`.

  The colour of a box says its class; see `COLOURS`.

  Args:
    image: uint8 `[H, W, 1]` or `[H, W, 3]`.
    found: (top, left, bottom, right, score, class) of each object, `[D, 6]`, in
      pixels; rows with the class -1 are left out.
    least_score: objects with a lower score are left out.
  """
  picture = np.repeat(image, 3 // image.shape[-1], axis=-1)
  height, width = image.shape[:2]
  line = max(1, round(max(height, width) / 200))
  is_shown = (found[:, 5] >= 0) & (found[:, 4] >= least_score)
  # Objects with high scores are drawn last, above the others.
  for *box, _, label in found[is_shown][np.argsort(found[is_shown, 4])]:
    limits = np.array((height, width, height, width)) - 1
    top, left, bottom, right = np.clip(np.round(box), 0, limits).astype(int)
    colour = COLOURS[int(label) % len(COLOURS)]
    picture[top : bottom + 1, left : right + 1][
      frame((bottom - top + 1, right - left + 1), line)
    ] = colour
  return picture


def frame(shape: tuple[int, int], line: int) -> np.ndarray:
  """Returns which pixels of a rectangle are its border, booleans `[H, W]`.

  Args:
    shape: the height and width of the rectangle.
    line: the width of the border.
  """
  is_border = np.ones(shape, bool)
  is_border[line:-line, line:-line] = False
  return is_border


def draw(
  images: np.ndarray,
  found: Mapping[str, np.ndarray],
  *,
  label_names: Sequence[str] = (),
  least_score: float = 0.3,
) -> 'figure.Figure':
  """Draws images in rows, with the objects of the truth and of each model.

  Args:
    images: uint8 `[N, H, W, C]`.
    found: title of a column -> objects, `[N, D, 6]`, see `drawn`; for example
      'truth', 'student' and 'teacher', from `objects` and
      `tasks.evaluation.predict`.
    label_names: the names of the classes, for the legend.
    least_score: objects with a lower score are left out.

  Raises:
    UsageError: a column does not have one row for each image, or the score is
      not in [0, 1].
  """
  checks.number('least_score', least_score, at_least=0, at_most=1)
  for title, column in found.items():
    if len(column) != len(images) or np.shape(column)[2:] != (6,):
      raise UsageError(
        f'found: expected objects [{len(images)}, D, 6] for {title!r}, got '
        f'{list(np.shape(column))}'
      )
  height, width = images.shape[1:3]
  side = 2.5
  drawing = figures.empty(
    side * len(found), side * height / width * len(images) + 0.6
  )
  for i, image in enumerate(images):
    for j, (title, column) in enumerate(found.items()):
      axes = drawing.add_subplot(
        len(images), len(found), i * len(found) + j + 1
      )
      axes.imshow(drawn(image, column[i], least_score=least_score))
      axes.set(xticks=(), yticks=())
      axes.set_title(title if i == 0 else '', fontsize=9)
  for number, name in enumerate(label_names):
    colour = COLOURS[number % len(COLOURS)]
    (handle,) = axes.plot([], [], color=[c / 255 for c in colour], label=name)
    handle.set_linewidth(3)
  if label_names:
    drawing.legend(loc='outside lower center', ncols=len(label_names))
  return drawing
