"""Sections: what is checked, what is filled in, and what the messages name."""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import sys
import types
from typing import Annotated, Any, NamedTuple, Protocol

import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Recipe
from jaxdistill.study import nesting, registry, values
from jaxdistill.study import parse as parse_lib


class Engine(NamedTuple):
  power: float
  turbo: bool


class Horn(Protocol):
  """A type that `isinstance` cannot check."""

  def __call__(self, loudness: float, /) -> str: ...


Wheel = Annotated[str, 'wheel']


def petrol(*, power: float = 50.0, turbo: bool = False) -> Engine:
  return Engine(power, turbo)


def electric(*, power: float = 80.0) -> Engine:
  return Engine(power, False)


def loud(*, word: str = 'honk') -> Horn:
  return lambda loudness: word * int(loudness)


def spoked(*, spokes: int = 8) -> Wheel:
  return f'{spokes} spokes'


def car(
  recipe: Any,
  engine: Engine,
  *,
  doors: int = 4,
  colour: str | None = None,
  sizes: Sequence[int] = (1, 2),
  num_classes: int = 10,
  extra: Any = None,
  spare_engine: Engine | None = None,
) -> dict[str, Any]:
  return dict(locals())


def train(*, engine: Mapping[str, Engine]) -> list[tuple[str, Engine]]:
  return list(engine.items())


def cart(
  *,
  horn: Horn | None = None,
  front: Wheel | None = None,
  engine: str = 'a horse',
  plain: Any = None,
) -> dict[str, Any]:
  return dict(locals())


def workshop(
  recipe: Any, *, engine: Callable[[Recipe], dict[str, Any]]
) -> tuple[Any, Any]:
  return recipe, engine


def named(*, name: str = 'nobody', size: int = 1) -> tuple[str, int]:
  return name, size


TABLE = {
  'car': car,
  'cabrio': functools.partial(car, doors=2),
  'train': train,
  'named': named,
  'cart': cart,
  'workshop': workshop,
}
TABLES = {
  Engine: {'petrol': petrol, 'electric': electric},
  Horn: {'loud': loud},
  Wheel: {'spoked': spoked},
  dict[str, Any]: {'car': car},
}


def parse(section):
  return parse_lib.parse(
    section, TABLE, 'vehicle', TABLES, context=('recipe', 'num_classes')
  )


def build(section, **context):
  return parse(section).build({'recipe': 'r', **context})


def refused(section, message):
  with pytest.raises(UsageError, match=message):
    parse(section)


CAR = {'name': 'car', 'engine': {'name': 'petrol'}}


def test_a_section_is_a_call_with_its_keys_as_arguments():
  assert build({**CAR, 'doors': 3, 'colour': 'red'}) == {
    'recipe': 'r',
    'engine': Engine(50.0, False),
    'doors': 3,
    'colour': 'red',
    'sizes': (1, 2),
    'num_classes': 10,
    'extra': None,
    'spare_engine': None,
  }


def test_the_context_sets_only_parameters_that_the_section_leaves_out():
  assert build(CAR, num_classes=7, unknown=1)['num_classes'] == 7
  assert build({**CAR, 'num_classes': 3}, num_classes=7)['num_classes'] == 3


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
    'spare_engine': None,
  }


@pytest.mark.parametrize('name', ['car', 'cart'])
def test_parsing_resolved_gives_the_same_section(name):
  section = {**CAR, 'doors': 2} if name == 'car' else {'name': 'cart'}
  resolved = parse(section).resolved
  assert parse(resolved).resolved == resolved
  if name == 'car':
    assert build(resolved)['doors'] == 2


def test_defaults_of_a_partial_are_those_it_binds_and_can_be_set():
  cabrio = {**CAR, 'name': 'cabrio'}
  assert parse(cabrio).resolved['doors'] == 2
  assert build(cabrio)['doors'] == 2
  assert build({**cabrio, 'doors': 5})['doors'] == 5


