"""Images with their true and their predicted maps, as parts of a page."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from jaxdistill.analysis import maps
from jaxdistill.study.examples import Compared
from jaxdistill.study.page import pictures
from jaxdistill.study.page.markup import Element, element


def parts(
  models: Compared,
  images: Mapping[int, np.ndarray],
  truths: Mapping[int, np.ndarray],
  named: Callable[[int], str],
) -> Iterator[Element]:
  """Yields a gallery for each image: its truth, and what the models predict.

  Args:
    models: the predictions of the models.
    images: number in the test split -> image, uint8 `[H, W, C]`.
    truths: number in the test split -> classes or depths `[H, W]`.
    named: class -> its name.
  """
  rows = [int(row) for row in models.first.row]
  if not truths or not set(rows) <= images.keys() & truths.keys():
    return
  truth = np.stack([truths[row] for row in rows])
  columns = {
    'truth': truth,
    **{
      title: maps.nearest(np.asarray(model.maps), truth.shape[1:])
      for title, model in models.by_title.items()
    },
  }
  deepest = maps.deepest_in(truth)
  colors = {k: maps.colored(v, deepest=deepest) for k, v in columns.items()}
  yield element('h2', 'Predicted maps')
  for i, row in enumerate(rows):
    shown = [pictures.example(images[row], f'image {row}')]
    shown += [pictures.example(v[i], title) for title, v in colors.items()]
    yield pictures.gallery(*shown)
  if truth.dtype.kind == 'f':
    yield element('p', *_depths(deepest), class_='soft')
  else:
    classes = maps.classes_in(*columns.values())
    yield element('p', *_classes(classes, named), class_='soft')


def _classes(
  classes: Sequence[int], named: Callable[[int], str]
) -> Iterator[Element | str]:
  """Yields a caption with the colours of classes."""
  yield 'Evenly spaced test images and predictions of the first seed. Colours: '
  for k in classes:
    yield from (_swatch(maps.palette()[k]), f' {named(k)}; ')
  yield from (_swatch(maps.palette()[-1]), ' no class.')


def _depths(deepest: float) -> Iterator[Element | str]:
  """Yields a caption with the colours of distances."""
  yield 'Evenly spaced test images and predictions of the first seed. Colours: '
  for share in (0.25, 0.5, 0.75, 1.0):
    color = maps.colored(np.full((1, 1), share), deepest=1.0)[0, 0]
    yield from (_swatch(color), f' {share * deepest:.3g}; ')
  yield from (_swatch(np.zeros(3, np.uint8)), ' unknown.')


def _swatch(color: np.ndarray) -> Element:
  """Returns a square of a colour."""
  background = f'background:#{bytes(color).hex()}'
  return element('span', class_='swatch', style=background)
