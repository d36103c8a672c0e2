"""ROC curves of embeddings, and pairs on which two models disagree."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Augment, Model
from jaxdistill.tasks import comparison, evaluation
from jaxdistill.tasks.verification import verification

if TYPE_CHECKING:
  from matplotlib import figure

# The false acceptance rates at which curves are drawn.
_RATES = np.logspace(-4, 0, 200)


class Flip(NamedTuple):
  """A pair of templates on which two models disagree.

  Attributes:
    first: the row of the first image of one template.
    second: the row of the first image of the other template.
    genuine: whether both templates belong to the same identity.
    is_gain: whether the student is right and the other model wrong.
    student: the student's cosine minus its threshold.
    baseline: the other model's cosine minus its own threshold.
  """

  first: int
  second: int
  genuine: bool
  is_gain: bool
  student: float
  baseline: float


def embeddings(
  model: Model, split: Mapping[str, Any], preprocess: Augment
) -> np.ndarray:
  """Returns the embeddings of the images of a split, of length 1, `[N, D]`.

  Args:
    model: a network with the output 'embedding', and its variables.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`, ...}.
    preprocess: the preprocessing for evaluation (standardisation).
  """
  task = verification()
  return np.asarray(evaluation.predict(model, split, task, preprocess))


def roc(
  embedding: np.ndarray, split: Mapping[str, Any]
) -> list[comparison.Roc]:
  """Returns the ROC curve of each split of the protocol.

  Args:
    embedding: from `embeddings`.
    split: the labels, and the optional columns of the protocol.
  """
  return [
    comparison.roc(comparison.pairs(embedding, layout))
    for layout in comparison.layouts(split)
  ]


def draw_roc(
  curves: Mapping[str, Sequence[comparison.Roc]],
) -> 'figure.Figure':
  """Draws true against false acceptance rates, on a logarithmic axis.

  For several splits of a protocol, it draws their mean, with a band of one
  standard deviation.

  Args:
    curves: label of a model -> its curves, from `roc`.
  """
  drawing = figures.empty(5, 3.5)
  axes = drawing.add_subplot()
  for label, splits in curves.items():
    tar = 100 * np.stack(
      [
        [comparison.acceptance(curve, rate) for rate in _RATES]
        for curve in splits
      ]
    )
    (line,) = axes.plot(_RATES, tar.mean(0), label=label)
    if len(splits) > 1:
      sd = tar.std(0, ddof=1)
      band = (tar.mean(0) - sd, tar.mean(0) + sd)
      axes.fill_between(_RATES, *band, color=line.get_color(), alpha=0.15)
  axes.set(
    xlabel='false acceptance rate',
    ylabel='true acceptance rate (%)',
    xscale='log',
  )
  axes.legend()
  return drawing


def flips(
  student: np.ndarray,
  baseline: np.ndarray,
  split: Mapping[str, Any],
  *,
  far: float = 0.01,
) -> list[Flip]:
  """Returns the pairs that only one of two models decides correctly.

  Each model accepts a pair if its cosine reaches the smallest threshold at
  which its own false acceptance rate is at most `far`. The first split of the
  protocol is used. The pairs on which the models differ most come first.

  Args:
    student: the embeddings of the student, from `embeddings`, `[N, D]`.
    baseline: those of another model, such as the student without a teacher.
    split: the labels, and the optional columns of the protocol.
    far: the false acceptance rate.

  Raises:
    UsageError: the rate is not in (0, 1), or the models have embeddings of
      different numbers of images.
  """
  checks.number('far', far, above=0, below=1)
  if len(student) != len(baseline):
    raise UsageError(
      f'flips: expected embeddings of the same images, got {len(student)} and '
      f'{len(baseline)}'
    )
  layout = comparison.layouts(split)[0]
  pairs = [comparison.pairs(x, layout) for x in (student, baseline)]
  genuine = pairs[0].genuine
  above = [_above(x, far) for x in pairs]
  right = [(x >= 0) == genuine for x in above]
  _, member = np.unique(layout.member, return_index=True)
  first, second = (
    layout.rows[member[x]] for x in (pairs[0].first, pairs[0].second)
  )
  differing = np.flatnonzero(right[0] != right[1])
  order = np.argsort(-np.abs(above[0] - above[1])[differing], kind='stable')
  return [
    Flip(
      int(first[i]),
      int(second[i]),
      bool(genuine[i]),
      bool(right[0][i]),
      float(above[0][i]),
      float(above[1][i]),
    )
    for i in differing[order]
  ]


def draw_flips(
  pairs: Sequence[Flip], split: Mapping[str, Any], *, count: int = 8
) -> 'figure.Figure':
  """Draws pairs of images: what the student gains above what it loses.

  A pair of the same identity has a green frame, any other pair a red one.

  Args:
    pairs: from `flips`.
    split: {'image': uint8 `[N, H, W, C]`, ...}.
    count: the largest number of gains, and likewise of losses, that are drawn.

  Raises:
    UsageError: the count is not a whole number of at least 1.
  """
  checks.integer('count', count)
  rows = [[p for p in pairs if p.is_gain is gain] for gain in (True, False)]
  columns = max(1, *(min(count, len(row)) for row in rows))
  drawing = figures.empty(1.2 * columns, 4.4)
  for i, (row, title) in enumerate(zip(rows, ('gained', 'lost'))):
    for j, pair in enumerate(row[:columns]):
      axes = drawing.add_subplot(2, columns, i * columns + j + 1)
      images = np.asarray(split['image'][np.array([pair.first, pair.second])])
      both = np.concatenate(images)
      axes.imshow(both[..., 0] if both.shape[-1] == 1 else both, cmap='gray')
      axes.set(xticks=(), yticks=())
      axes.set_title(f'{title} ({len(row)})' if j == 0 else '', fontsize=8)
      for spine in axes.spines.values():
        spine.set(color='green' if pair.genuine else 'red', linewidth=2)
  return drawing


def _above(pairs: comparison.Pairs, far: float) -> np.ndarray:
  """Returns each pair's cosine minus the threshold at a FAR, `[P]`."""
  curve = comparison.roc(pairs)
  threshold = curve.threshold[comparison.position(curve, far)]
  # No finite cosine is above 1, so this replaces an infinite threshold.
  return pairs.cosine - min(threshold, 1 + 1e-6)
