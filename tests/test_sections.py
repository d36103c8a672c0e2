"""Config sections: what is checked, what is filled in, what errors name."""

from collections.abc import Mapping, Sequence
import functools
import json
from typing import Any, NamedTuple

import pytest

from jaxdistill import sections
from jaxdistill.types import UsageError


class Engine(NamedTuple):
  power: float
  turbo: bool


def petrol(*, power: float = 50.0, turbo: bool = False) -> Engine:
  return Engine(power, turbo)


def electric(*, power: float = 80.0) -> Engine:
  return Engine(power, False)


def car(
  recipe: Any,
  engine: Engine,
  *,
  doors: int = 4,
  colour: str | None = None,
  sizes: Sequence[int] = (1, 2),
  num_classes: int = 10,
  extra: Any = None,
) -> dict[str, Any]:
  return dict(locals())


def train(*, engine: Mapping[str, Engine]) -> list[tuple[str, Engine]]:
  return list(engine.items())


def named(*, name: str = 'nobody', size: int = 1) -> tuple[str, int]:
  return name, size


ENGINES = {'petrol': petrol, 'electric': electric}
TABLE = {
  'car': car,
  'cabrio': functools.partial(car, doors=2),
  'train': train,
  'named': named,
}
TABLES = {'engine': ENGINES}


def parse(section):
  return sections.parse(section, TABLE, 'vehicle', TABLES, ('recipe',))


def made(section, **context):
  return parse(section).make({'recipe': 'r', **context})


def refused(section, message):
  with pytest.raises(UsageError, match=message):
    parse(section)


CAR = {'name': 'car', 'engine': {'name': 'petrol'}}


def test_a_section_is_a_call_with_its_keys_as_arguments():
  found = made({**CAR, 'doors': 3, 'colour': 'red'})
  assert found == {
    'recipe': 'r',
    'engine': Engine(50.0, False),
    'doors': 3,
    'colour': 'red',
    'sizes': (1, 2),
    'num_classes': 10,
    'extra': None,
  }


def test_the_context_gives_what_the_section_lacks_and_no_more():
  assert made(CAR, num_classes=7, unknown=1)['num_classes'] == 7
  assert made({**CAR, 'num_classes': 3}, num_classes=7)['num_classes'] == 3


def test_resolved_holds_every_argument_as_json():
  resolved = parse({**CAR, 'sizes': (3,)}).resolved
  assert resolved == json.loads(json.dumps(resolved))
  assert resolved == {
    'name': 'car',
    'engine': {'name': 'petrol', 'power': 50.0, 'turbo': False},
    'doors': 4,
    'colour': None,
    'sizes': [3],
    'num_classes': 10,
    'extra': None,
  }


def test_a_section_of_resolved_is_the_same_section():
  resolved = parse({**CAR, 'doors': 2}).resolved
  assert parse(resolved).resolved == resolved
  assert made(resolved)['doors'] == 2


def test_defaults_of_a_partial_are_those_it_binds_and_can_be_set():
  cabrio = {**CAR, 'name': 'cabrio'}
  assert parse(cabrio).resolved['doors'] == 2
  assert made(cabrio)['doors'] == 2
  assert made({**cabrio, 'doors': 5})['doors'] == 5


def test_parsing_calls_nothing():
  def fail(*, power: float = 1.0):
    raise AssertionError('called')

  section = sections.parse({'name': 'x'}, {'x': fail}, 'w', {})
  assert section.resolved == {'name': 'x', 'power': 1.0}


def test_nested_sections_are_checked_and_made():
  engine = {'name': 'petrol', 'power': 70, 'turbo': True}
  section = {**CAR, 'engine': engine}
  assert made(section)['engine'] == Engine(70, True)
  assert parse(section).resolved['engine'] == engine


def test_a_dict_of_sections_is_made_in_order_with_labels_as_names():
  section = {
    'name': 'train',
    'engine': {
      'front': {'name': 'petrol', 'power': 1.0},
      'electric': {'power': 2.0},
    },
  }
  assert made(section) == [
    ('front', Engine(1.0, False)),
    ('electric', Engine(2.0, False)),
  ]
  assert parse(section).resolved['engine'] == {
    'front': {'name': 'petrol', 'power': 1.0, 'turbo': False},
    'electric': {'name': 'electric', 'power': 2.0},
  }


