"""Runs: the rows of a plan are trained in a work directory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Model
from jaxdistill.networks.weights import files
from jaxdistill.study import (
  config,
  measurements,
  models,
  recording,
  results,
  selection,
)
from jaxdistill.study import notes as notes_lib
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row
from jaxdistill.training import checkpoint, loop, trackers
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


class _Study(NamedTuple):
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


class _Teacher(NamedTuple):
  """A trained teacher, and what `measurements.lazy_answers` returns."""

  model: Model
  answers: Callable[[], measurements.Answers] | None


def run(
  plan: Plan,
  workdir: str | os.PathLike[str],
  *,
  rows: Sequence[str] = (),
  show: bool = True,
  interrupted: Callable[[], bool] = lambda: False,
  model_parallel: int = 1,
) -> dict[str, Any]:
  """Trains every run that the work directory does not hold yet.

  All devices take part. If there are several processes, all of them must call
  this function; only the first one writes files.

  Args:
    plan: what to run.
    workdir: the work directory. Runs resume where they stopped. Several
      processes must share it.
    rows: labels of the rows to train, after the teacher; empty: all rows.
    show: whether to show progress and the teacher's accuracy.
    interrupted: see `loop.FitOptions`.
    model_parallel: see `loop.FitOptions`.

  Returns:
    The results of all finished runs, which are also in results.json.

  Raises:
    UsageError: a row does not exist; the directory belongs to another config,
      is being used by another run or cannot be written; a batch cannot be
      spread over the devices; the processes do not run the same config.
  """
  show = show and hosts.first()
  mesh = sharding.make_mesh(model_parallel)
  plan = measurements.with_teacher(plan, mesh)
  study = _Study(
    plan=plan,
    workdir=pathlib.Path(workdir),
    mesh=mesh,
    options=loop.FitOptions(
      score=plan.task.score,
      interrupted=interrupted,
      model_parallel=model_parallel,
      **plan.options,
    ),
    show=show,
    console=rich.console.Console(stderr=True, quiet=not show),
  )
  chosen = selection.chosen_rows(plan, rows)
  _check_processes_agree(plan, chosen)
  for tracker in plan.trackers:
    trackers.check(tracker)
  for row in chosen:
    if not hosts.of_first(workdir_lib.all_finished, study.workdir, row):
      sharding.check_batch_size(row.resolved['batch_size'], study.mesh)
  with workdir_lib.locked(study.workdir):
    return _run_rows(study, chosen)


def _run_rows(study: _Study, rows: Sequence[Row]) -> dict[str, Any]:
  """Trains rows in a locked work directory and writes their results."""
  plan, workdir = study.plan, study.workdir
  for note in notes_lib.notes(plan):
    study.say(note)
  for row in plan.rows:
    workdir_lib.check_row(workdir, row)
  if hosts.first():
    config.keep(workdir, plan.config)
  teacher = _teacher_from_file(study)
  for row in rows:
    _run_row(study, row, teacher)
    if row.role == 'teacher':
      teacher = _trained_teacher(study, row)
  labels = [row.label for row in rows if row.trial is not None]
  for row in selection.with_chosen_trials(plan, workdir).rows:
    if row.label in labels:
      _run_row(study, row, teacher)  # the other seeds, if it was chosen
  collected = results.write(plan, workdir)
  for sweep in {row.trial.sweep: None for row in rows if row.trial is not None}:
    trials = [
      row for row in plan.rows if row.trial and row.trial.sweep == sweep
    ]
    if all(
      hosts.of_first(workdir_lib.has_diverged, workdir, row, row.seeds[0])
      for row in trials
    ):
      raise loop.NonFiniteLossError(
        f'{sweep}: the loss of every trial became NaN or infinite'
      )
  return collected


def _run_row(study: _Study, row: Row, teacher: _Teacher | None) -> None:
  """Trains every seed of a row that is not finished."""
  if hosts.first():
    folder = workdir_lib.row_folder(study.workdir, row)
    checkpoint.write_json(folder / 'row.json', row.resolved)
  for seed in row.seeds:
    run = (study.workdir, row, seed)
    if hosts.of_first(workdir_lib.is_finished, *run):
      continue
    if row.trial is None:
      _run_seed(study, row, seed, teacher)
    elif not hosts.of_first(workdir_lib.has_diverged, *run):
      _run_trial(study, row, seed, teacher)
    hosts.meet()


def _run_trial(
  study: _Study, row: Row, seed: int, teacher: _Teacher | None
) -> None:
  """Trains one seed of a trial, which loses if its loss becomes NaN."""
  try:
    _run_seed(study, row, seed, teacher)
  except loop.NonFiniteLossError as error:
    study.console.print(f'{row.label}: diverged: {error}', markup=False)
    if hosts.first():
      path = workdir_lib.divergence_file(study.workdir, row, seed)
      checkpoint.write_json(path, {'message': str(error)})


def _teacher_from_file(study: _Study) -> _Teacher | None:
  """Returns the plan's teacher if a file held it, and prints its accuracy."""
  plan, model = study.plan, study.plan.teacher
  if model is None:
    return None
  if plan.task.reads_teacher:
    return _teacher(study, model)
  if plan.foreign_teacher:
    study.say(
      'teacher from a file: neither its accuracy nor the agreement with it is '
      f'measured, because {plan.foreign_teacher}'
    )
    return _teacher(study, model)
  metrics = measurements.evaluate_on(plan, model, 'test', study.mesh)
  study.say(f'teacher from a file: {_score(metrics, plan)} on test')
  return _teacher(study, model)


