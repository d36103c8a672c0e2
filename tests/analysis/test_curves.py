"""Curves over the rows of a result and over the epochs of a row."""

import numpy as np
import pytest

from jaxdistill.analysis import curves
from jaxdistill.core.checks import UsageError


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


def test_points_are_means_and_standard_deviations_in_percent(results):
  curve = curves.points(results, {2.0: 'a', 1.0: 'b'})
  # The standard deviation of the sample 50, 70 is sqrt(200).
  assert curve[0] == pytest.approx((2.0, 60.0, 200**0.5))
  assert curve[1] == pytest.approx((1.0, 25.0, 0.0))
  best = curves.points(results, {1.0: 'b'}, when='best')
  assert best[0].mean == pytest.approx(35.0)


def test_a_tradeoff_is_a_curve_over_the_parameters_that_are_not_zero():
  def model(top1, **size):
    return {'test': {'last': {'top1': top1}}, 'parameters': 9, **size}

  seeds = {
    str(i): {
      'beside': {
        'sparsity 0.1': model(0.5 + i / 10, nonzero=7 + i),
        'sparsity 0.5': model(0.25, nonzero=4),
        'drop 0.1': model(0.75),
        'drop 0.1, fine-tuned': model(0.9, nonzero=8),
      }
    }
    for i in range(2)
  }
  rows = {'rows': [{'label': 'search', 'seeds': seeds}], 'score': 'top1'}
  curve = curves.tradeoff(rows, 'search', 'sparsity')
  assert curve == [
    pytest.approx((4.0, 25.0, 0.0)),
    pytest.approx((7.5, 55.0, 50**0.5)),
  ]
  # These results do not hold the number of parameters that are not zero.
  curve = curves.tradeoff(rows, 'search', 'drop', without='fine-tuned')
  assert curve == [pytest.approx((9.0, 75.0, 0.0))]
  with pytest.raises(UsageError, match=r"unknown row 'other'.*valid: search"):
    curves.tradeoff(rows, 'other', 'drop')
  with pytest.raises(UsageError, match=r"model of row 'search' .*, got 'k '"):
    curves.tradeoff(rows, 'search', 'k ')


def test_a_figure_shows_every_line_and_level(results):
  figure = curves.draw(
    {'sskd': curves.points(results, {1: 'b', 2: 'a'})},
    levels={'alone': curves.points(results, {0: 'alone'})[0]},
    xlabel='stages',
  )
  (axes,) = figure.axes
  assert set(axes.get_legend_handles_labels()[1]) == {'alone', 'sskd'}
  assert axes.get_xlabel() == 'stages'
  line = axes.containers[0].lines[0].get_xydata()
  np.testing.assert_allclose(line, [[1, 25], [2, 60]])


def test_an_unknown_row_is_named(results):
  with pytest.raises(UsageError, match=r"unknown row 'c'.*valid: a, b, alone"):
    curves.points(results, {1: 'c'})


def test_a_row_without_validation_has_no_best_epoch(results):
  del results['rows'][1]['seeds']['0']['test']['best']
  with pytest.raises(UsageError, match=r"model of row 'b' 'best'.*valid: last"):
    curves.points(results, {1: 'b'}, when='best')


@pytest.mark.parametrize(
  ('score', 'x'), [(50.0, 10.0), (60.0, 10.0), (65.0, 15.0), (80.0, None)]
)
def test_a_curve_reaches_a_score_between_its_points(score, x):
  line = [
    curves.Point(20.0, 70.0, 0.0),
    curves.Point(10.0, 60.0, 1.0),
    curves.Point(40.0, 75.0, 0.0),
  ]
  assert curves.reached(line, score) == x


@pytest.fixture
def records():
  """Records of two seeds; the phases have 4, 8 and 4 steps, an epoch has 4."""

  def record(seed, order, step, split, **metrics):
    phase = ('masks', 'local', 'kd')[order]
    place = {'row': 'mld', 'seed': seed, 'order': order, 'phase': phase}
    return {**place, 'step': step, 'split': split, **metrics}

  return [
    record(0, 0, 4, 'train', loss=1.0),
    record(0, 0, 4, 'validation/noised', top1=0.9),
    record(0, 1, 4, 'validation', top1=0.3),
    record(0, 1, 8, 'validation', top1=0.6),
    record(0, 2, 4, 'validation', top1=0.8),
    record(1, 1, 4, 'validation', top1=0.4),
    record(1, 1, 8, 'train', loss=1.0),
    record(1, 2, 4, 'validation', top1=0.7),
    {**record(0, 0, 4, 'validation', top1=0.1), 'row': 'scratch'},
  ]


def test_a_learning_curve_joins_the_phases(records):
  seeds = curves.learning(records, 'mld', steps_per_epoch=4, without=('masks',))
  assert seeds == [
    [(1.0, 30.0, 0.0), (2.0, 60.0, 0.0), (3.0, 80.0, 0.0)],
    [(1.0, 40.0, 0.0), (3.0, 70.0, 0.0)],
  ]
  whole = curves.learning(records, 'mld', steps_per_epoch=4)
  assert [p.x for p in whole[0]] == [2.0, 3.0, 4.0]


def test_an_average_has_a_point_at_each_epoch_that_all_seeds_share(records):
  curve = curves.averaged(
    curves.learning(records, 'mld', steps_per_epoch=4, without=('masks',))
  )
  assert curve == [
    pytest.approx((1.0, 35.0, 50**0.5)),
    pytest.approx((3.0, 75.0, 50**0.5)),
  ]


def test_a_row_without_records_is_named(records):
  with pytest.raises(
    UsageError, match=r"expected a row with records .* got 'kd'"
  ):
    curves.learning(records, 'kd', steps_per_epoch=4)
