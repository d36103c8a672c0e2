"""The one training loop: runs the phases of any method and resumes them."""

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Dataset, Method
from jaxdistill.training import checkpoint, part_files, phase_files
from jaxdistill.training.distributed import hosts
from jaxdistill.training.log import Log
from jaxdistill.training.options import (
  FitOptions,
  Fitted,
  Interrupted,
  NonFiniteLossError,
  PhaseCost,
)
from jaxdistill.training.phase_run import PhaseRun

__all__ = [
  'FitOptions',
  'Fitted',
  'Interrupted',
  'NonFiniteLossError',
  'PhaseCost',
  'fit',
]


def fit(
  method: Method,
  carry: Carry,
  dataset: Dataset,
  *,
  seed: int = 0,
  options: FitOptions | None = None,
) -> Fitted:
  """Trains with a method, from the point where its directory says it stopped.

  The steps run on all devices of all processes, with the batches spread over
  them. On one kind of device, a resumed run ends with the same bits as a run
  that was never stopped, because batches and random keys depend only on the
  seed and the step. A run can also be resumed on another number of devices; the
  results then differ slightly.

  A phase in parts, see `phases.parts`, is joined from the files of its parts if
  the directory holds such files.

  Args:
    method: functions that build the phases, in order.
    carry: what the first phase receives: models by role.
    dataset: what 'data' streams draw from.
    seed: determines the order of examples and all random numbers.
    options: how the run is watched, stored and spread over devices; None: the
      defaults, with a progress bar.

  Returns:
    The models and numbers that the run ends with.

  Raises:
    NonFiniteLossError: the loss or the state became NaN or infinite; the
      message names the step, the phase and the last checkpoint.
    Interrupted: `options.interrupted` returned True.
    UsageError: `method` is not a method; the data set or the carry does not
      have what a stream draws from; its batches cannot be spread over the
      devices.
  """
  if not isinstance(method, tuple):
    raise UsageError(
      'fit: expected a method, which is a tuple of phase builders such as '
      f'methods.kd(recipe), got {getattr(method, "__name__", repr(method))}'
    )
  options = options or FitOptions(log=Log())
  fitted = Fitted(dict(carry), {}, {}, 0, 0.0, {})
  for order, build in enumerate(method):
    done = phase_files.path(options, f'phase{order}.safetensors')
    checkpoints = phase_files.path(options, f'checkpoints{order}')
    if done is not None and hosts.of_first(done.exists):
      fitted = phase_files.load(done, fitted)
    else:
      before = fitted
      trained = part_files.trained(build, order, before, options)
      if trained:
        fitted = part_files.joined(before, trained)
      else:
        phase = build(before.carry)
        fitted = PhaseRun(
          phase, order, before, dataset, seed, options, checkpoints
        ).run()
      if done is not None and hosts.first():
        phase_files.save(done, fitted, before)
      hosts.meet()
    if checkpoints is not None and hosts.first():
      checkpoint.delete(checkpoints)
  return fitted
