"""Sections in sequences, mappings and unions, and what else values may be."""

from collections.abc import Callable, Mapping, Sequence
import json
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Method, Recipe
from jaxdistill.objectives import Objective
from jaxdistill.optimizers import Optimizer
from jaxdistill.study import parse as parse_lib
from jaxdistill.study import registry


class Wheel(NamedTuple):
  size: float


class Seat(NamedTuple):
  colour: str


class Rack(TypedDict):
  places: int


def steel(*, size: float = 20.0) -> Wheel:
  return Wheel(size)


def alloy(*, size: float = 22.0) -> Wheel:
  return Wheel(size)


def sofa(*, colour: str = 'red') -> Seat:
  return Seat(colour)


def ride(recipe: Any, *, speed: float = 1.0) -> tuple[Any, ...]:
  return recipe, speed


Ride = tuple[Any, ...]
TABLES = {
  Wheel: {'steel': steel, 'alloy': alloy},
  Seat: {'sofa': sofa},
  Ride: {'ride': ride},
}
NOTHING = object()


def section_of(annotation, value, tables=TABLES):
  """Parses {'name': 'car', 'x': value}, where x has an annotation."""

  def car(*, x=NOTHING):
    return x

  car.__annotations__['x'] = annotation
  section = {'name': 'car', 'x': value}
  return parse_lib.parse(section, {'car': car}, 'car', tables)


def built(annotation, value):
  return section_of(annotation, value).build({})


def resolved(annotation, value):
  return section_of(annotation, value).resolved['x']


def message(annotation, value, tables=TABLES) -> str:
  with pytest.raises(UsageError) as error:
    section_of(annotation, value, tables)
  assert '\n' not in str(error.value)
  return str(error.value)


STEEL = {'name': 'steel'}


@pytest.mark.parametrize(
  ('annotation', 'container'),
  [
    (Sequence[Wheel], tuple),
    (list[Wheel], list),
    (tuple[Wheel, ...], tuple),
    (Sequence[Wheel] | None, tuple),
    (Annotated[list[Wheel], 'round'], list),
    (Annotated[Sequence[Wheel] | None, 'round'], tuple),
  ],
)
@pytest.mark.parametrize('given', [list, tuple])
def test_sections_nest_in_sequences(annotation, container, given):
  value = given([{'name': 'alloy', 'size': 3.0}, STEEL])
  assert built(annotation, value) == container([Wheel(3.0), Wheel(20.0)])
  json_value = resolved(annotation, value)
  assert json_value == [
    {'name': 'alloy', 'size': 3.0},
    {'name': 'steel', 'size': 20.0},
  ]
  assert built(annotation, json_value) == built(annotation, value)
  assert resolved(annotation, json_value) == json_value


@pytest.mark.parametrize(
  ('annotation', 'value'),
  [
    (Sequence[Callable[[Recipe], Ride]], [{'name': 'ride', 'speed': 2}]),
    (
      Mapping[str, Callable[[Recipe], Ride]],
      {'first': {'name': 'ride', 'speed': 2}},
    ),
    (Mapping[str, Callable[[Recipe], Ride]], {'ride': {'speed': 2}}),
  ],
)
def test_functions_of_a_recipe_nest_in_sequences_and_mappings(
  annotation, value
):
  container = built(annotation, value)
  (make,) = container.values() if isinstance(container, dict) else container
  assert make('a recipe') == ('a recipe', 2)
  json_value = resolved(annotation, value)
  assert json_value in (
    [{'name': 'ride', 'speed': 2}],
    {'first': {'name': 'ride', 'speed': 2}},
    {'ride': {'name': 'ride', 'speed': 2}},
  )


EITHER = Wheel | Mapping[str, Wheel] | Sequence[Wheel] | None


