"""The configuration reference, from signatures and docstrings."""

from collections.abc import Callable, Mapping
import inspect
import re
from typing import Any

from docs_build import tables

# What a key holds, if its default is an object that has no short text.
_LONGEST_DEFAULT = 40
# Keys that no config can set.
_HIDDEN = ('recipe', 'num_classes', 'schedule', 'name')


def markdown() -> str:
  """Returns the reference of all sections but the networks."""
  parts = []
  for title, (key, sentence) in tables.SECTIONS.items():
    parts.append(f'## {title}\n\n{sentence}\n')
    if key == 'NETWORKS':
      parts.append('```{include} /_generated/include/networks.md\n```\n')
      continue
    for name, function in tables.table(key).items():
      parts.append(_entry(name, function))
  return '\n'.join(parts)


def keys() -> str:
  """Returns a table of the keys of a config."""
  settings = tables.settings()
  _, meanings = _docstring(settings)
  rows = ['| key | default | meaning |', '|---|---|---|']
  for key, parameter in inspect.signature(settings).parameters.items():
    rows.append(_row(key, parameter, meanings))
  return '\n'.join(rows) + '\n'


def network_names() -> str:
  """Returns a table of the networks and the arguments of each family."""
  families: dict[str, list[str]] = {}
  functions = {}
  for name, function in tables.table('NETWORKS').items():
    family = _inner(function)
    families.setdefault(family.__qualname__, []).append(name)
    functions[family.__qualname__] = family
  rows = ['| names | keys of the section |', '|---|---|']
  for family, names in families.items():
    keys = ', '.join(f'`{key}`' for key in _parameters(functions[family]))
    shown = ', '.join(f'`{name}`' for name in names)
    rows.append(f'| {shown} | {keys} |')
  return '\n'.join(rows) + '\n'


def _entry(name: str, function: Callable[..., Any]) -> str:
  """Returns one name: its summary and a table of its keys."""
  summary, arguments = _docstring(function)
  lines = [f'### `{name}`\n', f'{summary}\n']
  parameters = _parameters(function)
  if parameters:
    lines += ['| key | default | meaning |', '|---|---|---|']
  for key, parameter in parameters.items():
    lines.append(_row(key, parameter, arguments))
  return '\n'.join(lines) + '\n'


def _row(
  key: str, parameter: inspect.Parameter, meanings: Mapping[str, str]
) -> str:
  meaning = meanings.get(key, '').replace('|', '\\|')
  meaning = meaning[:1].upper() + meaning[1:]
  return f'| `{key}` | {_default(parameter)} | {meaning} |'


def _parameters(
  function: Callable[..., Any],
) -> Mapping[str, inspect.Parameter]:
  kinds = (
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
  )
  return {
    key: parameter
    for key, parameter in inspect.signature(function).parameters.items()
    if parameter.kind in kinds and key not in _HIDDEN
  }


def _default(parameter: inspect.Parameter) -> str:
  if parameter.default is parameter.empty:
    return 'required'
  text = repr(parameter.default)
  return f'`{text}`' if len(text) <= _LONGEST_DEFAULT else 'see the function'


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
  while hasattr(function, 'func'):  # a functools.partial
    function = function.func
  return function


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
  """Returns the summary line and {argument: description}."""
  text = inspect.cleandoc(_inner(function).__doc__ or '')
  summary = ' '.join(text.partition('\n\n')[0].split())
  found = re.search(
    r'^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)', text, re.MULTILINE
  )
  arguments: dict[str, str] = {}
  key = ''
  for line in found.group(1).splitlines() if found else ():
    start = re.match(r'^  (\*{0,2}\w+): (.*)$', line)
    if start:
      key = start.group(1).strip('*')
      arguments[key] = start.group(2)
    elif key and line.strip():
      arguments[key] += f' {line.strip()}'
  return summary, arguments
