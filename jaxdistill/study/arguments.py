"""The arguments of the command line."""

import argparse
from typing import NoReturn

from jaxdistill._version import __version__
from jaxdistill.core.checks import UsageError

# The formats of an export, see `exports.export`.
FORMATS = ('safetensors', 'stablehlo')


class _Parser(argparse.ArgumentParser):
  """Reports an error in one line, without the usage."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(message)


def parse(arguments: list[str]) -> argparse.Namespace:
  """Parses the arguments, without the overrides of the config.

  Raises:
    UsageError: an argument is unknown, or its value is invalid.
  """
  options = parser().parse_args(arguments)
  if options.format is not None and options.mode != 'export':
    raise UsageError(
      f'--format: expected --mode=export with it, got {options.mode!r}'
    )
  return options


def parser() -> argparse.ArgumentParser:
  """Returns the parser, from which the documentation is made too."""
  parser = _Parser(
    prog='jaxdistill',
    description='Train the models of a config, evaluate them again or export '
    'them. --config.KEY=VALUE changes any key of the config.',
  )
  parser.add_argument(
    '--version', action='version', version=f'jaxdistill {__version__}'
  )
  parser.add_argument(
    '--config',
    help='Python file with the config; default: the config that --workdir was '
    'made with',
  )
  parser.add_argument(
    '--workdir', help='directory for all results; default: runs/CONFIG'
  )
  parser.add_argument(
    '--mode',
    default='fit',
    choices=('fit', 'evaluate', 'export'),
    help='train, evaluate finished runs again, or write the students without '
    'their teacher; default: fit',
  )
  parser.add_argument(
    '--row',
    action='append',
    help='label of a row; only this row is used, besides the teacher. Can be '
    'repeated; default: all rows',
  )
  parser.add_argument(
    '--fast_cpu',
    action='store_true',
    help='restart the process with settings that make XLA faster on a CPU',
  )
  parser.add_argument(
    '--format',
    type=_formats,
    help='format of an export: safetensors, stablehlo, or both, separated by a '
    'comma; default: safetensors',
  )
  parser.add_argument(
    '--model_parallel',
    type=int,
    default=1,
    help='number of devices that share each large array; default: 1',
  )
  _add_cluster_arguments(parser)
  return parser


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
  if options.mode != 'fit':
    raise UsageError(f'--mode={options.mode} runs in one process')
  if num_given not in (0, len(members)):
    raise UsageError(
      '--coordinator, --num_processes and --process_id: give all or none'
    )
  return members


def _add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of training with several processes."""
  parser.add_argument(
    '--distributed',
    action='store_true',
    help='train with several processes, which JAX finds by asking the cluster',
  )
  parser.add_argument(
    '--coordinator',
    help='HOST:PORT of the first process, if JAX cannot find the cluster',
  )
  parser.add_argument(
    '--num_processes',
    type=int,
    help='number of processes, with --coordinator',
  )
  parser.add_argument(
    '--process_id',
    type=int,
    help='number of this process from 0, with --coordinator',
  )
  parser.add_argument(
    '--timeout',
    type=float,
    default=300.0,
    help='seconds to wait for a process that does not answer; default: 300',
  )


def _formats(text: str) -> tuple[str, ...]:
  """Splits a list of formats."""
  formats = tuple(text.split(','))
  if not set(formats) <= set(FORMATS):
    raise argparse.ArgumentTypeError(
      f'expected {" or ".join(FORMATS)}, got {text!r}'
    )
  return formats