@pytest.mark.parametrize(
  ('annotation', 'value', 'expected'),
  [
    (EITHER, STEEL, Wheel(20.0)),
    (EITHER, {'front': STEEL}, {'front': Wheel(20.0)}),
    (EITHER, {'steel': {'size': 1.0}}, {'steel': Wheel(1.0)}),
    (EITHER, {'name': STEEL}, {'name': Wheel(20.0)}),
    (EITHER, [STEEL], (Wheel(20.0),)),
    (EITHER, None, None),
    (Mapping[str, Wheel] | Wheel, STEEL, Wheel(20.0)),
    (Wheel | Seat, {'name': 'sofa'}, Seat('red')),
    (Sequence[Wheel | Seat], [{'name': 'sofa'}, STEEL], (Seat('red'), (20.0,))),
    (Sequence[Wheel] | Sequence[Seat], [{'name': 'sofa'}], (Seat('red'),)),
    (Sequence[Wheel | None], [None, STEEL], (None, Wheel(20.0))),
    (Sequence[Wheel] | Sequence[int], [1, 2], [1, 2]),
    (Wheel | Mapping[str, float], {'a': 1.0}, {'a': 1.0}),
    (Wheel | Mapping[str, float], STEEL, Wheel(20.0)),
    (Mapping[str, Wheel] | Mapping[str, float], {'a': 1.0}, {'a': 1.0}),
    (Mapping[str, Sequence[Wheel]], {'a': [STEEL]}, {'a': (Wheel(20.0),)}),
    (Wheel | Literal['none'], 'none', 'none'),
    (Wheel | Literal['none'], STEEL, Wheel(20.0)),
    (Callable[[Wheel], int] | Mapping[str, int], {'a': 1}, {'a': 1}),
  ],
)
def test_every_member_of_a_union_is_accepted(annotation, value, expected):
  assert built(annotation, value) == expected


@pytest.mark.parametrize(
  ('annotation', 'value', 'expected'),
  [
    (
      Sequence[Wheel],
      [{**STEEL, 'siez': 3.0}],
      "unknown key of car.x.0 'siez'; did you mean 'size'? (valid: name, size)",
    ),
    (
      Sequence[Wheel],
      [STEEL, {'name': 'steal'}],
      "unknown car.x.1.name 'steal'; did you mean 'steel'?",
    ),
    (Sequence[Wheel], [STEEL, 3], 'car.x.1: expected a section'),
    (
      Sequence[Wheel],
      ['steel'],
      "car.x.0: expected a section {'name': ...}, got 'steel'",
    ),
    (Sequence[Wheel], [{'size': 3}], 'car.x.0: expected a section'),
    (
      Sequence[Wheel],
      STEEL,
      "car.x: expected a sequence of sections, [{'name': ...}], got {",
    ),
    (
      list[Wheel] | None,
      'steel',
      "car.x: expected a sequence of sections, [{'name': ...}] or None, got 's",
    ),
    (Wheel, [STEEL], "car.x: expected a section {'name': ...}, got [{"),
    (
      Mapping[str, Callable[[Recipe], Ride]],
      {'a': {'name': 'ride', 'sped': 1}},
      "unknown key of car.x.a 'sped'; did you mean 'speed'?",
    ),
    (
      Sequence[Callable[[Recipe], Ride]],
      [{'name': 'ride', 'recipe': 1}],
      "unknown key of car.x.0 'recipe'",
    ),
    (EITHER, {'front': {**STEEL, 'siez': 1}}, "unknown key of car.x.front 'si"),
    (EITHER, {**STEEL, 'siez': 1}, "unknown key of car.x 'siez'; did you mean"),
    (EITHER, [{**STEEL, 'siez': 1}], "unknown key of car.x.0 'siez'; did you"),
    (Wheel | Seat, {'name': 'sofas'}, "'sofa'? (valid: steel, alloy, sofa, my"),
    (
      Wheel | Literal['none', 'all'],
      'nnoe',
      "unknown car.x 'nnoe'; did you mean 'none'? (valid: none, all, a section",
    ),
  ],
)
def test_mistakes_in_nested_sections_are_refused_with_their_place(
  annotation, value, expected
):
  assert expected in message(annotation, value)


@pytest.mark.parametrize(
  ('annotation', 'value'),
  [
    (tuple[Wheel, Wheel], [STEEL, STEEL]),
    (set[Wheel], [STEEL]),
    (Mapping[int, Wheel], {0: STEEL}),
    (Callable[[int], Wheel], STEEL),
    (Callable[..., Ride] | None, {'name': 'ride'}),
    (type[Wheel], STEEL),
    (tuple[Wheel, Wheel] | Sequence[int], [STEEL, STEEL]),
    (Mapping[int, Wheel] | Mapping[str, float], {0: STEEL}),
  ],
)
def test_sections_in_a_form_that_is_not_supported_are_refused(
  annotation, value
):
  text = message(annotation, value)
  assert text.startswith('car.x: a config cannot hold sections for the annota')
  assert 'Callable[[Recipe], X], Mapping[str, X], Sequence[X], list[X]' in text


def test_the_place_of_an_unsupported_form_is_named_in_a_sequence():
  text = message(Sequence[set[Wheel]], [[STEEL]])
  assert text.startswith('car.x.0: a config cannot hold sections')