def test_parsing_calls_nothing():
  def fail(*, power: float = 1.0):
    raise AssertionError('called')

  section = parse_lib.parse({'name': 'x'}, {'x': fail}, 'w', {})
  assert section.resolved == {'name': 'x', 'power': 1.0}


@pytest.mark.parametrize('key', ['engine', 'spare_engine'])
def test_sections_nest_whatever_the_key_is_called(key):
  engine = {'name': 'petrol', 'power': 70, 'turbo': True}
  section = {**CAR, key: engine}
  assert build(section)[key] == Engine(70, True)
  assert parse(section).resolved[key] == engine


def test_a_key_without_such_an_annotation_holds_no_section():
  section = {'name': 'cart', 'plain': {'name': 'petrol'}}
  assert build(section)['plain'] == {'name': 'petrol'}
  assert build({'name': 'cart', 'engine': 'diesel'})['engine'] == 'diesel'
  refused(
    {'name': 'cart', 'engine': {'name': 'petrol'}},
    r"vehicle\.engine: expected a string, got \{'name': 'petrol'\}",
  )


def test_protocols_and_annotated_types_have_tables_too():
  section = {
    'name': 'cart',
    'horn': {'name': 'loud', 'word': 'x'},
    'front': {'name': 'spoked', 'spokes': 6},
  }
  parts = build(section)
  assert parts['horn'](3) == 'xxx'
  assert parts['front'] == '6 spokes'
  refused({'name': 'cart', 'horn': 3}, "a section {'name': ...} or None, got 3")


def test_a_function_of_a_recipe_is_built_when_it_gets_the_recipe():
  engine = {'name': 'car', 'engine': {'name': 'electric'}}
  section = {'name': 'workshop', 'engine': engine}
  recipe, make = build(section)
  assert recipe == 'r'
  assert make('another')['recipe'] == 'another'
  assert make('another')['engine'] == Engine(80.0, False)
  resolved = parse(section).resolved['engine']
  assert resolved['engine'] == {'name': 'electric', 'power': 80.0}
  refused(
    {'name': 'workshop', 'engine': {**engine, 'dors': 3}},
    r"key of vehicle\.engine 'dors'; did you mean 'doors'",
  )


def test_a_mapping_of_sections_keeps_its_order_and_labels_are_names():
  section = {
    'name': 'train',
    'engine': {
      'front': {'name': 'petrol', 'power': 1.0},
      'electric': {'power': 2.0},
    },
  }
  assert build(section) == [
    ('front', Engine(1.0, False)),
    ('electric', Engine(2.0, False)),
  ]
  assert parse(section).resolved['engine'] == {
    'front': {'name': 'petrol', 'power': 1.0, 'turbo': False},
    'electric': {'name': 'electric', 'power': 2.0},
  }


