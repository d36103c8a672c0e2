"""Configs: files with arguments, and overrides from the command line."""

import ml_collections
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.study import config as config_lib
from jaxdistill.study import overrides


@pytest.mark.parametrize(
  ('override', 'value'),
  [
    ('epochs=3', 3),
    ('epochs=0.5', 0.5),  # it was an integer
    ('schedule.rate=1', 1),  # stays an int where the file has a float
    ('schedule.warmup=0.1', 0.1),  # the file does not mention it
    ('task.label_smoothing=0.1', 0.1),  # nor the section
    ('teacher.training.schedule.rate=0.2', 0.2),
    ('student.widths=(4,4,8)', (4, 4, 8)),
    ('student.shortcut=A', 'A'),
    ('optimizer.nesterov=false', False),
    ('optimizer.nesterov=True', True),
    ('student.inner_widths=none', None),
    ('methods.student alone.epochs=7', 7),
    ('data.path=a=b', 'a=b'),
  ],
)
def test_an_override_sets_any_key_to_a_python_value(
  cli, config, override, value
):
  node = cli.load(config, override)
  for key in override.partition('=')[0].split('.'):
    node = node[key]
  assert node == value
  assert type(node) is type(value)


def test_a_new_name_drops_the_keys_of_the_old_one_and_says_so(cli, config):
  loaded = cli.load(config)
  notes = overrides.override(loaded, 'methods.kd.name', 'supervised')
  assert loaded.methods.kd.to_dict() == {'name': 'supervised'}
  assert notes == [
    "methods.kd.name is now 'supervised'; dropped the keys of 'kd': temperature"
  ]


@pytest.mark.parametrize(
  'change',
  ['methods.kd.name=kdd', 'student.name=resnet9', 'method.nam=kd', 'a.b=1'],
)
def test_a_wrong_override_is_one_line_without_notes(
  cli, resnet, tmp_path, change
):
  cli.refused(resnet, tmp_path / 'workdir', f'--config.{change}')


def test_notes_are_printed_once_the_config_has_been_accepted(
  cli, config, tmp_path
):
  changes = ('--config.method.name=supervised', '--config.epochs=0.1')
  _, err = cli.fit(config, tmp_path / 'workdir', *changes)
  assert err.startswith('jaxdistill: --config.method replaces the rows')


@pytest.mark.parametrize(
  'change',
  ["data={'a.b':1}", "optimizer={'x':{'b.c':1}}", "student.x={'.':{}}"],
)
def test_keys_that_a_config_cannot_hold_are_refused(cli, config, change):
  with pytest.raises(UsageError, match=r'^--config.*without dots.*, got '):
    cli.load(config, change)


@pytest.mark.parametrize(
  ('methods', 'words'),
  [
    ("{'kd, 0.1': {'name': 'kd'}}", r"^methods: .*without dots.* 'kd, 0\.1'$"),
    (
      "{'kd': {'sweep': {'keys': {'schedule.rate': [1.0]}}}}",
      r"^methods\.kd\.sweep\.keys: .* got 'schedule\.rate'$",
    ),
  ],
)
def test_a_file_whose_keys_contain_dots_is_refused_by_the_place_of_the_key(
  tmp_path, methods, words
):
  file = tmp_path / 'mine.py'
  file.write_text(f"def get_config():\n  return {{'methods': {methods}}}\n")
  with pytest.raises(UsageError, match=words):
    config_lib.load(file)


def test_keys_of_several_types_are_refused():
  config = ml_collections.ConfigDict({'data': {}})
  with config.unlocked():
    config.methods = {1: {}, 'a': {}}
  with pytest.raises(UsageError, match=r'^methods: .* all strings'):
    config_lib.plain(config)


def test_only_a_name_makes_a_new_row(cli, config):
  loaded = cli.load(config)
  with loaded.unlocked():
    loaded.methods = {'kd': {'name': 'kd'}, 'at': {'name': 'at'}}
  message = r"row of methods 'kdd'; did you mean 'kd'\? \(valid: at, kd\)"
  with pytest.raises(UsageError, match=message):
    overrides.override(loaded, 'methods.kdd.weight', '2')
  overrides.override(loaded, 'methods.sp.name', 'sp')
  assert list(loaded.methods) == ['at', 'kd', 'sp']


