"""Verification: vectors that tell apart identities that training never saw."""

from collections.abc import Iterator, Mapping, Sequence
import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill import losses
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Batch,
  Dataset,
  Metric,
  Metrics,
  Output,
  Task,
)
from jaxdistill.losses import numerics
from jaxdistill.tasks import comparison
from jaxdistill.tasks.classification import check_labels, one_hot

# Metric -> the false acceptance rate for which the metric is the true one.
RATES = {'tar@0.01': 0.01, 'tar@0.001': 0.001}
# Metric -> its rank.
RANKS = {'rank1': 1, 'rank5': 5}
# The columns besides the label that say how test images are compared.
PROTOCOL = ('template', 'gallery', 'protocol')
_MARGINS = {'cosface': losses.cosface_loss, 'arcface': losses.arcface_loss}
_LOSSES = ('softmax', *_MARGINS)
_HEAD, _EMBEDDING, _SCALE = 'head', 'embedding', 'head.scale'


def verification(
  *,
  loss: str = 'softmax',
  margin: float | None = None,
  score: str = 'tar@0.01',
) -> Task:
  """Returns the task of verification, for faces and re-identification.

  The network has the outputs 'head', the logits `[B, num_classes]` of the
  identities of training, and 'embedding', `[B, D]`; the network `embedded` has
  them. The logits are used in training only. Validation and test images belong
  to other identities, and are compared by the cosines of their embeddings. An
  exported file gives an embedding that is divided by its length.

  The metrics 'tar@0.01' and 'tar@0.001' are the fraction of the genuine pairs
  (those of one identity) that are accepted at the threshold at which at most
  1 % or 0.1 % of the impostor pairs (those of two identities) are accepted. The
  metrics 'rank1' and 'rank5' are the fraction of the probes whose identity is
  among the one or five most similar entries of the gallery. A rate is only
  measured if, rounded, at least 10 impostor pairs may be accepted. The columns
  'template', 'gallery' and 'protocol' of the data are optional, see
  `tasks.comparison.layouts`. With several splits of a protocol, the metrics are
  means over them, and 'tar@0.01/sd' and so on are the standard deviations.

  The agreement of two models is the correlation of the cosines that they give
  to all pairs of images.

  Args:
    loss: 'softmax', the cross-entropy, or 'cosface' or 'arcface', which are
      `losses.cosface_loss` and `losses.arcface_loss` and need the network
      `embedded` with a `scale`.
    margin: the margin of 'cosface' or 'arcface'; None: 0.35 for 'cosface' and
      0.5 radians for 'arcface'.
    score: the metric that chooses the best epoch.

  Raises:
    UsageError: there is no such loss or score, the margin is out of its range,
      or a margin is given for the softmax.
  """
  checks.choice('loss', loss, _LOSSES)
  checks.choice('score', score, (*RATES, *RANKS))
  if loss == 'softmax' and margin is not None:
    raise UsageError(
      f"margin: expected the loss 'cosface' or 'arcface' with it, got {loss!r}"
    )
  if margin is not None:  # a margin that is out of its range is refused here
    _MARGINS[loss](jnp.zeros((1, 2)), jnp.zeros((1, 2)), margin=margin)
  return Task(
    'verification',
    functools.partial(
      _loss, loss, {} if margin is None else {'margin': margin}
    ),
    _statistics,
    _summarize,
    _progress,
    lambda outputs, batch: _embedding(outputs),
    _agreement,
    Metric(score),
    final=lambda outputs, size: _embedding(outputs),
    final_name='embedding of length 1',
    check=functools.partial(check_identities, score=score),
    notes=_notes,
  )


def check_identities(dataset: Dataset, *, score: str = 'tar@0.01') -> None:
  """Checks that the splits of a data set suit verification.

  Args:
    dataset: the data.
    score: the metric that must be measurable on each split of evaluation.

  Raises:
    UsageError: a training label is not a class; two of the splits for training,
      validation and test share an identity; a template has images of several
      identities, or of both the gallery and the probes; or a split has
      too few pairs or probes for the score.
  """
  splits = {
    name: dataset.splits[name]
    for name in ('train', 'validation', 'test')
    if name in dataset.splits
  }
  check_labels(dataset._replace(splits={'train': splits['train']}))
  for (name, split), (other, other_split) in itertools.combinations(
    splits.items(), 2
  ):
    shared = np.intersect1d(split['label'], other_split['label'])
    if len(shared):
      raise UsageError(
        f'identities: expected other identities in the split {other!r} than in '
        f'{name!r}, got {len(shared)} in both, for example '
        f'{_named(dataset, shared[0])}; the data set identities splits images '
        'by identity'
      )
  for name in splits.keys() - {'train'}:
    _check_templates(name, splits[name])
    if missing := [*_missing(splits[name], (score,))]:
      raise UsageError(
        f'task.score: expected a split {name!r} in which {score!r} can be '
        f'measured, got {missing[0][1]}; choose another score or split'
      )


def _named(dataset: Dataset, label: int) -> str:
  names = dataset.label_names
  return repr(names[label]) if 0 <= label < len(names) else str(label)


