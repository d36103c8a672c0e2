"""The one training loop: runs the phases of any method and resumes them."""

from collections.abc import Iterable, Mapping
import pathlib
from typing import Any, NamedTuple

import jax

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Carry,
  Dataset,
  Method,
  Phase,
  PhaseBuilder,
  PyTree,
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
  Run,
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
  'Run',
  'fit',
  'fit_runs',
]

# The name of one of several runs: a seed, or the label of a trial.
Name = int | str
# The result of a run, or why it has none.
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
  run = Run(method, carry, seed, options)
  (outcome,) = fit_runs({seed: run}, dataset, options).values()
  if isinstance(outcome, NonFiniteLossError):
    raise outcome
  return outcome


def fit_runs(
  runs: Mapping[Name, Run],
  dataset: Dataset,
  options: FitOptions,
  programs: Programs | None = None,
) -> dict[Name, Outcome]:
  """Trains several runs side by side, each as `fit` trains it alone.

  They may be the seeds of one method, or methods that differ in numbers. A run
  whose loss becomes NaN or infinite does not disturb the others. Where the
  phases of some runs differ in more than numbers, for example because each has
  pruned different channels, these train one after the other.

  Args:
    runs: name -> run.
    dataset: what 'data' streams draw from.
    options: how the runs are watched and spread over devices. If there are
      several runs, its directory holds the checkpoints of all of them.
    programs: keeps the compiled programs for further runs of its methods; None:
      nothing is kept after the call.

  Returns:
    Name -> the result of a run, or why it has none.

  Raises:
    Interrupted: `options.interrupted` returned True.
    UsageError: see `fit`; the runs that began together were others; or the
      steps of runs in one program return other metrics.
  """
  fitted: dict[Name, Outcome] = {
    name: Fitted(dict(run.carry), {}, {}, 0, 0.0, {})
    for name, run in runs.items()
  }
  fitted |= group_files.begin(options, list(runs))
  if programs is None and len(runs) > 1:
    programs = Programs(run.method for run in runs.values())
  context = _Context(dataset, runs, options, programs)
  for order in range(max(len(run.method) for run in runs.values())):
    before = {
      name: outcome
      for name, outcome in fitted.items()
      if isinstance(outcome, Fitted) and order < len(runs[name].method)
    }
    if not before:
      break
    outcomes = _run_phase(order, before, context)
    fitted |= outcomes
    group_files.keep(options, fitted)
    ended = [
      runs[name].options
      for name, outcome in outcomes.items()
      if isinstance(outcome, Fitted)
    ]
    for place in ended + [options] * bool(ended):
      checkpoints = phase_files.path(place, f'checkpoints{order}')
      if checkpoints is not None and hosts.first():
        checkpoint.delete(checkpoints)
  return fitted


class _Context(NamedTuple):
  """The arguments of `fit_runs` that no phase changes."""

  dataset: Dataset
  runs: Mapping[Name, Run]
  options: FitOptions
  programs: Programs | None

  def build(self, name: Name, order: int) -> PhaseBuilder:
    """Returns the function that builds a phase of a run."""
    return self.runs[name].method[order]


def _run_phase(
  order: int, before: Mapping[Name, Fitted], context: _Context
) -> dict[Name, Outcome]:
  """Returns the results of all runs after one phase."""
  stored = _stored(order, before, context)
  if stored:
    return stored
  phases = {
    name: context.build(name, order)(x.carry) for name, x in before.items()
  }
  groups = _alike(order, phases, before, context)
  outcomes: dict[Name, Outcome] = {}
  for i, names in enumerate(groups):
    group = {name: before[name] for name in names}
    # Each group has checkpoints of its own.
    folder = f'checkpoints{order}' + (f'/{i}' if len(groups) > 1 else '')
    outcomes |= _stored(order, group, context) or _train(
      *(order, group, phases, context, folder)
    )
  return outcomes


