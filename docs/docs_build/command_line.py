"""The command line reference, from the argument parser."""

import argparse
import re

from jaxdistill.study import arguments


def markdown() -> str:
  """Returns a table of the options."""
  rows = ['| option | values | meaning |', '|---|---|---|']
  for action in arguments.parser()._actions:
    option = action.option_strings[0]
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
  return kinds.get(action.type, action.metavar or 'text')


def _text(action: argparse.Action) -> str:
  text = ' '.join((action.help or '').split()).replace('|', '\\|')
  text = re.sub(r'--\w+', r'`\g<0>`', text)
  return text[:1].upper() + text[1:]