def test_the_librarys_optimizers_methods_and_objectives_nest():
  tables = registry.TABLES
  sgd = {'name': 'sgd', 'schedule': {'name': 'cosine'}}
  misspelt = {**sgd, 'momentumm': 0.9}
  text = message(Sequence[Optimizer], [misspelt], tables)
  assert "key of car.x.0 'momentumm'; did you mean 'momentum'?" in text
  (optimizer,) = section_of(Sequence[Optimizer], [sgd], tables).build({})
  assert callable(optimizer)
  either = Objective | Mapping[str, Objective]
  single = section_of(either, {'name': 'kd'}, tables).resolved['x']
  labelled = section_of(either, {'kd': {}}, tables).resolved['x']
  assert labelled == {'kd': single}
  method = {'name': 'joint', 'terms': {'kd': {'temprature': 2.0}}}
  for annotation in (list[Callable[[Recipe], Method]], list[Method]):
    text = message(annotation, [method], tables)
    assert "car.x.0.terms.kd 'temprature'; did you mean 'temperature'?" in text


@pytest.mark.parametrize(
  ('annotation', 'value', 'expected'),
  [
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, int] | None, [1, 2], (1, 2)),
    (tuple[tuple[str, str], ...], [['a', 'b']], (('a', 'b'),)),
    (tuple[int, tuple[int, ...]], [1, [2]], (1, (2,))),
    (tuple, [1, 2], (1, 2)),
    (list[int], (1, 2), [1, 2]),
    (list, (1, 2), [1, 2]),
    (Sequence[int], (1, 2), (1, 2)),
    (Sequence[int], [1, 2], [1, 2]),
    (Sequence[tuple[int, int]], [[1, 2]], [(1, 2)]),
    (Any, [1, [2]], [1, [2]]),
    (tuple[int, ...], [], ()),
  ],
)
def test_lists_and_tuples_stand_for_each_other(annotation, value, expected):
  result = built(annotation, value)
  assert result == expected
  assert type(result) is type(expected)
  assert resolved(annotation, value) == json.loads(json.dumps(expected))


def test_a_list_that_equals_the_default_is_a_tuple_too():
  def car(*, sizes: tuple[int, ...] = (1, 2)):
    return sizes

  section = {'name': 'car', 'sizes': [1, 2]}
  parsed = parse_lib.parse(section, {'car': car}, 'car', TABLES)
  assert parsed.build({}) == (1, 2)


@pytest.mark.parametrize(
  ('annotation', 'value', 'expected'),
  [
    (tuple[int, ...], 'ab', "car.x: expected a sequence, got 'ab'"),
    (list[int], 3, 'car.x: expected a sequence, got 3'),
    (list[int], {'a': 1}, "car.x: expected a sequence, got {'a': 1}"),
    (
      Literal['fast', 'slow'],
      'fats',
      "unknown car.x 'fats'; did you mean 'fast'? (valid: fast, slow)",
    ),
    (
      Literal['fast', 'slow'] | None,
      'fats',
      "unknown car.x 'fats'; did you mean 'fast'? (valid: fast, slow, None)",
    ),
    (Literal['fast', 'slow'], 3, "car.x: expected 'fast' or 'slow', got 3"),
    (Literal[1, 2], True, 'car.x: expected 1 or 2, got True'),
    (Literal[1, 2], 3, 'car.x: expected 1 or 2, got 3'),
    (
      Literal['all'] | Sequence[int],
      'al',
      "unknown car.x 'al'; did you mean 'all'? (valid: all, a sequence)",
    ),
    (
      Annotated[int, 'positive'] | None,
      'a',
      "car.x: expected a whole number or None, got 'a'",
    ),
  ],
)
def test_values_of_another_type_are_refused(annotation, value, expected):
  assert message(annotation, value) == expected


@pytest.mark.parametrize(
  ('annotation', 'value'),
  [
    (Literal['fast', 'slow'], 'slow'),
    (Literal['fast', 'slow'] | None, None),
    (Literal['all'] | Sequence[int], [1]),
    (Literal['auto'] | int, 3),
    (Literal[1, 2], 2),
    (Literal['auto'] | str, 'anything'),
    (Annotated[int, 'positive'] | None, 3),
    (Rack, {'places': 3}),
  ],
)
def test_values_of_the_type_are_accepted(annotation, value):
  assert built(annotation, value) == value


def test_a_required_argument_called_name_is_refused_with_the_reason():
  def car(*, name: str, size: int = 1):
    return name, size

  with pytest.raises(UsageError, match="'name' is the section's own key"):
    parse_lib.parse({'name': 'car'}, {'car': car}, 'car', TABLES)