@pytest.mark.parametrize('rows', [{True: {}}, [{'a': {}}], 3, 'kd'])
def test_a_key_of_rows_that_do_not_exist_is_refused(rows):
  config = ml_collections.ConfigDict({'methods': rows})
  with pytest.raises(UsageError, match=r"row of methods 'b'|not a section"):
    overrides.override(config, 'methods.b.weight', '2')


def test_the_same_name_drops_nothing(cli, config):
  loaded = cli.load(config)
  assert overrides.override(loaded, 'methods.kd.name', 'kd') == []
  assert loaded.methods.kd.temperature == 2.0


def test_a_new_name_keeps_the_overrides_that_come_before_it(
  cli, config, tmp_path
):
  line = cli.refused(
    config,
    tmp_path / 'workdir',
    '--config.schedule.patience=long',
    '--config.schedule.name=plateau',
  )
  assert "schedule.patience: expected a whole number, got 'long'" in line


def test_derived_numbers_follow_an_override(cli, tmp_path):
  file = tmp_path / 'derived.py'
  file.write_text(
    'import ml_collections\n'
    'def get_config():\n'
    '  config = ml_collections.ConfigDict()\n'
    '  config.batch_size = 64\n'
    '  config.epochs = 4\n'
    "  config.schedule = {'rate': config.get_ref('batch_size') * 0.5}\n"
    "  config.late = {'epochs': config.get_ref('epochs') * 2}\n"
    '  return config\n'
  )
  loaded = cli.load(file, 'batch_size=8', 'epochs=0.5')
  assert loaded.schedule.rate == 4.0
  assert loaded.late.epochs == 1.0


def test_a_config_file_gets_the_argument_after_its_name(config):
  loaded = config_lib.load(f'{config}:late,kd')
  assert list(loaded.methods) == ['late', 'kd']


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('def get_config():\n  return {}', "takes no argument, got 'abc'"),
    (
      "ARGUMENTS = '0.5', '1'\ndef get_config(x=1):\n  return float(x)",
      "'abc' (valid arguments: '0.5', '1')",
    ),
  ],
)
def test_a_wrong_argument_of_a_config_is_refused(cli, tmp_path, text, words):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  assert words in cli.refused(f'{file}:abc', tmp_path / 'workdir')


def test_a_method_on_the_command_line_replaces_all_rows():
  config = ml_collections.ConfigDict(
    {'methods': {'a': {'name': 'kd'}, 'b': {'name': 'at'}}}
  )
  (note,) = overrides.override(config, 'method.name', 'sp')
  assert "the rows 'a', 'b'" in note
  assert overrides.override(config, 'method.weight', '2.0') == []
  assert config.to_dict() == {'method': {'name': 'sp', 'weight': 2.0}}


@pytest.mark.parametrize('as_dict', [True, False])
def test_rows_keep_the_order_of_the_file(tmp_path, as_dict):
  rows = "{'b': {'name': 'kd'}, 'a': {'name': 'at'}}"
  config = f"{{'methods': {rows}}}"
  if not as_dict:
    rows = f'ml_collections.ConfigDict({rows}, sort_keys=False)'
    config = f"ml_collections.ConfigDict({{'methods': {rows}}})"
  file = tmp_path / 'ordered.py'
  file.write_text(
    f'import ml_collections\ndef get_config():\n  return {config}\n'
  )
  plain = config_lib.plain(config_lib.load(file))
  assert list(plain['methods']) == ['b', 'a']
  assert type(plain['methods']['b']) is dict


def test_an_override_of_a_row_leaves_a_row_that_shares_its_sections(tmp_path):
  (tmp_path / 'c.py').write_text(
    'def get_config():\n'
    "  row = {'name': 'kd', 'schedule': {'rate': 0.1}, 'x': [{'y': 1}]}\n"
    "  return {'methods': {'a': row, 'b': {**row}, 'c': row}}\n"
  )
  loaded = config_lib.load(tmp_path / 'c.py')
  overrides.override(loaded, 'methods.a.schedule.rate', '0.5')
  methods = config_lib.plain(loaded)['methods']
  assert [row['schedule']['rate'] for row in methods.values()] == [
    0.5,
    0.1,
    0.1,
  ]
