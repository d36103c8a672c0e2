"""Values of a config, and all that they hold, against annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import FeaturePairs
from jaxdistill.study import values

SUITABLE = (
  (1, int),
  (np.int64(3), int),
  (1, float),
  (np.float32(0.5), float),
  (True, bool),
  (None, int | None),
  ((1, 2), Sequence[int]),
  ([1, 2.5], Sequence[float]),
  ([], Sequence[float]),
  ([['a', 'b'], ('c', 'd')], FeaturePairs),
  ((1, 'a'), tuple[int, str]),
  ({'a': [1, 2]}, Mapping[str, Sequence[int]]),
  ('fast', Literal['fast', 'slow']),
  (2, Annotated[int, 'a note']),
  ([(1, 2), 3], Sequence[int | tuple[int, int]]),
  ([1, 'a'], Sequence[int] | Sequence[int | str]),
  ({'anything': object}, Any),
  (len, Callable[[str], int]),
)
UNSUITABLE = (
  # A section, a word or nothing in place of a number.
  ({'name': 'sgd'}, float, 'x: expected a number, got {'),
  ('many', int, "x: expected a whole number, got 'many'"),
  (None, float, 'x: expected a number, got None'),
  (b'1', Sequence[int], "x: expected a sequence, got b'1'"),
  # A bool is not a number.
  (True, float, 'x: expected a number, got True'),
  ([1, False], Sequence[int], 'x.1: expected a whole number, got False'),
  # The parts of containers.
  ([0.5, {}], Sequence[float], 'x.1: expected a number, got {}'),
  ([1, 1], FeaturePairs, 'x.0: expected a sequence, got 1'),
  (['group1', 'group2'], FeaturePairs, 'x.0: expected a sequence, got'),
  ([('a', 1)], FeaturePairs, 'x.0.1: expected a string, got 1'),
  ([('a',)], FeaturePairs, r"x.0: expected 2 entries, got ('a',)"),
  ((1, 2, 3), tuple[int, int], 'x: expected 2 entries, got (1, 2, 3)'),
  ({'a': 'b'}, Mapping[str, int], "x.a: expected a whole number, got 'b'"),
  ({1: 2}, Mapping[str, int], 'a key of x: expected a string, got 1'),
  # Members of unions.
  ('b', Literal['a'], "unknown x 'b'"),
  ({}, int | str | None, 'x: expected a whole number or a string or None'),
  (
    [1.5],
    Sequence[int] | Sequence[str],
    'x.0: expected a whole number, got 1.5',
  ),
  ({}, Callable[[str], int], 'x: expected a function, which a config cannot'),
  # Numbers that no computation can use.
  (float('nan'), float, 'x: expected a number in [-1e+18, 1e+18], got nan'),
  (float('inf'), float, 'got inf'),
  ([1.0, -float('inf')], Sequence[float], 'x.1: expected'),
  (1e300, float, 'got 1e+300'),
  (10**40, float, 'got 1000'),
  (1e-300, float, 'x: expected 0 or a number of at least 1e-18 in size'),
  (2**63, int, 'x: expected a whole number from -4294967295 to 4294967295'),
  (-(2**63), int | None, 'got -9223372036854775808'),
)


@pytest.mark.parametrize(('value', 'annotation'), SUITABLE)
def test_a_value_that_fits_passes(value, annotation):
  values.check('x', value, annotation)


@pytest.mark.parametrize(('value', 'annotation', 'message'), UNSUITABLE)
def test_a_value_or_part_that_does_not_fit_is_named(value, annotation, message):
  with pytest.raises(UsageError) as caught:
    values.check('x', value, annotation)
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('value', 'annotation', 'expected'),
  [
    (np.float32(0.5), float, 0.5),
    (np.int8(3), int | None, 3),
    ([np.int64(1)], tuple[int, ...], (1,)),
    ([['a', 'b']], FeaturePairs, (('a', 'b'),)),
    ((1, 2), list[int], [1, 2]),
  ],
)
def test_numpys_numbers_become_pythons_and_lists_what_is_asked_for(
  value, annotation, expected
):
  converted = values.converted(value, annotation)
  assert converted == expected
  assert type(converted) is type(expected)