def _stored(
  order: int, before: Mapping[Name, Fitted], context: _Context
) -> dict[Name, Outcome]:
  """Returns the results of a phase from files, or {} if it must be trained."""
  files = _files(order, before, context)
  if files and all(hosts.of_first(file.exists) for file in files.values()):
    return {
      name: phase_files.load(file, before[name]) for name, file in files.items()
    }
  parts = {
    name: part_files.trained(
      *(context.build(name, order), order, x, context.runs[name].options)
    )
    for name, x in before.items()
  }
  if not all(parts.values()):
    return {}
  return _saved(
    {name: part_files.joined(before[name], x) for name, x in parts.items()},
    *(order, before, context),
  )


def _train(
  order: int,
  before: Mapping[Name, Fitted],
  phases: Mapping[Name, Phase],
  context: _Context,
  folder: str,
) -> dict[Name, Outcome]:
  """Trains a phase of several runs in one program.

  Args:
    order: the position of the phase.
    before: the results of the runs before it.
    phases: the phase of each run.
    context: what no phase changes.
    folder: where the checkpoints are, in the directory of the runs. One run
      keeps them in its own directory.
  """
  runs = {name: context.runs[name] for name in before}
  logs = [run.options.log for run in runs.values()]
  options = next(iter(runs.values())).options
  if len(before) > 1:
    # The log of the group shows the progress.
    options = context.options
    logs = [log.silent() for log in logs]
  else:
    folder = f'checkpoints{order}'
  lanes = [
    SeedRun(
      *(name, run.seed, context.build(name, order)),
      *(phases[name], before[name], log),
    )
    for (name, run), log in zip(runs.items(), logs)
  ]
  phase_run = PhaseRun(
    *(order, lanes, context.dataset, options),
    *(phase_files.path(options, folder), context.programs),
  )
  return _saved(dict(zip(before, phase_run.run())), order, before, context)


def _saved(
  outcomes: dict[Name, Outcome],
  order: int,
  before: Mapping[Name, Fitted],
  context: _Context,
) -> dict[Name, Outcome]:
  """Writes the results of a phase, and returns them."""
  for name, file in _files(order, before, context).items():
    fitted = outcomes[name]
    if isinstance(fitted, Fitted) and hosts.first():
      phase_files.save(file, fitted, before[name])
  hosts.meet()
  return outcomes


def _files(
  order: int, names: Iterable[Name], context: _Context
) -> dict[Name, pathlib.Path]:
  """Returns the file of a phase for each run that has a directory."""
  file = f'phase{order}.safetensors'
  files = {
    name: phase_files.path(context.runs[name].options, file) for name in names
  }
  return {name: path for name, path in files.items() if path is not None}


def _alike(
  order: int,
  phases: Mapping[Name, Phase],
  before: Mapping[Name, Fitted],
  context: _Context,
) -> list[list[Name]]:
  """Returns the runs in groups whose phases can take their steps together.

  A phase without steps is alone, as nothing would be gained.
  """
  groups: list[list[Name]] = []
  shapes: dict[Name, Any] = {}
  if len({context.build(name, order) for name in phases}) > 1:
    shapes = {
      name: _shapes(phase, before[name]) for name, phase in phases.items()
    }
  for name, phase in phases.items():
    for group in groups:
      first = group[0]
      if (
        phase.num_steps > 0
        and shapes.get(name) == shapes.get(first)
        and _are_alike(phase, phases[first])
      ):
        group.append(name)
        break
    else:
      groups.append([name])
  return groups


def _shapes(phase: Phase, before: Fitted) -> PyTree:
  """Returns the shapes of what a phase begins with; None if unknown."""
  try:
    return jax.eval_shape(
      lambda rng: phase.init(rng, before.carry), jax.random.key(0)
    )
  except Exception:  # some phases cannot begin without the values of a key
    return None


def _are_alike(phase: Phase, other: Phase) -> bool:
  """Returns whether two phases read the same batches in the same programs."""
  return _plan(other) == _plan(phase) and all(
    other.static(step) == phase.static(step) for step in range(phase.num_steps)
  )


def _plan(phase: Phase) -> Any:
  """Returns the length of a phase and what it reads, but not its arrays."""
  streams = {
    name: (stream.batch_size, stream.source, stream.subset, stream.part)
    for name, stream in phase.streams.items()
  }
  return phase.name, phase.num_steps, phase.stop_every, streams
