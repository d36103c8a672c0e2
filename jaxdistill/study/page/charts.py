"""The charts of a report, as SVG whose colours are those of the page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
from typing import NamedTuple

from jaxdistill.analysis.calibration import Bin
from jaxdistill.analysis.curves import Point
from jaxdistill.core.metric import Metric
from jaxdistill.study.page.markup import Element, element

# The page gives the classes c0, c1, ... their colours.
NUM_COLORS = 8
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 800.0, 52.0, 236.0, 14.0, 46.0
_LABEL_GAP = 17.0
_LONGEST_LABEL = 26
# More points than this cannot be told apart on a curve.
_MOST_POINTS = 80


class _Axis(NamedTuple):
  """A range of values along a range of pixels.

  Attributes:
    low: the value at `start`.
    high: the value at `stop`.
    start: the pixel of the low end.
    stop: the pixel of the high end.
    log: whether the logarithm of the value is drawn.
  """

  low: float
  high: float
  start: float
  stop: float
  log: bool = False

  def __call__(self, value: float) -> float:
    scale = math.log if self.log else float
    low, high = scale(self.low), scale(self.high)
    fraction = (scale(value) - low) / (high - low)
    return self.start + fraction * (self.stop - self.start)


def learning_curves(
  curves: Mapping[str, Sequence[Point]], score: Metric
) -> Element:
  """Draws scores during the training, with bands of one standard deviation.

  Args:
    curves: label -> points, whose x are steps; at least one curve has a point.
    score: the score.
  """
  curves = {label: _thinned(curve) for label, curve in curves.items()}
  points = [point for curve in curves.values() for point in curve]
  height = _height(len(curves))
  x = _Axis(0, max(p.x for p in points) or 1, _LEFT, _WIDTH - _RIGHT)
  y = _score_axis(points, height, score)
  ends = [y(curve[-1].mean) if curve else y.stop for curve in curves.values()]
  labels = spread(ends, _LABEL_GAP, _TOP, y.start)
  parts = [*_grid(x, y, 'training steps', f'validation {_titled(score)}')]
  for i, (label, curve) in enumerate(curves.items()):
    if curve:
      parts += _curve(i, curve, x, y)
      parts += _label(i, label, x.stop + 12, labels[i])
  last = ', '.join(
    f'{k} {v[-1].mean:.{score.digits}f}' for k, v in curves.items() if v
  )
  return _svg(
    height,
    f'Validation {score.name} during the training',
    f'Last values{_in_percent(score)}: {last}.',
    parts,
  )


def costs(points: Mapping[str, Point], score: Metric, cost: str) -> Element:
  """Draws scores against what a model costs.

  Args:
    points: label -> a point, whose x is the cost; at least one.
    score: the score.
    cost: what the cost is, with its unit: 'parameters'.
  """
  height = _height(len(points))
  low, high = (f(p.x for p in points.values()) for f in (min, max))
  log = 0 < low < high / 10
  margin = (high / low) ** 0.08 if log else max(high, 1) / 8
  x = _Axis(
    low / margin if log else low - margin,
    high * margin if log else high + margin,
    _LEFT,
    _WIDTH - _RIGHT,
    log,
  )
  y = _score_axis(list(points.values()), height, score)
  places = [y(point.mean) for point in points.values()]
  labels = spread(places, _LABEL_GAP, _TOP, y.start)
  parts = [*_grid(x, y, cost, f'test {_titled(score, ", last")}')]
  for i, (label, point) in enumerate(points.items()):
    parts += _size(i, point, x, y)
    parts += _label(i, label, x(point.x) + 12, labels[i], dash=False)
  values = ', '.join(
    f'{label} {_full(point.x)} {cost} and {point.mean:.{score.digits}f}'
    for label, point in points.items()
  )
  return _svg(
    height,
    f'Test {score.name} against {cost}',
    f'Values of the score{_in_percent(score)}: {values}.',
    parts,
  )


def reliability(curves: Mapping[str, Sequence[Bin]]) -> Element:
  """Draws the accuracy of classifiers against their confidence.

  Args:
    curves: label -> its intervals of confidence; at least one curve.
  """
  height = _height(len(curves))
  x = _Axis(0, 1, _LEFT, _WIDTH - _RIGHT)
  y = _Axis(0, 1, height - _BOTTOM, _TOP)
  labels = spread(
    [y(bins[-1].accuracy) for bins in curves.values()],
    _LABEL_GAP,
    _TOP,
    y.start,
  )
  parts = [*_grid(x, y, 'confidence', 'accuracy')]
  parts.append(_line(x.start, y.start, x.stop, y.stop, 'ideal'))
  for i, (label, bins) in enumerate(curves.items()):
    total = sum(b.size for b in bins)
    line = ' '.join(f'{x(b.confidence):.1f},{y(b.accuracy):.1f}' for b in bins)
    parts.append(element('polyline', points=line, class_=f'line {_c(i)}'))
    parts += [
      element(
        'circle',
        cx=x(b.confidence),
        cy=y(b.accuracy),
        r=1.5 + 5 * math.sqrt(b.size / total),
        class_=f'dot {_c(i)}',
      )
      for b in bins
    ]
    parts += _label(i, label, x.stop + 12, labels[i])
  most = ', '.join(
    f'{label} {100 * bins[-1].accuracy:.0f} % right with a confidence of '
    f'{100 * bins[-1].confidence:.0f} %'
    for label, bins in curves.items()
  )
  return _svg(
    height,
    'Accuracy against confidence',
    f'The most confident images: {most}.',
    parts,
  )


def spread(
  places: Sequence[float], gap: float, low: float, high: float
) -> list[float]:
  """Moves places on a line apart, in their order and within bounds.

  Args:
    places: where labels should be, in any order.
    gap: the smallest distance of two labels.
    low: the smallest place.
    high: the largest place; there must be room for all labels.

  Returns:
    One place for each label.
  """
  order = sorted(range(len(places)), key=lambda i: places[i])
  moved = list(places)
  limit = low
  for i in order:
    moved[i] = limit = max(moved[i], limit)
    limit += gap
  limit = high
  for i in reversed(order):
    moved[i] = limit = min(moved[i], limit)
    limit -= gap
  return moved


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Returns round numbers between two bounds: multiples of 1, 2 or 5.

  Args:
    low: the lower bound.
    high: the upper bound, above the lower one.
    count: about how many numbers.
  """
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [i * step for i in range(first, last + 1)]


