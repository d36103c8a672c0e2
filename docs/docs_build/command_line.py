"""The command line reference, from the argument parsers."""

import argparse
from collections.abc import Iterable
import re

from jaxdistill.study import arguments


def markdown() -> str:
  """Returns a table of the options of the form without a command."""
  return _table(arguments.parser()._actions)


def commands() -> str:
  """Returns the commands, each with a table of what it takes."""
  parts = []
  for name, command in arguments.COMMANDS.items():
    arguments_text = ' '.join(command.arguments).upper()
    parts.append(f'### `jaxdistill {name} {arguments_text}`\n')
    text = command.text[:1].upper() + command.text[1:]
    text = text.replace('report.html', '`report.html`')
    overrides = ' Takes [overrides](#overrides).'
    parts.append(f'{text}.{overrides if command.takes_overrides else ""}\n')
    parts.append(_table(arguments.command_parser(name)._actions))
  return '\n'.join(parts)


def _table(actions: Iterable[argparse.Action]) -> str:
  rows = ['| option | values | meaning |', '|---|---|---|']
  for action in actions:
    option = (action.option_strings or [action.metavar])[0]
    if option == '-h':
      option = '--help'
    rows.append(f'| `{option}` | {_values(action)} | {_text(action)} |')
  return '\n'.join(rows) + '\n'


def _values(action: argparse.Action) -> str:
  if action.nargs == 0:
    return 'none'
  if action.choices:
    return ', '.join(f'`{choice}`' for choice in action.choices)
  kinds = {int: 'whole number', float: 'number'}
  return kinds.get(action.type, 'text')


def _text(action: argparse.Action) -> str:
  text = ' '.join((action.help or '').split()).replace('|', '\\|')
  text = re.sub(r'--\w+', r'`\g<0>`', text)
  return text[:1].upper() + text[1:]
