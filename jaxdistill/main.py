"""The command line: jaxdistill COMMAND, or python -m jaxdistill.main.

JAX is imported only after the arguments and the keys of the config have been
checked, so that help and refusals are quick.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
import traceback
from typing import Any

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.study import arguments, config, overrides, settings, shown
from jaxdistill.training import fast_cpu, signals

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit code.

  0: finished. 1: the loss became NaN or infinite. 2: the user chose something
  that does not work, a file cannot be written, or another process was lost. 75:
  stopped by a signal; the run can resume. 130: interrupted when nothing was
  being trained.

  Args:
    argv: the arguments; None: those of the process.
  """
  try:
    with signals.unraisable_interrupts():
      code = _run(list(sys.argv[1:] if argv is None else argv))
  except UsageError as error:
    code = _fail(error, 2)
  except KeyboardInterrupt:  # before or after training, which handles it
    code = _fail('interrupted', signals.INTERRUPTED)
  except Exception as error:
    code = _training_error(error)
  _leave_processes(code)
  return code


def _run(argv: list[str]) -> int:
  """Parses the arguments, checks the config and does what `--mode` says."""
  changes, others = overrides.split(argv)
  options = arguments.parse(others, has_overrides=bool(changes))
  is_shown = options.mode in shown.MODES
  cluster = None if is_shown else arguments.cluster(options)
  if options.fast_cpu and argv == sys.argv[1:]:
    fast_cpu.restart(argv, is_alone=cluster is None)
  if is_shown:
    return shown.show(options)
  if cluster is not None:
    from jaxdistill.training.distributed import hosts

    hosts.join(*cluster, options.timeout)
  path = options.config or config.kept(options.workdir)
  file_config = config.load(path)
  notes = overrides.apply(file_config, changes)
  plain_config = config.plain(file_config)
  settings.check(plain_config)
  workdir = pathlib.Path(options.workdir or config.default_workdir(path))
  plan = _plan(plain_config, options.model_parallel)
  for note in notes:  # after everything has been checked: an error is one line
    print(f'jaxdistill: {note}', file=sys.stderr)
  return _execute(plan, workdir, options)


def _plan(plain_config: dict[str, Any], model_parallel: int) -> 'study.Plan':
  """Builds the plan; the number of devices is checked before data are read."""
  from jaxdistill.training import program_cache
  from jaxdistill.training.distributed import sharding

  program_cache.enable()
  sharding.make_mesh(model_parallel)
  sys.path.insert(0, '')  # for names such as 'my_file:my_method'
  return study.plan(plain_config)


def _execute(
  plan: 'study.Plan', workdir: pathlib.Path, options: argparse.Namespace
) -> int:
  """Trains, evaluates or exports the rows, and prints the outcome."""
  rows = options.row or ()
  if options.mode == 'export':
    formats = options.format or ('safetensors',)
    files = study.export(
      *(plan, workdir, formats, rows, options.int8),
      adapter=options.adapter,
      push_to_hub=options.push_to_hub,
    )
    print(*files, sep='\n')
    return 0
  if options.mode == 'evaluate':
    results = study.evaluate(plan, workdir, rows)
  else:
    with signals.stop_requests() as interrupted:
      keys: dict[str, Any] = {
        'rows': rows,
        'interrupted': interrupted,
        'model_parallel': options.model_parallel,
      }
      if options.piece is not None:
        print(*study.run_pieces(plan, workdir, options.piece, **keys), sep='\n')
        return 0
      results = study.run(plan, workdir, **keys)
  from jaxdistill.study import report
  from jaxdistill.training.distributed import hosts

  if hosts.first():
    print(report.as_text(results))
  return 0


def _training_error(error: Exception) -> int:
  """Returns the exit code of an error of training, or raises it again."""
  import jax

  from jaxdistill.training import loop
  from jaxdistill.training.distributed import hosts, watch

  if isinstance(error, loop.NonFiniteLossError):
    return _fail(error, 1)
  if isinstance(error, loop.Interrupted):
    return _fail(f'{error}; run the same command again to resume', STOPPED)
  if hosts.lost(error):
    hosts.blame()
    reason = ' '.join(str(error).split())[:200]
    watch.give_up(f'another process is gone ({reason})')
  if jax.process_count() > 1:  # the others must not wait for this one
    traceback.print_exception(error)
    watch.give_up(f'{type(error).__name__}, see above')
  raise error


def _leave_processes(code: int) -> None:
  """Parts from the other processes, if there are any."""
  jax = sys.modules.get('jax')
  if jax is not None and jax.distributed.is_initialized():
    from jaxdistill.training.distributed import hosts

    hosts.leave(code, together=code in (0, STOPPED))


def _fail(message: object, code: int) -> int:
  """Prints a message in one line and returns the exit code."""
  print('jaxdistill:', *str(message).split(), file=sys.stderr)
  return code


if __name__ == '__main__':
  sys.exit(run())