def _trained_teacher(study: _Study, row: Row) -> _Teacher:
  """Returns the teacher that a finished row trained, and writes its file."""
  plan, workdir, (seed,) = study.plan, study.workdir, row.seeds
  model = results.trained(plan, row, seed, workdir)['last']
  if hosts.first():
    files.save(workdir / 'teacher.safetensors', model, plan.about_data)
  metrics = workdir_lib.read_result(workdir, row, seed)['test']['last']
  study.say(f'teacher: {_score(metrics, plan)} on test')
  return _teacher(study, model)


def _teacher(study: _Study, model: Model) -> _Teacher:
  lazy = measurements.lazy_answers(study.plan, model, study.mesh)
  return _Teacher(model, lazy)


def _run_seed(
  study: _Study, row: Row, seed: int, teacher: _Teacher | None
) -> None:
  """Trains one seed of a row, or resumes it, and writes its result."""
  plan = study.plan
  carry: Carry = {row.role: models.initial_model(plan, row.role, seed)}
  if row.role == 'student' and teacher is not None:
    carry['teacher'] = teacher.model
  with _tracked(study, row, seed) as tracked:
    fitted = loop.fit(
      row.method,
      carry,
      plan.dataset,
      seed=seed,
      options=_seed_options(study, row, seed, tracked),
    )
  if fitted.carry[row.role] is carry[row.role]:
    raise UsageError(
      f'row {row.label!r}: the method does not train the {row.role!r}'
    )
  teacher_answers = None if teacher is None else teacher.answers
  measured = measurements.measure(
    plan, row, seed, fitted, teacher_answers, study.mesh
  )
  recording.answers(
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
def _tracked(study: _Study, row: Row, seed: int) -> Iterator[list[TrackedRun]]:
  """Starts the run in every tracker, and ends it in the end."""
  name = f'{study.workdir.resolve().name}/{row.label}/{seed}'
  with contextlib.ExitStack() as stack:
    tracked = []
    for tracker in study.plan.trackers if hosts.first() else ():
      run = tracker.start(name, row.resolved)
      stack.callback(run.finish)
      tracked.append(run)
    yield tracked


def _seed_options(
  study: _Study, row: Row, seed: int, tracked: Sequence[TrackedRun]
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


def _origin() -> dict[str, Any]:
  """Returns the versions, the device and the date that a result depends on."""
  device = jax.devices()[0]
  return {
    'versions': _versions(),
    'device': f'{device.platform} {device.device_kind} x{jax.device_count()}',
    'date': datetime.date.today().isoformat(),
  }


def _versions() -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in PACKAGES}


def _check_processes_agree(plan: Plan, chosen: Sequence[Row]) -> None:
  """Checks that all processes run the same rows of the same config.

  Raises:
    UsageError: a process differs from the first one.
  """
  rows = [
    (row.label, row.seeds, workdir_lib.without_places(row.resolved))
    for row in plan.rows
  ]
  labels = [row.label for row in chosen]
  content = (rows, labels, plan.options['log_every'], _versions())
  text = json.dumps(content, sort_keys=True)
  digest = hashlib.sha256(text.encode()).digest()[:8]
  digests = hosts.gather(int.from_bytes(digest, 'big', signed=True))[:, 0]
  differing = np.flatnonzero(digests != digests[0])
  if len(differing):
    raise UsageError(
      f'process {", ".join(map(str, differing))} runs another config, other '
      'rows, other data or other versions of packages than process 0'
    )


def _score(metrics: Mapping[str, float], plan: Plan) -> str:
  """Returns the score with its name: 'top1 97.82%'."""
  score = plan.task.score
  value = score.shown(metrics[score.name])
  return f'{score.name} {value:.{score.digits}f}{score.unit}'