def _height(count: int) -> float:
  """Returns a height with room for one label a line."""
  return max(340.0, _TOP + _BOTTOM + _LABEL_GAP * (count + 1))


def _titled(score: Metric, remark: str = '') -> str:
  unit = f' ({score.unit})' if score.unit else ''
  return f'{score.name}{remark}{unit}'


def _in_percent(score: Metric) -> str:
  return ' in percent' if score.percent else ''


def _score_axis(points: Sequence[Point], height: float, score: Metric) -> _Axis:
  low = min(point.mean - point.sd for point in points)
  high = max(point.mean + point.sd for point in points)
  margin = max(0.06 * (high - low), score.shown(0.005))
  return _Axis(low - margin, high + margin, height - _BOTTOM, _TOP)


def _thinned(curve: Sequence[Point]) -> list[Point]:
  """Returns evenly spaced points of a curve, with the first and the last."""
  if len(curve) <= _MOST_POINTS:
    return list(curve)
  step = (len(curve) - 1) / (_MOST_POINTS - 1)
  return [curve[round(i * step)] for i in range(_MOST_POINTS)]


def _grid(x: _Axis, y: _Axis, xlabel: str, ylabel: str) -> Iterator[Element]:
  """Yields the lines and numbers of both axes, and what the axes show."""
  for value in ticks(y.low, y.high):
    place = y(value)
    yield _line(x.start, place, x.stop, place, 'grid')
    yield _text(f'{value:.6g}', x.start - 8, place + 4, text_anchor='end')
  yield _line(x.start, y.start, x.stop, y.start, 'axis')
  for value in _log_ticks(x) if x.log else ticks(x.low, x.high):
    yield _line(x(value), y.start, x(value), y.start + 5, 'axis')
    yield _text(_short(value), x(value), y.start + 19, text_anchor='middle')
  middle = (x.start + x.stop) / 2
  yield _text(xlabel, middle, y.start + 38, text_anchor='middle')
  middle = (y.start + y.stop) / 2
  turned = f'rotate(-90 12 {middle:g})'
  yield _text(ylabel, 12, middle, text_anchor='middle', transform=turned)


