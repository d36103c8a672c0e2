"""Overrides of a config from the command line: `--config.KEY=VALUE`."""

import ast
from collections.abc import Iterable, Sequence
import contextlib
from typing import Any

import ml_collections

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import config as config_lib

PREFIX = '--config.'


def split(
  arguments: Sequence[str],
) -> tuple[list[tuple[str, str]], list[str]]:
  """Splits arguments into overrides (path, value) and all other arguments.

  Raises:
    UsageError: an override has no value.
  """
  overrides: list[tuple[str, str]] = []
  others: list[str] = []
  remaining = iter(arguments)
  for argument in remaining:
    if not argument.startswith(PREFIX):
      others.append(argument)
      continue
    path, equals, text = argument.removeprefix(PREFIX).partition('=')
    value = text if equals else next(remaining, None)
    if not path or value is None:
      raise UsageError(f'{argument}: expected --config.KEY=VALUE')
    overrides.append((path, value))
  return overrides, others


def apply(
  config: ml_collections.ConfigDict, overrides: Iterable[tuple[str, str]]
) -> list[str]:
  """Applies overrides to a config, those of names first.

  A new name drops the keys that the file gave the section, and must not drop
  those that the command line gave it.

  Returns:
    One line for each part of the file that the overrides dropped.
  """
  notes = []
  for path, text in sorted(
    overrides, key=lambda pair: not pair[0].endswith('.name')
  ):
    notes += override(config, path, text)
  return notes


def override(
  config: ml_collections.ConfigDict, path: str, text: str
) -> list[str]:
  """Sets one key of a config, whether or not the config has it.

  `method.name=other` drops the other keys of that section, because they belong
  to the old name.

  Args:
    config: the config, which is changed.
    path: the key, with dots between the sections: 'schedule.rate'.
    text: the value, a Python literal or a string without quotes.

  Returns:
    One line for each part of the file that the override dropped.

  Raises:
    UsageError: there is no such row, or part of the path is not a section.
  """
  *parents, key = path.split('.')
  notes = []
  if parents[:1] == ['method'] and 'methods' in config:
    notes.append(_replace_rows(config))
  _check_row(config, parents, key)
  with config.unlocked():
    section = _section(config, parents, path)
    value = _literal(text)
    if key == 'name':
      notes += _drop_old_keys(section, path, value)
    _set(section, path, key, value)
  return notes


def _replace_rows(config: ml_collections.ConfigDict) -> str:
  """Replaces all rows by one method; returns the note that says so."""
  rows = ', '.join(map(repr, config.methods))
  with config.unlocked():
    del config['methods']
    config['method'] = ml_collections.ConfigDict()
  return (
    f'--config.method replaces the rows {rows}; to change one of them, write '
    '--config.methods.ROW.KEY=VALUE'
  )


def _check_row(
  config: ml_collections.ConfigDict, parents: Sequence[str], key: str
) -> None:
  """Refuses a key of a row that does not exist; a name makes a new row."""
  rows = config.get('methods') if parents[:1] == ['methods'] else None
  if not isinstance(rows, ml_collections.ConfigDict) or not rows:
    return
  if len(parents) > 1 and parents[1] not in rows and key != 'name':
    raise checks.unknown('row of methods', parents[1], list(rows))


def _section(
  config: ml_collections.ConfigDict, parents: Sequence[str], path: str
) -> ml_collections.ConfigDict:
  """Returns the section that holds a key, made if it does not exist."""
  section = config
  for parent in parents:
    if parent not in section:
      section[parent] = ml_collections.ConfigDict()
    section = section[parent]
    if not isinstance(section, ml_collections.ConfigDict):
      raise UsageError(f'--config.{path}: {parent!r} is not a section')
  return section


def _drop_old_keys(
  section: ml_collections.ConfigDict, path: str, name: Any
) -> list[str]:
  """Drops the keys of another name; returns the note that says which."""
  old_name = section.get('name')
  if old_name is None or old_name == name:
    return []
  dropped = [key for key in section if key != 'name']
  for key in dropped:
    del section[key]
  if not dropped:
    return []
  return [
    f'{path} is now {name!r}; dropped the keys of {old_name!r}: '
    f'{", ".join(dropped)}'
  ]


def _set(
  section: ml_collections.ConfigDict, path: str, key: str, value: Any
) -> None:
  """Sets a key to a value of any type."""
  if isinstance(section.get(key), float) and type(value) is int:
    stored = dict(section.items(preserve_field_references=True))[key]
    if not isinstance(stored, ml_collections.FieldReference):
      # A ConfigDict would turn the int into a float: 500 into 500.0.
      del section[key]
  config_lib.check_keys(value, f'--config.{path}')
  # A ConfigDict keeps the type of a key. The checks of sections say more.
  with section.ignore_type():
    try:
      section[key] = value
    except (TypeError, ValueError) as error:  # keys that are no strings
      raise UsageError(f'--config.{path}: {error}') from error


def _literal(text: str) -> Any:
  """Returns the Python value of a text, or the text itself."""
  with contextlib.suppress(
    ValueError, SyntaxError, MemoryError, RecursionError
  ):
    return ast.literal_eval(text)
  return {'true': True, 'false': False, 'none': None}.get(text.lower(), text)