def test_an_argument_called_name_does_not_replace_the_sections_name():
  assert parse({'name': 'named'}).resolved == {'name': 'named', 'size': 1}
  assert build({'name': 'named', 'size': 2}) == ('nobody', 2)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'name': 'cra'}, r"vehicle\.name 'cra'; did you mean 'car'\? \(valid: ca"),
    ({'name': 3}, r'vehicle\.name: expected a string, got 3'),
    ({'doors': 3}, r'vehicle: expected a section .*valid names: car, cabrio'),
    ('car', r"vehicle: expected .*, got 'car'; write vehicle\.name=car"),
    (
      {**CAR, 'engine': 'petrol'},
      r"expected .*, got 'petrol'; write vehicle\.engine\.name=petrol",
    ),
    (
      {**CAR, 'dors': 3},
      r"unknown key of vehicle 'dors'; did you mean 'doors'\? \(valid: name, e",
    ),
    ({**CAR, 'recipe': 'x'}, r"unknown key of vehicle 'recipe'"),
    (
      {**CAR, 'engine': {'name': 'diesel'}},
      r"vehicle\.engine\.name 'diesel'.*valid: petrol, electric",
    ),
    (
      {**CAR, 'engine': {'name': 'petrol', 'powr': 1.0}},
      r"key of vehicle\.engine 'powr'; did you mean 'power'",
    ),
    (
      {'name': 'train', 'engine': {'front': {'name': 'petrol', 'x': 1}}},
      r"key of vehicle\.engine\.front 'x'",
    ),
    (
      {'name': 'train', 'engine': {'petrol': 1.0}},
      r'vehicle\.engine\.petrol: expected a section .*1\.0',
    ),
    (
      {'name': 'train', 'engine': {'name': 'petrol'}},
      r'vehicle\.engine: expected sections by label, .* got the section',
    ),
    (
      {'name': 'train', 'engine': 'petrol'},
      r"vehicle\.engine: expected sections by label, .* got 'petrol'",
    ),
    ({'name': 'car'}, r"vehicle: 'car' needs the key 'engine'"),
  ],
)
def test_messages_name_the_place_the_nearest_and_the_valid(section, message):
  refused(section, message)


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
    ('spare_engine', None),
  ],
)
def test_values_that_fit_their_annotation_pass(key, value):
  assert build({**CAR, key: value})[key] == value


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('doors', 'four', r"vehicle\.doors: expected a whole number, got 'four'"),
    ('doors', True, 'expected a whole number, got True'),
    ('doors', 4.0, r'expected a whole number, got 4\.0'),
    ('doors', None, 'expected a whole number, got None'),
    ('doors', {'name': 'x'}, 'expected a whole number, got {'),
    ('colour', 3, 'expected a string or None, got 3'),
    ('sizes', 'abc', "expected a sequence, got 'abc'"),
    ('sizes', 3, 'expected a sequence, got 3'),
    ('engine', 3, r"vehicle\.engine: expected a section {'name': ...}, got 3"),
    ('spare_engine', 3, r"a section {'name': ...} or None, got 3"),
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
def test_an_int_is_a_float_but_a_bool_is_not_a_number(key, value, fits):
  section = {**CAR, 'engine': {'name': 'petrol', key: value}}
  if fits:
    assert getattr(build(section)['engine'], key) == value
  else:
    refused(section, rf'vehicle\.engine\.{key}: expected .*, got {value!r}')


def test_a_value_that_is_not_plain_is_refused():
  refused({**CAR, 'extra': object()}, r'vehicle\.extra: expected a plain value')


@pytest.fixture
def own_file(tmp_path, monkeypatch):
  (tmp_path / 'own_vehicle.py').write_text(
    'def boat(recipe, *, length: float = 3.0):\n  return recipe, length\n'
    'def lazy(*, kind: "Unknown" = None, length: float = 3.0):\n'
    '  return length\n'
    'number = 3\n'
  )
  (tmp_path / 'own_strings.py').write_text(
    'from __future__ import annotations\n'
    'import functools\n'
    'from test_parse_types import Engine\n'
    'def function(*, kind: Unknown = None, engine: Engine):\n'
    '  return engine\n'
    'class Class:\n'
    '  def __init__(self, *, engine: Engine | None = None):\n'
    '    self.engine = engine\n'
    '  def __call__(self, *, engine: Engine):\n'
    '    return engine\n'
    'instance = Class()\n'
    'partial = functools.partial(function, kind=3)\n'
  )
  (tmp_path / 'own_broken.py').write_text('1 / 0\n')
  monkeypatch.syspath_prepend(tmp_path)
  types_module = types.ModuleType('test_parse_types')
  types_module.Engine = Engine
  monkeypatch.setitem(sys.modules, 'test_parse_types', types_module)


@pytest.mark.usefixtures('own_file')
def test_a_name_may_be_a_function_of_a_users_file():
  section = {'name': 'own_vehicle:boat', 'length': 4}
  assert build(section) == ('r', 4)
  assert parse(section).resolved == {'name': 'own_vehicle:boat', 'length': 4}
  refused({**section, 'lenght': 4}, r"'lenght'; did you mean 'length'")


