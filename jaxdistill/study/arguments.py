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
from jaxdistill.study import listing

# The formats of an export, see `exports.export`.
FORMATS = ('safetensors', 'stablehlo', 'onnx', 'tflite')
INT8 = ('weights', 'full')


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


def _number_or_text(text: str) -> float | str:
  try:
    return float(text)
  except ValueError:
    return text


def _views(text: str) -> bool | int | str:
  """Returns the value of `--cache_teacher`."""
  if text.isdecimal():
    return int(text)
  return {'yes': True, 'no': False}.get(text, text)


def _formats(text: str) -> tuple[str, ...]:
  """Splits a list of formats."""
  formats = tuple(text.split(','))
  if not set(formats) <= set(FORMATS):
    raise argparse.ArgumentTypeError(
      f'expected {" or ".join(FORMATS)}, got {text!r}'
    )
  return formats


def _piece(text: str) -> int | str:
  """Returns the number of a piece, or 'all'."""
  if text == 'all':
    return text
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(
      f"expected a number from 0, or 'all', got {text!r}"
    )
  return int(text)


_OPTIONS: dict[str, dict[str, Any]] = {
  'config': {
    'help': 'Python file with the config; default: the config that --workdir '
    'was made with'
  },
  'workdir': {'help': 'directory for all results; default: runs/CONFIG'},
  'mode': {
    'default': 'fit',
    'choices': ('fit', 'evaluate', 'export'),
    'help': 'train, evaluate finished runs again, or write the students '
    'without their teacher; default: fit',
  },
  'row': {
    'action': 'append',
    'help': 'label of a row; only this row is used, besides the teacher. Can '
    'be repeated; default: all rows',
  },
  'fast_cpu': {
    'action': 'store_true',
    'help': 'restart the process with settings and computations that are '
    'faster on a CPU',
  },
  'format': {
    'type': _formats,
    'help': f'formats of an export, separated by commas: {", ".join(FORMATS)}; '
    'default: safetensors',
  },
  'int8': {
    'choices': INT8,
    'help': 'what becomes integers of 8 bits in a file of the format tflite: '
    'the weights, or with full the features, too',
  },
  'no_adapter': {
    'dest': 'adapter',
    'action': 'store_false',
    'help': 'export students of the task embedding without their adapter, the '
    "layer that maps their vectors to the teacher's",
  },
  'push_to_hub': {
    'metavar': 'OWNER/NAME',
    'help': 'upload the exported files and their model cards to this model on '
    'the Hugging Face Hub',
  },
  'piece': {
    'type': _piece,
    'help': 'number, from 0, of the only piece to train, for methods whose '
    "pieces are independent, such as neighbourhood; 'all': every piece, each "
    'on a device of its own. A later run joins the pieces',
  },
  'model_parallel': {
    'type': int,
    'default': 1,
    'help': 'number of devices that share each large array; default: 1',
  },
}
_CLUSTER: dict[str, dict[str, Any]] = {
  'distributed': {
    'action': 'store_true',
    'help': 'train with several processes, which JAX finds by asking the '
    'cluster',
  },
  'coordinator': {
    'help': 'HOST:PORT of the first process, if JAX cannot find the cluster'
  },
  'num_processes': {
    'type': int,
    'help': 'number of processes, with --coordinator',
  },
  'process_id': {
    'type': int,
    'help': 'number of this process from 0, with --coordinator',
  },
  'timeout': {
    'type': float,
    'default': 300.0,
    'help': 'seconds to wait for a process that does not answer; default: 300',
  },
}
# The options of `distill`, which are arguments of `distilling.call.distill`.
_DISTILL: dict[str, dict[str, Any]] = {
  'teacher': {
    'required': True,
    'help': 'work directory, WORKDIR:ROW, file of this library, NETWORK:FILE '
    'of PyTorch weights, hf:OWNER/NAME or a folder of Hugging Face, or name of '
    'a network, which is then trained; give it several times to join the '
    'vectors of several teachers',
    'action': 'append',
  },
  'student': {
    'type': _number_or_text,
    'default': 0.5,
    'help': "share of the teacher's width, or name of a network; default: 0.5",
  },
  'out': {'required': True, 'help': 'work directory for all results'},
  'method': {
    'default': 'auto',
    'help': 'name of a method; default: auto, which chooses one',
  },
  'no_baseline': {
    'dest': 'baseline',
    'action': 'store_false',
    'help': 'do not train the student on the labels alone as well',
  },
  'seeds': {
    'type': int,
    'default': 3,
    'help': 'number of times that each student is trained; default: 3',
  },
  'epochs': {
    'type': float,
    'help': 'passes over the training images; default: about 2,000 steps',
  },
  'batch_size': {
    'type': int,
    'help': 'number of images in a batch; default: 64, fewer for few images',
  },
  'image_size': {
    'type': int,
    'help': 'height and width of the images in pixels; default: the median of '
    'their shorter sides, at most 224',
  },
  'labels': {
    'default': 'auto',
    'help': 'auto, folders, none, or a file with an image and its class on '
    'each line; for Hugging Face, the column of labels; default: auto',
  },
  'teacher_epochs': {
    'type': float,
    'help': 'passes over the training images for a teacher that is trained '
    "first; default: the student's, or about 500 steps for a teacher that has "
    'learned other classes',
  },
  'cache_teacher': {
    'type': _views,
    'default': 'auto',
    'help': "compute the teacher's outputs once and store them, for this "
    'number of augmented versions of each training image; yes: for 8; no: the '
    'teacher runs in each step; auto: only if all versions are equal and this '
    'saves time; default: auto',
  },
  'cache_top_k': {
    'type': int,
    'help': "number of the teacher's largest scores that are stored; default: "
    'all',
  },
}
_PREDICT: dict[str, dict[str, Any]] = {
  'predictions': {
    'metavar': 'FOLDER',
    'default': 'predictions',
    'help': 'folder for vectors, maps and objects; default: predictions',
  },
}
# What a command takes without a name.
_ARGUMENTS: dict[str, dict[str, Any]] = {
  'config': {'help': 'Python file with the config'},
  'workdir': {'help': 'work directory of a run'},
  'data': {
    'help': 'folder of images, .npz or .parquet file, hf:NAME, or digits'
  },
  'model': {
    'help': 'work directory with exported students, a folder of them, or one '
    'of their files'
  },
  'image': {'nargs': '+', 'help': 'image files'},
  'kind': {'help': f'what to list: {", ".join(listing.KINDS)}'},
}
COMMANDS: dict[str, Command] = {
  'distill': Command(
    'make a small model from images and a teacher, and say whether the teacher '
    'helped',
    ('data',),
    (*_DISTILL, 'format', 'push_to_hub', 'fast_cpu'),
  ),
  'run': Command(
    'train the models of a config, or continue where an earlier run stopped',
    ('config',),
    ('workdir', 'row', 'fast_cpu', 'piece', 'model_parallel', *_CLUSTER),
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
    ('predictions',),
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
  _add(parser, {**_OPTIONS, **_CLUSTER})
  return parser


def command_parser(name: str) -> argparse.ArgumentParser:
  """Returns the parser of a command; documentation is made from it too.

  Args:
    name: the name of the command.
  """
  command = COMMANDS[name]
  every_option = {**_OPTIONS, **_DISTILL, **_CLUSTER, **_PREDICT}
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
      argument, metavar=argument.upper(), **_ARGUMENTS[argument]
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