def _log_ticks(axis: _Axis) -> list[float]:
  """Returns powers of ten between the ends, and 2 and 5 times these if few."""
  powers = range(math.floor(math.log10(axis.low)), 19)
  factors = (1,) if axis.high / axis.low > 1e3 else (1, 2, 5)
  values = [factor * 10.0**power for power in powers for factor in factors]
  return [value for value in values if axis.low <= value <= axis.high]


def _short(value: float) -> str:
  """Returns '20k' for 20000."""
  for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(value) >= size:
      return f'{value / size:.4g}{unit}'
  return f'{value:.4g}'


def _full(value: float) -> str:
  """Returns '20,000' for 20000 and '0.123' for 0.12345."""
  return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def _curve(
  i: int, curve: Sequence[Point], x: _Axis, y: _Axis
) -> Iterator[Element]:
  """Yields the band of a curve, if it has a width, and its line."""

  def path(points: Sequence[Point], height: Callable[[Point], float]) -> str:
    return ' '.join(f'{x(p.x):.1f},{y(height(p)):.1f}' for p in points)

  if any(point.sd for point in curve):
    above = path(curve, lambda p: p.mean + p.sd)
    below = path(curve[::-1], lambda p: p.mean - p.sd)
    yield element('polygon', points=f'{above} {below}', class_=f'band {_c(i)}')
  line = path(curve, lambda p: p.mean)
  yield element('polyline', points=line, class_=f'line {_c(i)}')
  end = curve[-1]
  yield element(
    'circle', cx=x(end.x), cy=y(end.mean), r=3.5, class_=f'dot {_c(i)}'
  )


def _size(i: int, point: Point, x: _Axis, y: _Axis) -> Iterator[Element]:
  """Yields a point with a bar of one standard deviation."""
  place = x(point.x)
  if point.sd:
    ends = y(point.mean - point.sd), y(point.mean + point.sd)
    yield _line(place, ends[0], place, ends[1], f'line {_c(i)}')
  yield element(
    'circle', cx=place, cy=y(point.mean), r=5.0, class_=f'dot {_c(i)}'
  )


def _label(
  i: int, label: str, x: float, y: float, *, dash: bool = True
) -> Iterator[Element]:
  """Yields the name of a curve behind a piece of its line, or of a point."""
  if dash:
    yield _line(x, y, x + 22, y, f'line {_c(i)}')
    x += 28
  is_long = len(label) > _LONGEST_LABEL
  short = f'{label[: _LONGEST_LABEL - 1]}…' if is_long else label
  text = _text(short, x, y + 4, class_=f'label {_c(i)}')
  if is_long:
    text.append(element('title', label))
  yield text


def _c(i: int) -> str:
  """Returns the classes of a colour and, when all are used, of its dashes."""
  return f'c{i % NUM_COLORS} d{i // NUM_COLORS % 3}'


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
  return element('line', x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _text(text: str, x: float, y: float, **attributes: str) -> Element:
  return element('text', text, x=float(x), y=float(y), **attributes)


def _svg(
  height: float, title: str, description: str, parts: Sequence[Element]
) -> Element:
  """Returns a picture that a screen reader reads as its title and content."""
  return element(
    'svg',
    element('title', title),
    element('desc', description),
    *parts,
    viewBox=f'0 0 {_WIDTH:g} {height:g}',
    role='img',
    aria_label=f'{title}. {description}',
  )
