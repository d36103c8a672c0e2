"""Curves of results."""

import numpy as np
import pytest

from jaxdistill.analysis import curves
from jaxdistill.types import UsageError


@pytest.fixture
def results():
  def row(label, *scores):
    seeds = {
      str(i): {'test': {'last': {'top1': s}, 'best': {'top1': s + 0.1}}}
      for i, s in enumerate(scores)
    }
    return {'label': label, 'seeds': seeds}

  rows = [row('a', 0.5, 0.7), row('b', 0.25), row('alone', 0.1)]
  return {'rows': rows, 'score': 'top1'}


def test_points_are_means_and_deviations_in_percent(results):
  found = curves.points(results, {2.0: 'a', 1.0: 'b'})
  # The sample's deviation of 50 and 70 is sqrt(200).
  assert found[0] == pytest.approx((2.0, 60.0, 200**0.5))
  assert found[1] == pytest.approx((1.0, 25.0, 0.0))
  best = curves.points(results, {1.0: 'b'}, when='best')
  assert best[0].mean == pytest.approx(35.0)


def test_a_figure_shows_every_line_and_level(results):
  made = curves.draw(
    {'sskd': curves.points(results, {1: 'b', 2: 'a'})},
    levels={'alone': curves.points(results, {0: 'alone'})[0]},
    xlabel='stages',
  )
  (axes,) = made.axes
  assert set(axes.get_legend_handles_labels()[1]) == {'alone', 'sskd'}
  assert axes.get_xlabel() == 'stages'
  drawn = axes.containers[0].lines[0].get_xydata()
  np.testing.assert_allclose(drawn, [[1, 25], [2, 60]])


def test_a_row_that_is_not_there_is_named(results):
  with pytest.raises(UsageError, match="no row 'c'; there are a, b, alone"):
    curves.points(results, {1: 'c'})


def test_a_row_without_validation_has_no_best_epoch(results):
  del results['rows'][1]['seeds']['0']['test']['best']
  with pytest.raises(UsageError, match="row 'b' has no 'best' epoch"):
    curves.points(results, {1: 'b'}, when='best')


@pytest.mark.parametrize(
  ('score', 'x'), [(50.0, 10.0), (60.0, 10.0), (65.0, 15.0), (80.0, None)]
)
def test_where_a_curve_reaches_a_score(score, x):
  line = [
    curves.Point(20.0, 70.0, 0.0),
    curves.Point(10.0, 60.0, 1.0),
    curves.Point(40.0, 75.0, 0.0),
  ]
  assert curves.reached(line, score) == x
