"""Factors of losses: every objective and method refuses those of no use."""

import inspect
import math

import pytest

from jaxdistill import objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.study import registry

# Factors with another name, or whose function needs more than a recipe.
FACTORS = {
  'dkd': ('alpha', 'beta'),
  'dist': ('beta', 'gamma'),
  'masked_layer': ('alpha',),
  'pruning_protocol': ('beta',),
  'regularization_protocol': ('beta',),
}
ARGUMENTS = {
  'joint': {'terms': {}},
  'pruning_protocol': {'prunings': {'half': None}},
  'regularization_protocol': {'regularized': None},
  'takd': {'assistants': {}},
}


def _factors(function, name):
  """Returns the names of the factors among the arguments of a function."""
  arguments = inspect.signature(function).parameters
  others = [key for key in FACTORS.get(name, ()) if key in arguments]
  return [key for key in arguments if key.endswith('weight')] + others


def _cases(table):
  return [(n, k) for n, f in sorted(table.items()) for k in _factors(f, n)]


@pytest.mark.parametrize('value', [-1e-3, math.nan, math.inf, 1e300, True])
def test_the_factors_of_all_objectives_are_checked(value):
  for name, factor in _cases(registry.OBJECTIVES):
    with pytest.raises(UsageError) as caught:
      registry.OBJECTIVES[name](**{factor: value})
    assert str(caught.value) == (
      f'{factor}: expected a number in [0, 1e+09], got {value!r}'
    )


@pytest.mark.parametrize('value', [-1e-3, math.nan, math.inf, 1e300])
def test_the_factors_of_all_methods_are_checked_before_any_phase(value, recipe):
  for name, factor in _cases(registry.METHODS):
    arguments = {factor: value, **ARGUMENTS.get(name, {})}
    with pytest.raises(UsageError, match=f'^{factor}: expected a number in'):
      registry.METHODS[name](recipe, **arguments)


@pytest.mark.parametrize('weight', [0, 0.5, 30000.0, 1e9])
def test_factors_of_use_are_accepted(weight):
  for name, factor in _cases(registry.OBJECTIVES):
    registry.OBJECTIVES[name](**{factor: weight})


def test_the_weight_of_a_users_own_term_may_be_negative():
  # A term may be maximised, such as the entropy of the predictions.
  term = objectives.Term(lambda features, batch, models: 0.0, -0.1)
  assert term.weight == -0.1