def test_an_argument_called_name_does_not_replace_the_sections_name():
  assert parse({'name': 'named'}).resolved == {'name': 'named', 'size': 1}
  assert made({'name': 'named', 'size': 2}) == ('nobody', 2)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'name': 'cra'}, r"vehicle\.name 'cra' \(nearest: 'car'\); valid: car,"),
    ({'name': 3}, r'vehicle\.name: 3 is no string'),
    ({'doors': 3}, r'vehicle: wanted a section .* valid names: car, cabrio'),
    ('car', r"vehicle: 'car' is no section; write vehicle\.name=car"),
    (
      {**CAR, 'engine': 'petrol'},
      r"'petrol' is no section; write vehicle\.engine\.name=petrol",
    ),
    (
      {**CAR, 'dors': 3},
      r"unknown key of vehicle 'dors' \(nearest: 'doors'\); valid: name, eng",
    ),
    ({**CAR, 'recipe': 'x'}, r"unknown key of vehicle 'recipe'"),
    (
      {**CAR, 'engine': {'name': 'diesel'}},
      r"vehicle\.engine\.name 'diesel'.*; valid: petrol, electric",
    ),
    (
      {**CAR, 'engine': {'name': 'petrol', 'powr': 1.0}},
      r"key of vehicle\.engine 'powr' \(nearest: 'power'\)",
    ),
    (
      {'name': 'train', 'engine': {'front': {'name': 'petrol', 'x': 1}}},
      r"key of vehicle\.engine\.front 'x'",
    ),
    (
      {'name': 'train', 'engine': {'petrol': 1.0}},
      r'vehicle\.engine\.petrol: wanted a section .*1\.0',
    ),
  ],
)
def test_errors_name_the_place_the_nearest_and_the_valid(section, message):
  refused(section, message)


def test_a_key_that_nothing_gives_is_named():
  with pytest.raises(UsageError, match="vehicle: 'car' needs the key 'engine'"):
    made({'name': 'car'})


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('doors', 5),
    ('colour', None),
    ('colour', 'red'),
    ('sizes', [1, 2]),
    ('sizes', (1,)),
    ('extra', 'anything'),
    ('extra', 3),
    ('extra', None),
  ],
)
def test_values_that_fit_their_annotation_pass(key, value):
  assert made({**CAR, key: value})[key] == value


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('doors', 'four', r"vehicle\.doors: 'four' is no int"),
    ('doors', True, 'True is no int'),
    ('doors', 4.0, r'4\.0 is no int'),
    ('doors', None, 'None is no int'),
    ('colour', 3, '3 is no str or None'),
    ('sizes', 'abc', "'abc' is no Sequence"),
    ('sizes', 3, '3 is no Sequence'),
    ('engine', 3, '3 is no Engine'),
  ],
)
def test_values_that_do_not_fit_are_refused(key, value, message):
  refused({**CAR, key: value}, message)


@pytest.mark.parametrize(
  ('key', 'value', 'fits'),
  [
    ('power', 3, True),
    ('power', 3.5, True),
    ('power', True, False),
    ('power', '3', False),
    ('turbo', True, True),
    ('turbo', 1, False),
  ],
)
def test_an_int_is_a_float_but_a_bool_is_no_number(key, value, fits):
  section = {**CAR, 'engine': {'name': 'petrol', key: value}}
  if fits:
    assert getattr(made(section)['engine'], key) == value
  else:
    refused(section, rf'vehicle\.engine\.{key}: {value!r} is no')


def test_a_value_that_is_not_plain_is_refused():
  refused({**CAR, 'extra': object()}, r'vehicle\.extra: .* is no plain value')


@pytest.fixture
def own_file(tmp_path, monkeypatch):
  (tmp_path / 'own_vehicle.py').write_text(
    'def boat(recipe, *, length: float = 3.0):\n  return recipe, length\n'
    'number = 3\n'
  )
  (tmp_path / 'own_broken.py').write_text('1 / 0\n')
  monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures('own_file')
def test_a_name_may_be_a_function_of_ones_own_file():
  section = {'name': 'own_vehicle:boat', 'length': 4}
  assert made(section) == ('r', 4)
  assert parse(section).resolved == {'name': 'own_vehicle:boat', 'length': 4}
  refused({**section, 'lenght': 4}, r"'lenght' \(nearest: 'length'\)")


@pytest.mark.usefixtures('own_file')
@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('own_nowhere:boat', r"vehicle\.name: cannot import 'own_nowhere:boat'"),
    ('own_vehicle:ship', r"unknown function of own_vehicle 'ship'"),
    ('own_vehicle:number', r"unknown function of own_vehicle 'number'"),
    ('own_broken:boat', r'cannot import .*division by zero'),
  ],
)
def test_a_function_of_ones_own_that_is_not_there_is_refused(name, message):
  refused({'name': name}, message)


def top(data: Mapping[str, Any], epochs: float = 1.0, seeds: int = 1) -> None:
  """What a config's keys are checked against."""


@pytest.mark.parametrize(
  ('config', 'where', 'message'),
  [
    ({'epoch': 3}, '', r"unknown key 'epoch' \(nearest: 'epochs'\)"),
    ({'epoch': 3}, 'config', r"unknown key of config 'epoch'"),
    ({'seeds': 1.5}, '', r'seeds: 1\.5 is no int'),
    ({'data': 'digits'}, '', r"data: 'digits' is no section"),
    ([], '', r'wanted a section'),
  ],
)
def test_the_keys_of_a_whole_config_are_checked_too(config, where, message):
  with pytest.raises(UsageError, match=message):
    sections.check_keys(config, top, where)


def test_a_right_config_passes():
  sections.check_keys({'data': {'name': 'x'}, 'epochs': 3}, top, '')
