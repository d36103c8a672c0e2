"""Verdicts: whether a row differs from another by more than chance explains.

A difference is *resolved* if it is larger than

  2 sd sqrt(1 / n + 1 / m)

where sd is the standard deviation over seeds, pooled over both rows, and n and
m are their numbers of seeds. With n = m this is 2 sd sqrt(2 / n).
"""

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdistill.core.metric import Metric
from jaxdistill.study import report
from jaxdistill.study.report import Line

Word = Literal['HELPS', 'HURTS', 'NO GAIN', 'UNCLEAR']
# A number of seeds that nobody trains is not worth printing.
_MOST_SEEDS = 1000
_SCORE = Metric('score')


class Verdict(NamedTuple):
  """What the scores of a row say against those of the reference.

  Attributes:
    word: 'HELPS' and 'HURTS' if the difference is resolved, 'NO GAIN' if not,
      and 'UNCLEAR' if one of the rows has a single seed or scores that are not
      finite.
    gain: the mean score of the row less that of the reference, which is
      negative for an improvement if lower scores are better.
    resolves: the smallest difference that is resolved; None if unknown.
    seeds_needed: the number of seeds with which a difference of this size would
      be resolved; None if the spread is unknown or the difference is zero.
    seeds: the numbers of seeds of the row and of the reference.
    score: what was compared.
  """

  word: Word
  gain: float
  resolves: float | None
  seeds_needed: int | None
  seeds: tuple[int, int]
  score: Metric = _SCORE


def verdict(
  scores: Sequence[float],
  reference: Sequence[float],
  *,
  score: Metric = _SCORE,
  other_sd: float | None = None,
) -> Verdict:
  """Compares the scores of a row with those of the reference.

  Args:
    scores: one score for each seed of the row.
    reference: one score for each seed of the reference.
    score: says which scores are better and how they are shown.
    other_sd: the standard deviation of other rows, from which the number of
      seeds is estimated if one of these rows has a single seed.
  """
  counts = len(scores), len(reference)
  gain = float(np.mean(scores) - np.mean(reference))
  if not math.isfinite(gain):
    return Verdict('UNCLEAR', gain, None, None, counts, score)
  if min(counts) < 2:
    needed = _seeds_needed(gain, other_sd)
    return Verdict('UNCLEAR', gain, None, needed, counts, score)
  sd = pooled_sd((scores, reference)) or 0.0
  resolves = 2 * sd * math.sqrt(sum(1 / count for count in counts))
  word: Word = 'NO GAIN'
  if abs(gain) > resolves:
    word = 'HELPS' if score.quality(gain) > 0 else 'HURTS'
  needed = _seeds_needed(gain, sd)
  return Verdict(word, gain, resolves, needed, counts, score)


def pooled_sd(samples: Iterable[Sequence[float]]) -> float | None:
  """Returns the pooled standard deviation of samples.

  Args:
    samples: samples with means of their own; those of one value do not count.

  Returns:
    The root of the mean variance, weighted by the degrees of freedom; None if
    no sample has two values.
  """
  several = [sample for sample in samples if len(sample) > 1]
  if not several:
    return None
  squares = sum(float(np.var(s, ddof=1)) * (len(s) - 1) for s in several)
  return math.sqrt(squares / sum(len(sample) - 1 for sample in several))


def of_results(
  results: Mapping[str, Any],
) -> tuple[Line | None, dict[str, Verdict]]:
  """Returns the reference and the verdict on each other student.

  If several metrics compare the students, each verdict has the name of its
  metric in its title.

  Args:
    results: see `results.collect`.
  """
  lines, metrics = report.grouped(results), report.compared_by(results)
  if len(metrics) == 1:
    return judged(lines, metrics[0])
  reference: Line | None = None
  others: dict[str, Verdict] = {}
  for metric in metrics:
    reference, verdicts = judged(lines, metric)
    named = {f'{title}, {metric.name}': v for title, v in verdicts.items()}
    others |= named
  return reference, others


def judged(
  lines: Sequence[Line], score: Metric
) -> tuple[Line | None, dict[str, Verdict]]:
  """Returns the reference and the verdict on each other student.

  The reference is the row that learns labels without a teacher, if there is
  exactly one, and else the first student.

  Args:
    lines: the rows of a result, with the trials of each sweep together.
    score: the score.
  """
  students = [line for line in lines if line.is_student]
  alone = [line for line in students if line.is_supervised]
  reference, *_ = alone if len(alone) == 1 else [*students, None]
  if reference is None:
    return None, {}
  scores = {line.title: line.scores(score) for line in students}
  sd = pooled_sd(scores.values())
  others = {
    title: verdict(sample, scores[reference.title], score=score, other_sd=sd)
    for title, sample in scores.items()
    if title != reference.title
  }
  return reference, others


def sentence(verdict: Verdict) -> str:
  """Says in words, without the verdict itself, what it rests on.

  Args:
    verdict: of scores as they are shown.
  """
  score, digits = verdict.score, verdict.score.digits
  unit = 'points' if score.percent else score.name
  gain = f'{verdict.gain:+.{digits}f} {unit}'
  if not score.higher:
    gain += ' (lower is better)'
  count = ' and '.join(map(str, dict.fromkeys(verdict.seeds)))
  needed = ''
  if verdict.seeds_needed is not None:
    needed = f'about {verdict.seeds_needed:,} seeds would resolve it'
  if not math.isfinite(verdict.gain):
    return 'the scores are not finite'
  if verdict.resolves is None:
    text = f'{gain}, but a single seed does not show how much chance adds'
    if not needed:
      return f'{text}; train at least 3 seeds of each row'
    return f'{text}; with the spread of the other rows, {needed}'
  if verdict.word == 'NO GAIN':
    text = (
      f'{gain}, and {count} seeds resolve only {verdict.resolves:.{digits}f}'
    )
    return f'{text}; {needed}' if needed else text
  return f'{gain}, and {count} seeds resolve {verdict.resolves:.{digits}f}'


def _seeds_needed(gain: float, sd: float | None) -> int | None:
  """Returns the smallest n of at least 2 with 2 sd sqrt(2 / n) < |gain|."""
  if sd is None or gain == 0:
    return None
  needed = 8 * (sd / gain) ** 2
  return max(2, math.floor(needed) + 1) if needed < _MOST_SEEDS else None
