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


def test_a_tradeoff_is_drawn_over_what_is_not_zero():
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
  found = curves.tradeoff(rows, 'search', 'sparsity')
  assert found == [
    pytest.approx((4.0, 25.0, 0.0)),
    pytest.approx((7.5, 55.0, 50**0.5)),
  ]
  # What was measured before zeros were counted.
  found = curves.tradeoff(rows, 'search', 'drop', without='fine-tuned')
  assert found == [pytest.approx((9.0, 75.0, 0.0))]
  for label, prefix in (('other', 'drop'), ('search', 'k ')):
    with pytest.raises(UsageError, match='there are'):
      curves.tradeoff(rows, label, prefix)


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


@pytest.fixture
def records():
  """Two seeds of phases of 4, 8 and 4 steps; an epoch is 4."""

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


def test_phases_follow_each_other_on_a_learning_curve(records):
  found = curves.learning(records, 'mld', steps_per_epoch=4, without=('masks',))
  assert found == [
    [(1.0, 30.0, 0.0), (2.0, 60.0, 0.0), (3.0, 80.0, 0.0)],
    [(1.0, 40.0, 0.0), (3.0, 70.0, 0.0)],
  ]
  whole = curves.learning(records, 'mld', steps_per_epoch=4)
  assert [p.x for p in whole[0]] == [2.0, 3.0, 4.0]


def test_an_average_has_the_epochs_that_all_seeds_have(records):
  found = curves.averaged(
    curves.learning(records, 'mld', steps_per_epoch=4, without=('masks',))
  )
  assert found == [
    pytest.approx((1.0, 35.0, 50**0.5)),
    pytest.approx((3.0, 75.0, 50**0.5)),
  ]


def test_a_row_without_records_is_named(records):
  with pytest.raises(UsageError, match="of row 'kd'"):
    curves.learning(records, 'kd', steps_per_epoch=4)
