"""Wrong configs at random: `python tests/study/fuzz.py` tries more of them."""

import pathlib


def test_a_wrong_config_is_a_plan_or_refused_in_one_line(monkeypatch):
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)
  import fuzz

  configs = list(fuzz.of_methods())
  outcomes = list(fuzz.run(seed=0, count=60, configs=configs))
  failed = [outcome for outcome in outcomes if outcome.kind == 'failed']
  assert not failed, failed[0]
  assert {outcome.kind for outcome in outcomes} == {'accepted', 'refused'}
