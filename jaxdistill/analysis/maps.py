"""Pictures of masks and depths: the image, the truth, and models' predictions.

Maps of integers hold classes, and maps of floats distances.
"""

from collections.abc import Mapping, Sequence
import colorsys
from typing import TYPE_CHECKING

import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError

if TYPE_CHECKING:
  from matplotlib import figure

# The value of pixels of a mask that belong to no class. The constant of `core`
# cannot be imported, because the report draws maps without JAX.
_IGNORE = 255
# The colours of distances from 0 to the largest one; their lightness falls.
_RAMP = np.array(
  [(253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84)]
)
# Inches.
_SIDE, _LEGEND, _SCALE = 1.7, 0.5, 0.9


def palette() -> np.ndarray:
  """Returns a colour for each value of a mask, uint8 `[256, 3]`.

  Neighbouring classes have hues far apart. `IGNORE`, 255, is black.
  """
  golden = (5**0.5 - 1) / 2
  colors = [
    colorsys.hsv_to_rgb(
      0.58 + i * golden, (0.75, 0.45)[i % 2], (0.9, 0.75)[i // 2 % 2]
    )
    for i in range(_IGNORE)
  ]
  return np.round(255 * np.array([*colors, (0, 0, 0)])).astype(np.uint8)


def colored(maps: np.ndarray, *, deepest: float = 1.0) -> np.ndarray:
  """Colours maps; pixels without a class or a distance are black.

  Args:
    maps: classes, integers `[..., H, W]`, or distances, floats `[..., H, W]`.
    deepest: the distance that gets the last colour.

  Returns:
    uint8 `[..., H, W, 3]`.
  """
  maps = np.asarray(maps)
  if maps.dtype.kind != 'f':
    return palette()[maps]
  place = np.clip(maps.astype(np.float64) / deepest, 0, 1) * (len(_RAMP) - 1)
  knots = np.arange(len(_RAMP))
  colors = [np.interp(place, knots, channel) for channel in _RAMP.T]
  known = np.expand_dims(maps > 0, -1)
  return np.where(known, np.round(np.stack(colors, -1)), 0).astype(np.uint8)


def deepest_in(truth: np.ndarray) -> float:
  """Returns the largest distance of maps; 1 if no distance is known."""
  return float(truth.max()) or 1.0


def nearest(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
  """Resizes maps; each pixel takes the value of the nearest one.

  Args:
    maps: `[..., h, w]`.
    size: the height and width of the result.
  """
  rows, columns = (
    (np.arange(new) * 2 + 1) * old // (2 * new)
    for old, new in zip(maps.shape[-2:], size)
  )
  result: np.ndarray = maps[..., rows[:, None], columns]
  return result


def classes_in(*maps: np.ndarray) -> list[int]:
  """Returns the classes that occur in maps, in ascending order."""
  occurring = set().union(*(np.unique(x).tolist() for x in maps))
  return sorted(occurring - {_IGNORE})


def draw(
  image: np.ndarray,
  truth: np.ndarray,
  predictions: Mapping[str, np.ndarray],
  *,
  label_names: Sequence[str] = (),
) -> 'figure.Figure':
  """Draws images with their true and their predicted maps, one image a row.

  Args:
    image: uint8 `[N, H, W, C]`.
    truth: integers or floats `[N, H, W]`.
    predictions: label of a model -> its predictions `[N, h, w]`, of any
      resolution.
    label_names: one per class, for the legend.

  Raises:
    UsageError: the truth does not have the size of the images, or a model does
      not have one prediction for each image.
  """
  image, truth = np.asarray(image), np.asarray(truth)
  if truth.shape != image.shape[:3]:
    raise UsageError(
      f'truth: expected maps {list(image.shape[:3])}, one for each image, got '
      f'{list(truth.shape)}'
    )
  columns = {'truth': truth}
  for label, maps in predictions.items():
    if np.ndim(maps) != 3 or len(maps) != len(image):
      raise UsageError(
        f'predictions: expected {len(image)} maps of {label!r}, got an array '
        f'{list(np.shape(maps))}'
      )
    columns[label] = nearest(np.asarray(maps), image.shape[1:3])
  deepest = deepest_in(truth)
  pictures = {'image': image[..., : 3 if image.shape[-1] >= 3 else 1]}
  for label, maps in columns.items():
    pictures[label] = colored(maps, deepest=deepest)
  is_depth = truth.dtype.kind == 'f'
  drawing = _grid(pictures, _SCALE if is_depth else 0.0)
  if is_depth:
    _depth_legend(drawing, deepest)
  else:
    _class_legend(drawing, classes_in(*columns.values()), label_names)
  return drawing


def _grid(pictures: Mapping[str, np.ndarray], space: float) -> 'figure.Figure':
  """Draws pictures `[N, H, W, C]` in columns, and leaves space at the right."""
  count, height, width = next(iter(pictures.values())).shape[:3]
  drawing = figures.empty(
    _SIDE * len(pictures) + space, _SIDE * height / width * count + _LEGEND
  )
  axes = drawing.subplots(count, len(pictures), squeeze=False)
  for column, (title, shown) in zip(axes.T, pictures.items()):
    column[0].set_title(title, fontsize=9)
    for place, picture in zip(column, shown):
      place.imshow(picture.squeeze(), cmap='gray', interpolation='nearest')
      place.set_axis_off()
  return drawing


def _class_legend(
  drawing: 'figure.Figure', classes: Sequence[int], label_names: Sequence[str]
) -> None:
  """Adds the colours of classes below a figure."""
  patches = optional.require('matplotlib.patches', 'a figure')
  colors = palette() / 255
  handles = [
    patches.Patch(
      color=colors[k],
      label=label_names[k] if k < len(label_names) else f'class {k}',
    )
    for k in classes
  ]
  drawing.legend(
    handles=handles,
    loc='outside lower center',
    ncols=min(6, max(1, len(handles))),
    fontsize=8,
    frameon=False,
  )


def _depth_legend(drawing: 'figure.Figure', deepest: float) -> None:
  """Adds the colours of distances at the right of a figure."""
  cm, colors = (
    optional.require(f'matplotlib.{part}', 'a figure')
    for part in ('cm', 'colors')
  )
  ramp = colors.LinearSegmentedColormap.from_list('depths', _RAMP / 255)
  bar = cm.ScalarMappable(colors.Normalize(0, deepest), ramp)
  drawing.colorbar(bar, ax=drawing.axes, shrink=0.8, label='distance')