@pytest.mark.usefixtures('own_file')
def test_an_annotation_that_cannot_be_resolved_does_not_hide_the_others():
  section = {'name': 'own_vehicle:lazy', 'kind': 'any', 'length': 4}
  assert build(section) == 4
  refused({**section, 'length': 'long'}, "expected a number, got 'long'")


@pytest.mark.usefixtures('own_file')
@pytest.mark.parametrize('name', ['function', 'Class', 'instance', 'partial'])
def test_sections_nest_if_annotations_are_strings(name):
  """One annotation of the file cannot be resolved, see `own_file`."""
  section = {'name': f'own_strings:{name}', 'engine': {'name': 'petrol'}}
  built = build(section)
  assert getattr(built, 'engine', built) == Engine(50.0, False)


def test_sections_nest_in_an_annotated_union():
  annotation = Annotated[Engine | None, 'of any kind']
  nested = nesting.nested_sections(annotation, {Engine: {'petrol': petrol}})
  assert [member.form for member in nested] == ['section']


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
def test_a_function_that_a_users_file_does_not_have_is_refused(name, message):
  refused({'name': name}, message)


def test_a_section_needs_no_name_if_there_is_only_one():
  tables = registry.TABLES
  for row in (
    {'masks': {'alpha': 0.1}},
    {'masks': {'name': 'masks', 'alpha': 0.1}},
  ):
    section = {'name': 'masked_layer', **row}
    parsed = parse_lib.parse(
      section, registry.METHODS, 'method', tables, context=('recipe',)
    )
    assert parsed.resolved['masks']['name'] == 'masks'
    assert parsed.resolved['masks']['alpha'] == 0.1
    # The defaults of a section that is not given are resolved too.
    assert parsed.resolved['layers']['epochs'] == 12.0
  with pytest.raises(UsageError, match=r"method\.masks 'alpa'; did you mean"):
    parse_lib.parse(
      {'name': 'masked_layer', 'masks': {'alpa': 0.1}},
      registry.METHODS,
      'method',
      tables,
      context=('recipe',),
    )


def test_types_with_tables_are_distinct():
  """Two equal aliases would share one table."""
  tables = [id(table) for table in registry.TABLES.values()]
  assert len(set(tables)) == len(tables) == 18


@pytest.mark.parametrize(
  ('name', 'keys'),
  [
    ('sskd', {'stage_optimizer', 'head_optimizer'}),
    ('takd', {'assistants'}),
    ('joint', {'terms'}),
    ('pruned', {'pruning', 'fine_tune', 'method', 'fine_tune_optimizer'}),
    ('pruning_protocol', {'prunings', 'fine_tune_optimizer'}),
    ('neighbourhood', {'neighbourhood_optimizer', 'fine_tune'}),
    ('regularization_protocol', {'regularized'}),
    (
      'distpro',
      {'space', 'terms', 'search_optimizer', 'weights_optimizer'},
    ),
    ('regularized', {'augment', 'policy', 'cutout', 'mix'}),
    ('repeated', {'augment'}),
    ('narrowed', {'network'}),
    ('inserted', {'network', 'part'}),
    ('replaced', {'network', 'part'}),
    ('stages', {'network'}),
    ('masked_layer', {'method', 'masks', 'layers', 'label_optimizer'}),
    ('masks', {'optimizer'}),
    ('layers', {'optimizer'}),
    ('sgd', {'schedule'}),
    ('slim', {'optimizer'}),
    ('kd', set()),
  ],
)
def test_the_librarys_functions_nest_sections_under_these_keys(name, keys):
  (function,) = (
    table[name]
    for kind, table in registry.TABLES.items()
    if name in table and table is not registry.OBJECTIVES
  )
  annotations = values.annotations(function)
  assert keys == {
    key
    for key, annotation in annotations.items()
    if key != 'return' and nesting.nested_sections(annotation, registry.TABLES)
  }
