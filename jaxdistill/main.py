"""The command line: python -m jaxdistill.main --config=FILE."""

import argparse
import ast
from collections.abc import Sequence
import contextlib
import importlib.util
import inspect
import io
import os
import pathlib
import signal
import sys
import traceback
from typing import Any

import jax
import ml_collections
import rich.console

from jaxdistill import experiment, fast_cpu, study
from jaxdistill.data import cache
from jaxdistill.networks import staged
from jaxdistill.training import hosts, loop, sharding, watch
from jaxdistill.types import UsageError

OVERRIDE = '--config.'
STOPPED = 75  # of sysexits.h: try again


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code.

  0: done; 1: the loss became no number; 2: a choice of the user is wrong, or
  another process is lost; 75: stopped by a signal with everything kept; 130:
  interrupted where nothing was trained.
  """
  code = _code(argv)
  if jax.distributed.is_initialized():
    hosts.leave(code, alike=code in (0, STOPPED))
  return code


def _code(argv: Sequence[str] | None) -> int:
  try:
    with _lost_interrupts():
      return _run(list(sys.argv[1:] if argv is None else argv))
  except UsageError as error:
    print(f'jaxdistill: {_one_line(error)}', file=sys.stderr)
    return 2
  except loop.NonFiniteLossError as error:
    print(f'jaxdistill: {_one_line(error)}', file=sys.stderr)
    return 1
  except loop.Interrupted as error:
    print(
      f'jaxdistill: {error}; the same command goes on from there',
      file=sys.stderr,
    )
    return STOPPED
  except KeyboardInterrupt:  # before or after training, which handles it
    print('jaxdistill: interrupted', file=sys.stderr)
    return 130
  except Exception as error:
    if hosts.lost(error):
      hosts.blame()
      watch.give_up(f'another process is gone ({_one_line(error)[:200]})')
    if jax.process_count() > 1:  # the others must not wait for this one
      traceback.print_exc()
      watch.give_up(f'{type(error).__name__}, see above')
    raise


def _run(argv: list[str]) -> int:
  overrides, rest = _split(argv)
  arguments = _parser().parse_args(rest)
  if arguments.fast_cpu and argv == sys.argv[1:]:
    fast_cpu.restart(argv)
  if arguments.format is not None and arguments.mode != 'export':
    raise UsageError(f'--format is of an export; --mode is {arguments.mode!r}')
  cluster = (
    arguments.coordinator,
    arguments.num_processes,
    arguments.process_id,
  )
  if arguments.distributed or any(x is not None for x in cluster):
    _join(cluster, arguments.mode, arguments.timeout)
  if arguments.config is None:
    arguments.config = _kept_config(arguments.workdir)
  config = load_config(arguments.config)
  # Names first: one that changes drops the file's keys, not the command line's.
  overrides.sort(key=lambda pair: not pair[0].endswith('.name'))
  for key, value in overrides:
    override(config, key, value)
  workdir = pathlib.Path(arguments.workdir or default_workdir(arguments.config))
  _cache_programs()
  sharding.make_mesh(arguments.model_parallel)  # or refuse, before data is read
  sys.path.insert(0, '')  # for names such as 'my_file:my_method'
  plan = experiment.plan(_plain(config))
  rows = arguments.row or ()
  if arguments.mode == 'export':
    formats = arguments.format or ('safetensors',)
    for path in study.export(plan, workdir, formats, rows):
      print(path)
    return 0
  if arguments.mode == 'evaluate':
    results = study.evaluate(plan, workdir, rows)
  else:
    with _signals() as interrupted:
      results = study.run(
        plan,
        workdir,
        rows=rows,
        interrupted=interrupted,
        model_parallel=arguments.model_parallel,
      )
  if jax.process_index() > 0:
    return 0
  console = rich.console.Console(width=120, record=True, file=io.StringIO())
  console.print(study.table(results))
  lines = console.export_text().splitlines()
  print('\n'.join(line.rstrip() for line in lines if line.strip()))
  return 0


def load_config(path: str) -> ml_collections.ConfigDict:
  """The result of the file's `get_config`; 'file.py:x' passes it 'x'.

  Raises:
    UsageError: the file is missing, has no such function, or raises an error.
  """
  file, _, argument = path.partition('.py:')
  file = f'{file}.py' if argument else file
  if not os.path.isfile(file):
    raise UsageError(f'--config: no file {file!r}')
  spec = importlib.util.spec_from_file_location('jaxdistill_config', file)
  if spec is None or spec.loader is None:
    raise UsageError(f'--config: {file!r} is no Python file')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not callable(getattr(module, 'get_config', None)):
      raise UsageError(f"--config: {file!r} has no function 'get_config'")
    if argument and not inspect.signature(module.get_config).parameters:
      raise UsageError(f'--config: {file!r} takes no argument: {argument!r}')
    config = module.get_config(*([argument] if argument else []))
    if isinstance(config, dict) and isinstance(config.get('methods'), dict):
      rows = ml_collections.ConfigDict(config['methods'], sort_keys=False)
      config = {**config, 'methods': rows}  # in their order
    return ml_collections.ConfigDict(config)
  except UsageError:
    raise
  except Exception as error:  # whatever the user's file raises
    known = getattr(module, 'ARGUMENTS', ()) if argument else ()
    such = f'; arguments such as: {", ".join(known)}' if known else ''
    raise UsageError(f'{_blame(file, error)}{such}') from error


def _kept_config(workdir: str | None) -> str:
  """The config that a work directory was made by.

  Raises:
    UsageError: there is none.
  """
  if workdir is None:
    raise UsageError('wanted --config=FILE.py, or --workdir of a run')
  kept = pathlib.Path(workdir, 'config.py')
  if not kept.exists():
    raise UsageError(f'--workdir: no {str(kept)!r}; give --config=FILE.py')
  return str(kept)


def override(config: ml_collections.ConfigDict, path: str, text: str) -> None:
  """Sets one key of a config, new or not, from the command line.

  `method.name=other` drops the other keys of that section, which belong to
  the first name.
  """
  *parents, key = path.split('.')
  section = config
  if parents[:1] == ['method'] and 'methods' in config:
    with config.unlocked():
      rows = ', '.join(map(repr, config.methods))
      del config['methods']
      config['method'] = ml_collections.ConfigDict()
    print(
      f'jaxdistill: --config.method stands for the rows {rows}; to change one '
      'of them write --config.methods.ROW.KEY=VALUE',
      file=sys.stderr,
    )
  rows = config.get('methods', {}) if parents[:1] == ['methods'] else {}
  if rows and len(parents) > 1 and parents[1] not in rows and key != 'name':
    raise staged.unknown('row of methods', parents[1], list(rows))
  with config.unlocked():
    for parent in parents:
      if parent not in section:
        section[parent] = ml_collections.ConfigDict()
      section = section[parent]
      if not isinstance(section, ml_collections.ConfigDict):
        raise UsageError(f'--config.{path}: {parent!r} is no section')
    value = _literal(text)
    old = section.get(key)
    if key == 'name' and old is not None and old != value:
      dropped = [k for k in section if k != 'name']
      for name in dropped:
        del section[name]
      if dropped:
        print(
          f'jaxdistill: {path} is now {value!r}; dropped the keys of {old!r}: '
          f'{", ".join(dropped)}',
          file=sys.stderr,
        )
    if isinstance(old, float) and type(value) is int:
      held = dict(section.items(preserve_field_references=True))[key]
      if not isinstance(held, ml_collections.FieldReference):
        del section[key]  # or 500 in the place of 0.1 becomes 500.0
    # ConfigDict keeps a key's type; the checks of the sections say more.
    with config.ignore_type():
      section[key] = value


def default_workdir(config: str) -> str:
  """'runs/kd/x' for 'configs/kd/x.py'."""
  file, _, argument = config.partition('.py:')
  parts = pathlib.PurePath(file).with_suffix('').parts
  parts = (
    parts[parts.index('configs') + 1 :] if 'configs' in parts else parts[-1:]
  )
  name = '/'.join(parts) + (f'-{argument}' if argument else '')
  return f'runs/{name}'


class _Parser(argparse.ArgumentParser):
  """Errors in one line, without the usage."""

  def error(self, message: str) -> Any:
    raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog='jaxdistill',
    description='Distil a student. --config.KEY=VALUE changes any key.',
  )
  parser.add_argument(
    '--config', help='a Python file; default: what --workdir was made by'
  )
  parser.add_argument(
    '--workdir', help='where everything is kept; default: runs/CONFIG'
  )
  parser.add_argument(
    '--mode',
    default='fit',
    choices=('fit', 'evaluate', 'export'),
    help='train, evaluate again, or write the students alone; default: fit',
  )
  parser.add_argument(
    '--row',
    action='append',
    help='a row of the config to do alone, after the teacher; may be given '
    'again; default: all',
  )
  parser.add_argument(
    '--fast_cpu',
    action='store_true',
    help='start anew with settings that make XLA faster on a CPU',
  )
  parser.add_argument(
    '--format',
    type=_formats,
    help='of an export: safetensors, stablehlo, or both with a comma between; '
    'default: safetensors',
  )
  parser.add_argument(
    '--model_parallel',
    type=int,
    default=1,
    help='devices that share large arrays; default: 1',
  )
  parser.add_argument(
    '--distributed',
    action='store_true',
    help='one of several processes; JAX asks the cluster about the others',
  )
  parser.add_argument(
    '--coordinator', help='HOST:PORT of the first process, for no such cluster'
  )
  parser.add_argument('--num_processes', type=int, help='with --coordinator')
  parser.add_argument('--process_id', type=int, help='with --coordinator')
  parser.add_argument(
    '--timeout',
    type=float,
    default=300.0,
    help='seconds to wait for a process that does not answer; default: 300',
  )
  return parser


def _formats(text: str) -> tuple[str, ...]:
  formats = tuple(text.split(','))
  if not set(formats) <= set(study.FORMATS):
    raise argparse.ArgumentTypeError(
      f'{text!r}; choose from {", ".join(study.FORMATS)}'
    )
  return formats


def _join(cluster: tuple[Any, Any, Any], mode: str, timeout: float) -> None:
  """Meets the other processes.

  Raises:
    UsageError: the arguments do not say how, or another mode is asked for.
  """
  if mode != 'fit':
    raise UsageError(f'--mode={mode} runs in one process')
  if len({x is None for x in cluster}) > 1:
    raise UsageError(
      '--coordinator, --num_processes and --process_id: give all or none'
    )
  hosts.join(*cluster, timeout)


def _split(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
  """The overrides (path, value), and the other arguments."""
  overrides: list[tuple[str, str]] = []
  rest: list[str] = []
  left = iter(argv)
  for argument in left:
    if not argument.startswith(OVERRIDE):
      rest.append(argument)
      continue
    path, found, text = argument.removeprefix(OVERRIDE).partition('=')
    value = text if found else next(left, None)
    if not path or value is None:
      raise UsageError(f'{argument}: wanted --config.KEY=VALUE')
    overrides.append((path, value))
  return overrides, rest


def _literal(text: str) -> Any:
  """A Python value, or the text itself."""
  with contextlib.suppress(ValueError, SyntaxError):
    return ast.literal_eval(text)
  return {'true': True, 'false': False, 'none': None}.get(text.lower(), text)


def _cache_programs() -> None:
  """Seeds of a method share their compiled programs, and so do later runs."""
  folder = cache.folder()
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home to write to
      return
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


@contextlib.contextmanager
def _lost_interrupts() -> Any:
  """Ends the process at a Ctrl-C that Python drops, as in a callback of XLA."""

  def ended(dropped: Any) -> None:
    if issubclass(dropped.exc_type, KeyboardInterrupt):
      os.write(2, b'jaxdistill: interrupted\n')
      os._exit(130)
    hook(dropped)

  hook, sys.unraisablehook = sys.unraisablehook, ended
  try:
    yield
  finally:
    sys.unraisablehook = hook


@contextlib.contextmanager
def _signals() -> Any:
  """Gives a function that says whether SIGTERM or Ctrl-C came."""
  came: list[int] = []

  def handle(number: int, frame: Any) -> None:
    del frame
    if number in came:  # twice: what is on disk is enough
      os.write(2, b'jaxdistill: interrupted\n')
      os._exit(130)
    came.append(number)
    os.write(2, b'jaxdistill: stopping after this step; again: at once\n')

  handlers = {
    number: signal.signal(number, handle)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield lambda: bool(came)
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def _plain(
  config: ml_collections.ConfigDict, place: str = ''
) -> dict[str, Any]:
  """The config as a dict; a required placeholder must have got its value."""
  plain = {}
  for key in config:
    try:
      value = config[key]
    except ml_collections.config_dict.RequiredValueError:
      raise UsageError(f'give --config.{place}{key}=VALUE') from None
    if isinstance(value, ml_collections.ConfigDict):
      value = _plain(value, f'{place}{key}.')
    plain[key] = value
  return plain


def _blame(file: str, error: Exception) -> str:
  """One line that says where in the user's file an error came from."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == os.path.abspath(file)
  ]
  line = f', line {lines[-1]}' if lines else ''
  return f'--config: {file!r}{line}: {type(error).__name__}: {error}'


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())


if __name__ == '__main__':
  sys.exit(run())
