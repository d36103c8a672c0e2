"""Config files: finding, loading and keeping them, and plain dicts of them."""

import ast
from collections.abc import Callable, Mapping
import importlib.util
import inspect
import os
import pathlib
import pprint
import textwrap
import traceback
import types
from typing import Any

import ml_collections

from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError

# The name under which a work directory keeps the config that it was made with.
KEPT = 'config.py'


def load(path: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """Returns what the function `get_config` of a Python file returns.

  The rows under 'methods' keep the order of the file.

  Args:
    path: the path of the file; 'file.py:x' calls `get_config('x')`.

  Raises:
    UsageError: the file does not exist, lacks the function, or raises an error,
      or a key of the config contains a dot.
  """
  file, argument = _split(os.fspath(path))
  if not os.path.isfile(file):
    raise UsageError(f'--config: no file {file!r}')
  module = _module(file)
  try:
    _execute(module)
    config = _call(module, file, argument)
    check_keys(config)
    return _ordered(config)
  except UsageError:
    raise
  except Exception as error:  # whatever the user's file raises
    raise UsageError(_error_message(module, file, argument, error)) from error


def plain(config: Any, place: str = '') -> dict[str, Any]:
  """Returns a config as a plain dict.

  Args:
    config: a dict or a `ConfigDict`.
    place: the key of this section and a dot, for the message.

  Raises:
    UsageError: a placeholder that needs a value has none, or the config is
      neither a dict nor a `ConfigDict`.
  """
  if not isinstance(config, (Mapping, ml_collections.ConfigDict)):
    raise UsageError(f'the config: expected keys and values, got {config!r}')
  sections: dict[str, Any] = {}
  try:
    keys = list(config)
  except TypeError:  # a `ConfigDict` sorts its keys
    where = place.rstrip('.') or 'the config'
    raise UsageError(f'{where}: expected keys that are all strings') from None
  for key in keys:
    try:
      value = config[key]
    except ml_collections.config_dict.RequiredValueError:
      raise UsageError(f'give --config.{place}{key}=VALUE') from None
    sections[key] = _plain_value(value, f'{place}{key}.')
  return sections


def check_keys(value: Any, place: str = '') -> None:
  """Checks that no key contains a dot, which separates keys in overrides.

  Args:
    value: a config, or a part of one.
    place: the key of this part, for the message.

  Raises:
    UsageError: a key contains a dot.
  """
  if not isinstance(value, Mapping):
    return
  for key, part in value.items():
    if isinstance(key, str) and '.' in key:
      raise UsageError(
        f'{place or "the config"}: expected keys without dots, which separate '
        f'keys as in --config.schedule.rate=0.1, got {key!r}'
      )
    check_keys(part, f'{place}.{key}' if place else str(key))


def _plain_value(value: Any, place: str) -> Any:
  """Returns a value of a config with plain dicts in place of sections."""
  if isinstance(value, (Mapping, ml_collections.ConfigDict)):
    return plain(value, place)
  if type(value) in (list, tuple):
    parts = (_plain_value(v, f'{place}{i}.') for i, v in enumerate(value))
    return type(value)(parts)
  return value


def kept(workdir: str | os.PathLike[str] | None) -> str:
  """Returns the path of the config that a work directory was made with.

  Raises:
    UsageError: there is no work directory, or it keeps no config.
  """
  if workdir is None:
    raise UsageError(
      'expected --config=FILE.py, or --workdir of an earlier run'
    )
  path = pathlib.Path(workdir, KEPT)
  if not path.exists():
    raise UsageError(
      f'{workdir}: expected the work directory of a run, but there is no '
      f'{str(path)!r}; give the config by --config=FILE.py'
    )
  return str(path)


def keep(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Writes a config, overrides included, as a config file.

  Nothing is written if the config holds values that are not Python literals.
  """
  text = pprint.pformat(dict(config), width=76, sort_dicts=False)
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return
  writing.write(
    workdir / KEPT,
    f'def get_config():\n  return {textwrap.indent(text, "  ").lstrip()}\n',
  )


def default_workdir(path: str) -> str:
  """Returns 'runs/kd/x' for 'configs/kd/x.py'."""
  file, argument = _split(path)
  parts = pathlib.PurePath(file).with_suffix('').parts
  if 'configs' in parts:
    parts = parts[parts.index('configs') + 1 :]
  else:
    parts = parts[-1:]
  name = '/'.join(parts) + (f'-{argument}' if argument else '')
  return f'runs/{name}'


def _split(path: str) -> tuple[str, str]:
  """Splits 'file.py:argument' into the file and the argument, or ''."""
  file, colon, argument = path.partition('.py:')
  return (f'{file}.py' if colon else file), argument


def _module(file: str) -> types.ModuleType:
  """Returns the module of a file, not yet executed."""
  spec = importlib.util.spec_from_file_location('jaxdistill_config', file)
  if spec is None or spec.loader is None:
    raise UsageError(f'--config: expected a Python file, got {file!r}')
  return importlib.util.module_from_spec(spec)


def _execute(module: types.ModuleType) -> None:
  assert module.__spec__ is not None and module.__spec__.loader is not None
  module.__spec__.loader.exec_module(module)


def _call(module: types.ModuleType, file: str, argument: str) -> Any:
  """Calls `get_config`, with the argument if there is one."""
  get_config: Callable[..., Any] | None = getattr(module, 'get_config', None)
  if not callable(get_config):
    raise UsageError(f"--config: {file!r} has no function 'get_config'")
  if argument and not inspect.signature(get_config).parameters:
    raise UsageError(f'--config: {file!r} takes no argument, got {argument!r}')
  return get_config(argument) if argument else get_config()


def _ordered(config: Any) -> ml_collections.ConfigDict:
  """Returns a `ConfigDict` whose rows have the order of the file.

  A `ConfigDict` sorts its keys unless it is told not to when it is made. Only
  the rows are kept in order: elsewhere the order could change the numbers of
  configs that were written before.
  """
  config = _unshared(config)
  if isinstance(config, Mapping) and isinstance(config.get('methods'), Mapping):
    rows = ml_collections.ConfigDict(dict(config['methods']), sort_keys=False)
    config = {**config, 'methods': rows}
  return ml_collections.ConfigDict(config)


def _unshared(value: Any) -> Any:
  """Returns a value in which no section is the same object as another one.

  Otherwise an override of `{**row, ...}` would also change the row that it was
  made from.
  """
  if isinstance(value, Mapping):
    return {key: _unshared(part) for key, part in value.items()}
  if type(value) in (list, tuple):
    return type(value)(map(_unshared, value))
  return value


def _error_message(
  module: types.ModuleType, file: str, argument: str, error: Exception
) -> str:
  """Says in one line where in the user's file an error came from."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == os.path.abspath(file)
  ]
  line = f', line {lines[-1]}' if lines else ''
  valid = getattr(module, 'ARGUMENTS', ()) if argument else ()
  names = ', '.join(map(repr, valid))  # an argument may contain a comma
  hint = f' (valid arguments: {names})' if valid else ''
  return f'--config: {file!r}{line}: {type(error).__name__}: {error}{hint}'
