"""The runs of rows: trained one by one or together, measured and written."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import importlib.metadata
import pathlib
from typing import Any, NamedTuple

import jax
import rich.console

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Dataset, Model
from jaxdistill.data.loading import streaming
from jaxdistill.study import (
  measurements,
  models,
  recording,
  run_groups,
  teacher_cache,
)
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row
from jaxdistill.training import checkpoint, loop
from jaxdistill.training.distributed import hosts, sharding
from jaxdistill.training.log import Log
from jaxdistill.training.trackers import TrackedRun

PACKAGES = (
  'jaxdistill',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
)


class Study(NamedTuple):
  """One call of `run`.

  Attributes:
    plan: what to run.
    workdir: the work directory.
    mesh: the devices.
    options: how runs are watched and stored, except for their own folder.
    show: whether to show progress.
    console: where the teacher's accuracy is printed.
  """

  plan: Plan
  workdir: pathlib.Path
  mesh: jax.sharding.Mesh
  options: loop.FitOptions
  show: bool
  console: rich.console.Console

  def say(self, text: str) -> None:
    """Prints a line as it is, however long."""
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Teacher(NamedTuple):
  """A trained teacher.

  Attributes:
    model: the model.
    answers: returns its answers to the test images; None if they cannot be
      compared with those of students.
    outputs: its stored outputs for views of the training images, see
      `teacher_outputs.column`; None: it runs in each step.
  """

  model: Model
  answers: Callable[[], measurements.Answers] | None
  outputs: Any = None


def check_together(plan: Plan, devices: int) -> None:
  """Checks that the seeds of a row can train in one program.

  Args:
    plan: what to run.
    devices: the number of devices.

  Raises:
    UsageError: the seeds shall train together, but there are several devices,
      or the data are streamed.
  """
  if not plan.together:
    return
  if devices > sharding.parts_of_processor():
    raise UsageError(
      f'together: expected one device, got {devices}; make only one visible, '
      'for example with CUDA_VISIBLE_DEVICES=0, or set together=False'
    )
  if any(map(streaming.is_lazy, plan.dataset.splits.values())):
    raise UsageError(
      'together: expected data in memory, got images that are read while the '
      'network trains; set together=False'
    )


def train(
  study: Study,
  runs: Sequence[run_groups.Run],
  teacher: Teacher | None,
  programs: loop.Programs | None,
) -> None:
  """Trains runs together, or resumes them, and writes their results.

  If the loss of a seed of a trial becomes NaN, in training or when it is
  measured, the trial has lost.

  Args:
    study: the study.
    runs: seeds of one row, or of several rows that differ only in
      floating-point numbers.
    teacher: the teacher.
    programs: the programs of earlier runs.

  Raises:
    NonFiniteLossError: the loss of a seed that is not part of a trial became
      NaN. The other seeds have been finished.
  """
  rows = list({run.row.label: run.row for run in runs}.values())
  by_name = run_groups.named(runs)
  fits = {}
  with contextlib.ExitStack() as stack:
    for name, run in by_name.items():
      tracked = stack.enter_context(_tracked(study, *run))
      fits[name] = loop.Run(
        run.row.method,
        _carry(study, *run, teacher),
        run.seed,
        _seed_options(study, *run, tracked),
      )
    options = next(iter(fits.values())).options
    if len(runs) > 1:
      options = _group_options(study, list(by_name), rows, options)
    data = _data(study, rows[0], teacher)
    outcomes = loop.fit_runs(fits, data, options, programs)
  failures = {}
  for name, outcome in outcomes.items():
    run = by_name[name]
    try:
      if isinstance(outcome, loop.NonFiniteLossError):
        raise outcome
      _finish_seed(study, *run, fits[name].carry, outcome, teacher)
    except loop.NonFiniteLossError as error:
      if run.row.trial is None:
        failures[name] = error
      else:
        _note_divergence(study, *run, error)
  if len(runs) == 1 and failures:
    raise next(iter(failures.values()))
  if len(runs) > 1:
    checkpoint.delete(workdir_lib.group_folder(study.workdir, rows[0]))
  if failures:
    lines = [
      f'{name if isinstance(name, str) else f"seed {name}"}: {error}'
      for name, error in failures.items()
    ]
    raise loop.NonFiniteLossError('; '.join(lines))


def _note_divergence(
  study: Study, row: Row, seed: int, error: loop.NonFiniteLossError
) -> None:
  """Says that a trial has lost, and notes it in the work directory."""
  study.console.print(f'{row.label}: diverged: {error}', markup=False)
  if hosts.first():
    path = workdir_lib.divergence_file(study.workdir, row, seed)
    checkpoint.write_json(path, {'message': str(error)})


def _carry(study: Study, row: Row, seed: int, teacher: Teacher | None) -> Carry:
  """Returns what the first phase of a seed receives."""
  carry: Carry = {row.role: models.initial_model(study.plan, row.role, seed)}
  if row.role == 'student' and teacher is not None:
    carry['teacher'] = teacher.model
    if teacher.outputs is not None:
      carry['teacher'] = Model(teacher.model.network, {})
  return carry


def _data(study: Study, row: Row, teacher: Teacher | None) -> Dataset:
  """Returns the data, with stored outputs of the teacher if there are any."""
  dataset = study.plan.dataset
  if row.views is None or teacher is None:
    return dataset
  return teacher_cache.with_column(dataset, teacher.outputs, {row.views.subset})


def _finish_seed(
  study: Study,
  row: Row,
  seed: int,
  carry: Carry,
  fitted: loop.Fitted,
  teacher: Teacher | None,
) -> None:
  """Measures a trained seed and writes its result, unless that exists.

  Raises:
    NonFiniteLossError: a measured loss is NaN or infinite.
  """
  plan = study.plan
  if hosts.of_first(workdir_lib.is_finished, study.workdir, row, seed):
    return
  if fitted.carry[row.role] is carry[row.role]:
    raise UsageError(
      f'row {row.label!r}: the method does not train the {row.role!r}'
    )
  teacher_answers = None if teacher is None else teacher.answers
  measured = measurements.measure(
    plan, row, seed, fitted, teacher_answers, study.mesh
  )
  recording.write_answers(
    plan, study.workdir, row, seed, measured.answers, teacher_answers
  )
  result = {
    'steps': fitted.steps,
    'seconds': round(fitted.seconds, 1),
    'phases': [_cost(cost) for cost in fitted.costs],
    'best_step': fitted.best_step.get(row.role),
    **measured.result,
    **_origin(),
  }
  if hosts.first():
    folder = workdir_lib.seed_folder(study.workdir, row, seed)
    for file, report in fitted.reports.items():
      checkpoint.write_json(folder / file, report)
    path = workdir_lib.result_file(study.workdir, row, seed)
    checkpoint.write_json(path, result)


def _cost(cost: loop.PhaseCost) -> dict[str, Any]:
  """Returns what a phase cost, as JSON, with tenths of seconds."""
  return {
    key: round(value, 1) if isinstance(value, float) else value
    for key, value in cost._asdict().items()
  }


@contextlib.contextmanager
def _tracked(study: Study, row: Row, seed: int) -> Iterator[list[TrackedRun]]:
  """Starts a run in every tracker, and ends it on leaving the context."""
  name = f'{study.workdir.resolve().name}/{row.label}/{seed}'
  with contextlib.ExitStack() as stack:
    tracked = []
    for tracker in study.plan.trackers if hosts.first() else ():
      run = tracker.start(name, row.resolved)
      stack.callback(run.finish)
      tracked.append(run)
    yield tracked


def _seed_options(
  study: Study, row: Row, seed: int, tracked: Sequence[TrackedRun]
) -> loop.FitOptions:
  """Returns the options of one seed: its folder, evaluation and log."""
  plan, mesh = study.plan, study.mesh

  def evaluate(model: Model) -> dict[str, float]:
    return measurements.evaluate_on(plan, model, 'validation', mesh)

  has_validation = 'validation' in plan.dataset.splits
  return study.options._replace(
    directory=str(workdir_lib.seed_folder(study.workdir, row, seed)),
    evaluate=evaluate if has_validation else None,
    log=Log(
      study.workdir if hosts.first() else None,
      name=row.label if len(row.seeds) == 1 else f'{row.label} seed {seed}',
      labels={'row': row.label, 'seed': seed},
      show=study.show,
      tracked=tracked,
    ),
  )


def _group_options(
  study: Study,
  names: Sequence[int | str],
  rows: Sequence[Row],
  of_run: loop.FitOptions,
) -> loop.FitOptions:
  """Returns the options of runs that train together.

  Args:
    study: the study.
    names: the names of the runs.
    rows: their rows.
    of_run: the options of one of the runs.
  """
  row, *others = rows
  title = f'{row.label} seeds {", ".join(map(str, names))}'
  if others:
    sweeps = {row.trial and row.trial.sweep for row in rows}
    title = f'{row.label} and {len(others)} rows like it'
    if sweeps != {None} and len(sweeps) == 1:
      title = f'{sweeps.pop()}: {len(rows)} trials'
  return of_run._replace(
    directory=str(workdir_lib.group_folder(study.workdir, row)),
    log=Log(name=title, show=study.show),
  )


def _origin() -> dict[str, Any]:
  """Returns the versions, the device and the date that a result depends on."""
  device = jax.devices()[0]
  return {
    'versions': versions(),
    'device': f'{device.platform} {device.device_kind} x{jax.device_count()}',
    'date': datetime.date.today().isoformat(),
  }


def versions() -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in PACKAGES}
