"""Verdicts: differences of scores against what their spread resolves."""

import math

import pytest

from jaxdistill.study import verdicts
from jaxdistill.study.verdicts import verdict


def test_the_quickstart_has_the_numbers_of_the_results():
  """88.55 ± 2.25 and 92.69 ± 0.84: pooled sd 1.70, and 2.77 is resolved."""
  alone = [88.55 - 2.25, 88.55, 88.55 + 2.25]
  distilled = [92.69 - 0.84, 92.69, 92.69 + 0.84]
  assert verdicts.pooled_sd((alone, distilled)) == pytest.approx(1.6983, 1e-4)
  helps = verdict(distilled, alone)
  assert helps.word == 'HELPS'
  assert helps.gain == pytest.approx(4.14)
  assert helps.resolves == pytest.approx(2.7733, 1e-4)
  # 8 sd**2 / gain**2 = 1.35, and two seeds are the fewest with a spread.
  assert helps.seeds_needed == 2
  assert verdicts.sentence(helps) == '+4.14 points, and 3 seeds resolve 2.77'


@pytest.mark.parametrize(
  ('scores', 'reference', 'word', 'gain', 'resolves'),
  [
    # Both rows have the variance 2, so 2 sqrt(2) sqrt(1/2 + 1/2) is resolved.
    ([73.0, 75.0], [70.0, 72.0], 'HELPS', 3.0, math.sqrt(8)),
    ([72.0, 74.0], [70.0, 72.0], 'NO GAIN', 2.0, math.sqrt(8)),
    ([68.0, 70.0], [70.0, 72.0], 'NO GAIN', -2.0, math.sqrt(8)),
    ([67.0, 69.0], [70.0, 72.0], 'HURTS', -3.0, math.sqrt(8)),
    # Pooled over 1 + 2 degrees of freedom: (2 + 2 * 1) / 3 = 4 / 3.
    ([80.0, 82.0], [70.0, 71.0, 72.0], 'HELPS', 10.0, math.sqrt(40 / 9)),
    # Seeds that agree exactly resolve every difference, but not zero.
    ([71.0, 71.0], [70.0, 70.0], 'HELPS', 1.0, 0.0),
    ([69.0, 69.0], [70.0, 70.0], 'HURTS', -1.0, 0.0),
    ([70.0, 70.0], [70.0, 70.0], 'NO GAIN', 0.0, 0.0),
  ],
)
def test_a_difference_counts_if_it_is_larger_than_what_is_resolved(
  scores, reference, word, gain, resolves
):
  result = verdict(scores, reference)
  assert result.word == word
  assert result.gain == pytest.approx(gain)
  assert result.resolves == pytest.approx(resolves)


def test_the_number_of_seeds_that_resolve_a_difference_is_the_smallest():
  """The sd is sqrt(2) and the difference 2, so n must exceed 8 * 2 / 4 = 4."""
  result = verdict([72.0, 74.0], [70.0, 72.0])
  assert result.seeds_needed == 5
  sd = math.sqrt(2)
  assert 2 * sd * math.sqrt(2 / 5) < 2 <= 2 * sd * math.sqrt(2 / 4)
  assert verdicts.sentence(result) == (
    '+2.00 points, and 2 seeds resolve only 2.83; about 5 seeds would resolve '
    'it'
  )


@pytest.mark.parametrize(
  ('scores', 'reference'), [([90.0], [80.0, 82.0]), ([90.0, 92.0], [80.0])]
)
def test_a_single_seed_is_unclear_and_other_rows_say_how_many_it_takes(
  scores, reference
):
  result = verdict(scores, reference, other_sd=9.0)
  assert (result.word, result.resolves) == ('UNCLEAR', None)
  # 8 * 81 / gain**2, with gains of 9 and 11.
  assert result.seeds_needed == {9.0: 9, 11.0: 6}[result.gain]
  text = verdicts.sentence(result)
  assert f'about {result.seeds_needed} seeds would resolve it' in text


def test_without_any_spread_a_single_seed_is_told_to_get_company():
  result = verdict([90.0], [80.0])
  assert result[:4] == ('UNCLEAR', 10.0, None, None)
  assert 'at least 3 seeds' in verdicts.sentence(result)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_unclear(value):
  result = verdict([value, 80.0], [80.0, 81.0])
  assert result.word == 'UNCLEAR'
  assert 'not finite' in verdicts.sentence(result)
