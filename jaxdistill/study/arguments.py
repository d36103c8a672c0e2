"""The arguments of the command line, which has two forms.

`jaxdistill COMMAND ...` names a command first, and `jaxdistill --config=FILE
...` says with `--mode` what to do. Both are read into the same options.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from jaxdistill._version import __version__
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import option_table


class Command(NamedTuple):
  """A command that is named first.

  Attributes:
    text: what it does.
    arguments: the options that are given without a name.
    options: the options that it takes besides.
    takes_overrides: whether it takes `--config.KEY=VALUE`.
  """

  text: str
  arguments: tuple[str, ...]
  options: tuple[str, ...] = ()
  takes_overrides: bool = False


class _Parser(argparse.ArgumentParser):
  """Reports an error in one line, without the usage."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(message)


COMMANDS: dict[str, Command] = {
  'distill': Command(
    'make a small model from images and a teacher, and say whether the teacher '
    'helped',
    ('data',),
    (*option_table.DISTILL, 'format', 'push_to_hub', 'fast_cpu'),
  ),
  'run': Command(
    'train the models of a config, or continue where an earlier run stopped',
    ('config',),
    (
      'workdir',
      'row',
      'fast_cpu',
      'piece',
      'model_parallel',
      *option_table.CLUSTER,
    ),
    takes_overrides=True,
  ),
  'report': Command(
    'write report.html from the files of a work directory, and print the '
    'verdicts',
    ('workdir',),
  ),
  'evaluate': Command(
    'measure finished runs again',
    ('workdir',),
    ('config', 'row', 'fast_cpu'),
    takes_overrides=True,
  ),
  'export': Command(
    'write the students without their teacher',
    ('workdir',),
    (
      'config',
      'row',
      'fast_cpu',
      'format',
      'int8',
      'no_adapter',
      'push_to_hub',
    ),
    takes_overrides=True,
  ),
  'predict': Command(
    'print the classes that an exported student predicts for images, or write '
    'its vectors, maps or objects',
    ('model', 'image'),
    ('predictions', 'background', 'annotations'),
  ),
  'list': Command('print the names that a config may use', ('kind',)),
}


def parse(
  arguments: list[str], *, has_overrides: bool = False
) -> argparse.Namespace:
  """Parses the arguments, without the overrides of the config.

  Args:
    arguments: the arguments.
    has_overrides: whether there are overrides besides.

  Returns:
    All options; `mode` is also 'distill', 'report', 'predict' or 'list'.

  Raises:
    UsageError: an argument is unknown, or its value is invalid.
  """
  if arguments and not arguments[0].startswith('-'):
    name = checks.choice('command', arguments[0], COMMANDS)
    if has_overrides and not COMMANDS[name].takes_overrides:
      raise UsageError(f'{name}: expected no --config.KEY=VALUE with it')
    return command_parser(name).parse_args(arguments[1:])
  options = parser().parse_args(arguments)
  if not options.adapter and options.mode != 'export':
    raise UsageError(
      f'--no_adapter: expected --mode=export with it, got {options.mode!r}'
    )
  for name in ('format', 'int8', 'push_to_hub'):
    if getattr(options, name) is not None and options.mode != 'export':
      raise UsageError(
        f'--{name}: expected --mode=export with it, got {options.mode!r}'
      )
  if options.piece is not None and options.mode != 'fit':
    raise UsageError(
      f'--piece: expected --mode=fit with it, got {options.mode!r}'
    )
  return options


def parser() -> argparse.ArgumentParser:
  """Returns the parser without a command; documentation is made from it too."""
  width = max(map(len, COMMANDS))
  commands = '\n'.join(
    f'  {name:{width}}  {command.text}' for name, command in COMMANDS.items()
  )
  parser = _Parser(
    prog='jaxdistill',
    usage='jaxdistill COMMAND ...\n'
    '       jaxdistill --config=FILE [options] [--config.KEY=VALUE ...]',
    description='Train the models of a config, evaluate them again or export '
    'them.\n--config.KEY=VALUE changes any key of the config.\n\n'
    f'commands:\n{commands}\n\n'
    'jaxdistill COMMAND --help describes a command.',
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--version', action='version', version=f'jaxdistill {__version__}'
  )
  _add(parser, {**option_table.OPTIONS, **option_table.CLUSTER})
  return parser


def command_parser(name: str) -> argparse.ArgumentParser:
  """Returns the parser of a command; documentation is made from it too.

  Args:
    name: the name of the command.
  """
  command = COMMANDS[name]
  every_option = {
    **option_table.OPTIONS,
    **option_table.DISTILL,
    **option_table.CLUSTER,
    **option_table.PREDICT,
  }
  text = command.text[:1].upper() + command.text[1:]
  if command.takes_overrides:
    text += '. --config.KEY=VALUE changes any key of the config'
  command_line = _Parser(prog=f'jaxdistill {name}', description=f'{text}.')
  # The options that the command does not take have their defaults, too.
  defaults = vars(parser().parse_args([]))
  mode = 'fit' if name == 'run' else name
  command_line.set_defaults(**{**defaults, 'mode': mode})
  for argument in command.arguments:
    command_line.add_argument(
      argument, metavar=argument.upper(), **option_table.ARGUMENTS[argument]
    )
  _add(command_line, {key: every_option[key] for key in command.options})
  return command_line


def cluster(
  options: argparse.Namespace,
) -> tuple[str | None, int | None, int | None] | None:
  """Returns (coordinator, number of processes, number of this process).

  Returns None if this process is the only one. The members are None if JAX has
  to ask the cluster.

  Raises:
    UsageError: only some of the arguments are given, or the mode is not 'fit'.
  """
  members = (
    options.coordinator,
    options.num_processes,
    options.process_id,
  )
  num_given = sum(member is not None for member in members)
  if not options.distributed and not num_given:
    return None
  if options.mode != 'fit' or options.piece is not None:
    what = '--piece' if options.mode == 'fit' else f'--mode={options.mode}'
    raise UsageError(f'{what} runs in one process')
  if num_given not in (0, len(members)):
    raise UsageError(
      '--coordinator, --num_processes and --process_id: give all or none'
    )
  return members


def _add(
  parser: argparse.ArgumentParser, options: Mapping[str, dict[str, Any]]
) -> None:
  for name, settings in options.items():
    parser.add_argument(f'--{name}', **settings)