def _check_templates(name: str, split: Mapping[str, Any]) -> None:
  """Raises UsageError if the columns of a template contradict each other."""
  for layout in comparison.layouts(split):
    for column in ('label', 'gallery'):
      values = np.asarray(split.get(column, split['label']))[layout.rows]
      low = np.full(len(layout.identity), np.iinfo(np.int64).max)
      high = np.full(len(layout.identity), np.iinfo(np.int64).min)
      np.minimum.at(low, layout.member, values)
      np.maximum.at(high, layout.member, values)
      if (low != high).any():
        raise UsageError(
          f'template: expected one {column} for all images of a template in '
          f'the split {name!r}, got {low[low != high][0]} and '
          f'{high[low != high][0]}'
        )


def _missing(
  split: Mapping[str, Any], metrics: Sequence[str]
) -> Iterator[tuple[str, str]]:
  """Yields the metrics that cannot be measured on a split, and the reasons."""
  layouts = comparison.layouts(split)
  for metric in metrics:
    for layout in layouts:
      genuine, impostor, ranked = comparison.counts(layout)
      if metric in RANKS and not ranked:
        yield metric, 'no probe whose identity is in the gallery'
        break
      if metric in RATES and not comparison.suffices(layout, RATES[metric]):
        yield metric, f'{genuine:,} genuine and {impostor:,} impostor pairs'
        break


def _notes(dataset: Dataset) -> tuple[str, ...]:
  """Says which metrics the test split does not allow, and why."""
  return tuple(
    f'verification: {metric} is not measured on test, which has {reason}'
    for metric, reason in _missing(dataset.splits['test'], (*RATES, *RANKS))
  )


def _loss(
  name: str, arguments: dict[str, Any], outputs: Output, batch: Batch
) -> Array:
  logits = _output(outputs, _HEAD).astype(jnp.float32)
  target = one_hot(batch['label'], logits.shape[-1])
  if name == 'softmax':
    return optax.softmax_cross_entropy(logits, target)
  scale = _output(outputs, _SCALE)
  return _MARGINS[name](logits / scale, target, scale=scale, **arguments)


def _output(outputs: Output, name: str) -> Array:
  """Returns one of the outputs of a network."""
  if not isinstance(outputs, dict) or name not in outputs:
    got = ', '.join(outputs) if isinstance(outputs, dict) else 'a single output'
    scale = ' with a scale' if name == _SCALE else ''
    raise UsageError(
      f'verification: expected a network with the output {name!r}, such as '
      f"'embedded'{scale}, got {got}"
    )
  return outputs[name]


def _embedding(outputs: Output) -> Array:
  """Returns the embeddings with length 1, also of what `final` has returned."""
  if isinstance(outputs, dict):
    outputs = _output(outputs, _EMBEDDING)
  return numerics.normalize(jnp.asarray(outputs).astype(jnp.float32))


def _statistics(outputs: Output, batch: Batch) -> dict[str, Array]:
  columns = {k: batch[k] for k in ('label', *PROTOCOL) if k in batch}
  return {'embedding': _embedding(outputs), **columns}


def _summarize(statistics: dict[str, np.ndarray]) -> dict[str, float]:
  missing = {metric for metric, _ in _missing(statistics, (*RATES, *RANKS))}
  rates = {k: v for k, v in RATES.items() if k not in missing}
  ranks = {k: v for k, v in RANKS.items() if k not in missing}
  embedding, splits = statistics['embedding'], []
  for layout in comparison.layouts(statistics):
    values: dict[str, float] = {}
    if rates:
      curve = comparison.roc(comparison.pairs(embedding, layout))
      values |= {k: comparison.acceptance(curve, v) for k, v in rates.items()}
    if ranks:
      accuracies = comparison.rank_accuracies(embedding, layout, ranks.values())
      values |= dict(zip(ranks, accuracies))
    splits.append(values)
  metrics = {k: float(np.mean([s[k] for s in splits])) for k in splits[0]}
  if len(splits) > 1:
    for name in splits[0]:
      sd = np.std([values[name] for values in splits], ddof=1)
      metrics[f'{name}/sd'] = float(sd)
  return metrics


def _progress(outputs: Output, batch: Batch) -> Metrics:
  """Returns the accuracy of the classifier on the identities of training."""
  logits = _output(outputs, _HEAD)
  target = one_hot(batch['label'], logits.shape[-1]).argmax(-1)
  return {'top1': (logits.argmax(-1) == target).mean(dtype=jnp.float32)}


def _agreement(student: np.ndarray, teacher: np.ndarray) -> float:
  """Returns the correlation of the cosines of all pairs of images.

  With the embeddings as rows of the matrices X and Y, the sum over all pairs of
  the products of their cosines is ||X^T Y||**2, so the cosine of no single pair
  has to be computed.
  """
  x, y = (np.asarray(v, np.float64) for v in (student, teacher))
  count = len(x) * (len(x) - 1)
  if not count:
    return 1.0

  def product(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mean over pairs of different images."""
    own = ((a**2).sum(1) * (b**2).sum(1)).sum()
    return float(((a.T @ b) ** 2).sum() - own) / count

  def mean(a: np.ndarray) -> float:
    return float((a.sum(0) ** 2).sum() - (a**2).sum()) / count

  covariance = product(x, y) - mean(x) * mean(y)
  variances = [product(a, a) - mean(a) ** 2 for a in (x, y)]
  scale = float(np.sqrt(max(variances[0], 0) * max(variances[1], 0)))
  return covariance / scale if scale > 1e-12 else float(np.allclose(x, y))
