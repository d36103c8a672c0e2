"""The one training loop: runs the phases of any method and resumes them."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Carry,
  Dataset,
  Method,
  Phase,
  PhaseBuilder,
)
from jaxdistill.training import (
  checkpoint,
  group_files,
  part_files,
  phase_files,
)
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
from jaxdistill.training.programs import Programs
from jaxdistill.training.seed_run import SeedRun

__all__ = [
  'FitOptions',
  'Fitted',
  'Interrupted',
  'NonFiniteLossError',
  'PhaseCost',
  'Programs',
  'fit',
  'fit_seeds',
]

# The result of a seed, or why it has none.
Outcome = Fitted | NonFiniteLossError


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
  (outcome,) = fit_seeds(
    method, {seed: carry}, dataset, {seed: options}, options
  ).values()
  if isinstance(outcome, NonFiniteLossError):
    raise outcome
  return outcome


def fit_seeds(
  method: Method,
  carries: Mapping[int, Carry],
  dataset: Dataset,
  each: Mapping[int, FitOptions],
  options: FitOptions,
  programs: Programs | None = None,
) -> dict[int, Outcome]:
  """Trains several seeds side by side, each as `fit` trains it alone.

  A seed whose loss becomes NaN or infinite does not disturb the others. If a
  phase differs between seeds, for example because each has pruned different
  channels, the seeds train one after the other.

  Args:
    method: functions that build the phases, in order.
    carries: seed -> what its first phase receives.
    dataset: what 'data' streams draw from.
    each: seed -> the options with the directory of its phases and its log.
    options: how the run is watched, stored and spread over devices. If there
      are several seeds, its directory holds the checkpoints of all of them.
    programs: keeps the compiled programs for further seeds; None: nothing is
      kept after the call.

  Returns:
    Seed -> its result, or why it has none.

  Raises:
    Interrupted: `options.interrupted` returned True.
    UsageError: see `fit`; or the seeds that began together were others.
  """
  fitted: dict[int, Outcome] = {
    seed: Fitted(dict(carry), {}, {}, 0, 0.0, {})
    for seed, carry in carries.items()
  }
  fitted |= group_files.begin(options, list(carries))
  if programs is None and len(carries) > 1:
    programs = Programs()
  context = _Context(dataset, each, options, programs)
  for order, build in enumerate(method):
    before = {
      seed: outcome
      for seed, outcome in fitted.items()
      if isinstance(outcome, Fitted)
    }
    if not before:
      break
    outcomes = _run_phase(build, order, before, context)
    fitted |= outcomes
    group_files.keep(options, fitted)
    ended = [s for s, x in outcomes.items() if isinstance(x, Fitted)]
    for place in [each[seed] for seed in ended] + [options] * bool(ended):
      checkpoints = phase_files.path(place, f'checkpoints{order}')
      if checkpoints is not None and hosts.first():
        checkpoint.delete(checkpoints)
  return fitted


class _Context(NamedTuple):
  """The arguments of `fit_seeds` that no phase changes."""

  dataset: Dataset
  each: Mapping[int, FitOptions]
  options: FitOptions
  programs: Programs | None


def _run_phase(
  build: PhaseBuilder,
  order: int,
  before: Mapping[int, Fitted],
  context: _Context,
) -> dict[int, Outcome]:
  """Returns the results of all seeds after one phase."""
  stored = _stored(build, order, before, context)
  if stored:
    return stored
  phases = {seed: build(x.carry) for seed, x in before.items()}
  if len(before) == 1 or _are_alike(list(phases.values())):
    return _train(build, order, before, phases, context)
  outcomes: dict[int, Outcome] = {}
  for seed, x in before.items():
    one = {seed: x}
    outcomes |= _stored(build, order, one, context) or _train(
      *(build, order, one, phases, context)
    )
  return outcomes


def _stored(
  build: PhaseBuilder,
  order: int,
  before: Mapping[int, Fitted],
  context: _Context,
) -> dict[int, Outcome]:
  """Returns the results of a phase from files, or {} if it must be trained."""
  files = _files(order, before, context)
  if files and all(hosts.of_first(file.exists) for file in files.values()):
    return {
      seed: phase_files.load(file, before[seed]) for seed, file in files.items()
    }
  parts = {
    seed: part_files.trained(build, order, x, context.each[seed])
    for seed, x in before.items()
  }
  if not all(parts.values()):
    return {}
  return _saved(
    {seed: part_files.joined(before[seed], x) for seed, x in parts.items()},
    *(order, before, context),
  )


def _train(
  build: PhaseBuilder,
  order: int,
  before: Mapping[int, Fitted],
  phases: Mapping[int, Phase],
  context: _Context,
) -> dict[int, Outcome]:
  """Trains a phase of several seeds in one program."""
  logs = {seed: context.each[seed].log for seed in before}
  options = context.each[next(iter(before))]
  if len(before) > 1:
    # The log of the group shows the progress.
    options = context.options
    logs = {seed: log.silent() for seed, log in logs.items()}
  checkpoints = phase_files.path(options, f'checkpoints{order}')
  runs = [
    SeedRun(seed, phases[seed], x, logs[seed]) for seed, x in before.items()
  ]
  run = PhaseRun(
    *(build, order, runs, context.dataset, options, checkpoints),
    context.programs,
  )
  return _saved(dict(zip(before, run.run())), order, before, context)


def _saved(
  outcomes: dict[int, Outcome],
  order: int,
  before: Mapping[int, Fitted],
  context: _Context,
) -> dict[int, Outcome]:
  """Writes the results of a phase, and returns them."""
  for seed, file in _files(order, before, context).items():
    fitted = outcomes[seed]
    if isinstance(fitted, Fitted) and hosts.first():
      phase_files.save(file, fitted, before[seed])
  hosts.meet()
  return outcomes


def _files(
  order: int, seeds: Iterable[int], context: _Context
) -> dict[int, pathlib.Path]:
  """Returns the file of a phase for each seed that has a directory."""
  name = f'phase{order}.safetensors'
  files = {seed: phase_files.path(context.each[seed], name) for seed in seeds}
  return {seed: file for seed, file in files.items() if file is not None}


def _are_alike(phases: Sequence[Phase]) -> bool:
  """Returns whether the phases of several seeds can take their steps together.

  For phases without steps it returns False, as nothing would be gained.
  """
  first, *others = phases
  return first.num_steps > 0 and all(
    _plan(other) == _plan(first)
    and all(
      other.static(step) == first.static(step)
      for step in range(first.num_steps)
    )
    for other in others
  )


def _plan(phase: Phase) -> Any:
  """Returns the length of a phase and what it reads, but not its arrays."""
  streams = {
    name: (stream.batch_size, stream.source, stream.subset, stream.part)
    for name, stream in phase.streams.items()
  }
  return phase.name, phase.num_steps, phase.stop_every, streams
