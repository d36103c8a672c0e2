"""Calibration and predictions for single test images, as parts of a page."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
import itertools
import pathlib
from typing import Any

import numpy as np

from jaxdistill.analysis import calibration, detections
from jaxdistill.study import examples, recorded
from jaxdistill.study.examples import Compared
from jaxdistill.study.page import charts, dense, markup, pictures
from jaxdistill.study.page.markup import Element, element
from jaxdistill.study.recorded import Recorded
from jaxdistill.study.report import Line

# How many pairs of classes are listed.
_PAIRS = 10
# Objects with a lower score are not drawn.
_LEAST_SCORE = 0.3
# The colours of `detections.COLOURS`.
_COLOUR_NAMES = (
  *('red', 'blue', 'yellow', 'green', 'violet', 'turquoise', 'pink', 'olive'),
)


def parts(
  workdir: pathlib.Path, results: Mapping[str, Any], lines: Sequence[Line]
) -> Iterator[Element]:
  """Yields calibration, confused classes and examples, if they are recorded.

  Args:
    workdir: a work directory.
    results: the contents of its results.json.
    lines: the rows of the results.
  """
  names = results.get('label_names', ())

  def named(number: int) -> str:
    is_named = number < len(names)
    return str(names[number]) if is_named else f'class {number}'

  yield from _calibration(recorded.of_lines(workdir, lines))
  models = examples.compared(workdir, results)
  if models is None:
    return
  images = examples.read(workdir)
  if models.first.maps is not None:
    yield from dense.parts(
      models, images, examples.read(workdir, 'truth'), named
    )
    return
  if models.first.objects is not None:
    yield from _boxes(models, images, names)
    return
  if models.first.vectors is not None:
    yield from _neighbors(models, images, named)
    return
  yield from _confusions(models, named)
  yield from _differences(models, images, named)


def _calibration(models: Mapping[str, Recorded]) -> Iterator[Element]:
  """Yields a table and a reliability plot of the first seed of each row."""
  probabilities = {
    title: (np.asarray(model.probabilities, np.float64), model.label)
    for title, model in models.items()
    if model.probabilities is not None and model.label is not None
  }
  if not probabilities:
    return
  cells, curves = [], {}
  for title, (values, label) in probabilities.items():
    error = calibration.expected_calibration_error(values, label)
    accuracy = (values.argmax(-1) == label).mean()
    numbers = accuracy, values.max(-1).mean(), error
    cells.append((title, *(f'{100 * x:.2f}' for x in numbers)))
    curves[title] = calibration.reliability(values, label)
  yield element('h2', 'Calibration')
  columns = 'model', 'top1', 'mean confidence', 'calibration error'
  yield markup.table(columns, map(markup.row, cells))
  yield markup.figure(
    charts.reliability(curves),
    'Predictions of the first seed after the last epoch for at most '
    f'{recorded.MOST_IMAGES:,} test images, in 15 intervals of confidence. A '
    'larger dot stands for more images. Below the diagonal, a model is more '
    'confident than it is accurate. The expected calibration error is the '
    'mean distance of the images from the diagonal, in percent.',
  )


def _confusions(
  models: Compared, named: Callable[[int], str]
) -> Iterator[Element]:
  """Yields the classes that the models confuse most often."""
  label = models.first.label
  if label is None:
    return
  classes = models.probabilities.argmax(-1)
  counts = [
    Counter(
      (int(true), int(other))
      for true, other in zip(label, predicted)
      if true != other
    )
    for predicted in classes
  ]
  pairs = sorted(counts[0], key=lambda pair: (-counts[0][pair], pair))[:_PAIRS]
  if not pairs:
    return
  rows = [
    markup.row(
      (
        f'{named(pair[0])} taken for {named(pair[1])}',
        *(str(count[pair]) for count in counts),
        str(int(np.sum(label == pair[0]))),
      )
    )
    for pair in pairs
  ]
  yield element('h2', 'Confused classes')
  columns = 'mistake', *models.by_title, 'images of the class'
  yield markup.table(columns, rows)
  yield element(
    'p',
    f'The most frequent mistakes of {next(iter(models.by_title))}, and how '
    'often the others make them. Predictions of the first seed for '
    f'{len(label):,} test images.',
    class_='soft',
  )


def _differences(
  models: Compared,
  images: Mapping[int, np.ndarray],
  named: Callable[[int], str],
) -> Iterator[Element]:
  """Yields a few images for which the models predict different classes."""
  probabilities, shown = models.probabilities, []
  for i in examples.differing(models):
    row = int(models.first.row[i])
    if row not in images:
      continue
    lines = [
      f'{title}: {named(int(values[i].argmax()))} {100 * values[i].max():.0f} %'
      for title, values in zip(models.by_title, probabilities)
    ]
    title = f'image {row}'
    if models.first.label is not None:
      title = named(int(models.first.label[i]))
    shown.append(pictures.example(images[row], title, *lines))
  if not shown:
    return
  yield element('h2', 'Images on which the models differ')
  yield pictures.gallery(*shown)
  yield element(
    'p',
    'Test images with the predictions of the first seed and their '
    'probabilities. Images on which different models are right take turns, so '
    'that their number says nothing about accuracies.',
    class_='soft',
  )


def _boxes(
  models: Compared, images: Mapping[int, np.ndarray], names: Sequence[str]
) -> Iterator[Element]:
  """Yields a few images with the true objects and those of each model."""
  columns = {
    'truth': models.first.truth,
    **{title: model.objects for title, model in models.by_title.items()},
  }
  galleries, present = [], set()
  for i in examples.positions(models):
    row = int(models.first.row[i])
    if row not in images:
      continue
    size = images[row].shape[:2]
    shown = []
    for title, objects in columns.items():
      if objects is None:
        continue
      found = objects[i] * np.array((*size, *size, 1, 1), np.float64)
      present |= set(found[found[:, 5] >= 0, 5].astype(int).tolist())
      count = int(((found[:, 5] >= 0) & (found[:, 4] >= _LEAST_SCORE)).sum())
      image = detections.drawn(images[row], found, least_score=_LEAST_SCORE)
      shown.append(pictures.example(image, title, f'{count} objects'))
    galleries.append(pictures.gallery(*shown, class_='boxes'))
  if not galleries:
    return
  yield element('h2', 'Images with boxes')
  yield from galleries
  legend = ', '.join(
    f'{names[k] if k < len(names) else f"class {k}"} '
    f'({_COLOUR_NAMES[k % len(_COLOUR_NAMES)]})'
    for k in sorted(present)
  )
  yield element(
    'p',
    'Evenly spaced test images with their true objects, and with the objects '
    'that the models of the first seed find after the last epoch with a score '
    f'of at least {_LEAST_SCORE}. Colours of the classes: {legend or "none"}.',
    class_='soft',
  )


def _neighbors(
  models: Compared,
  images: Mapping[int, np.ndarray],
  named: Callable[[int], str],
) -> Iterator[Element]:
  """Yields the nearest neighbours of a few images by each model's vectors."""
  label, row = models.first.label, models.first.row

  def shown(i: int, *lines: str) -> Element:
    title = f'image {row[i]}' if label is None else named(int(label[i]))
    return pictures.example(images[int(row[i])], title, *lines)

  galleries = []
  for i, by_title in examples.neighbors(models).items():
    wanted = {int(row[k]) for k in (i, *itertools.chain(*by_title.values()))}
    if not wanted <= images.keys():
      continue
    for title, nearest in by_title.items():
      first = shown(i, title)
      others = [shown(k, f'neighbour {n + 1}') for n, k in enumerate(nearest)]
      galleries.append(pictures.gallery(first, *others))
  if not galleries:
    return
  yield element('h2', 'Nearest neighbours')
  yield from galleries
  yield element(
    'p',
    'Evenly spaced test images, each followed by its nearest neighbours among '
    f'{len(row):,} test images, by the cosine of the vectors of the named '
    'model. The vectors are those of the first seed.',
    class_='soft',
  )
