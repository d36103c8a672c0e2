"""Runs: the rows of a plan are trained in a work directory."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np
import rich.console

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks.weights import files
from jaxdistill.study import (
  config,
  measurements,
  results,
  run_groups,
  seed_runs,
  selection,
  teacher_outputs,
)
from jaxdistill.study import notes as notes_lib
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row
from jaxdistill.study.seed_runs import Study, Teacher
from jaxdistill.training import loop, trackers
from jaxdistill.training.distributed import hosts, sharding


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
  study = Study(
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
  seed_runs.check_together(plan, mesh.size)
  chosen = selection.chosen_rows(plan, rows)
  _check_processes_agree(plan, chosen)
  for tracker in plan.trackers:
    trackers.check(tracker)
  for row in chosen:
    if not hosts.of_first(workdir_lib.all_finished, study.workdir, row):
      sharding.mesh_of_batches([row.resolved['batch_size']], model_parallel)
  with workdir_lib.locked(study.workdir):
    return _run_rows(study, chosen)


def _run_rows(study: Study, rows: Sequence[Row]) -> dict[str, Any]:
  """Trains rows in a locked work directory and writes their results."""
  plan, workdir = study.plan, study.workdir
  for note in notes_lib.notes(plan):
    study.say(note)
  for row in plan.rows:
    workdir_lib.check_row(workdir, row)
  batches = run_groups.batches(plan, rows)
  for batch in batches:
    run_groups.groups(
      plan, workdir, batch
    )  # refuses runs that did not begin together
  if hosts.first():
    config.keep(workdir, plan.config)
  teacher = _teacher_from_file(study)
  programs = _shared_programs(study)
  for batch in batches:
    _train_rows(study, batch, teacher, programs)
    if batch[0].role == 'teacher':
      teacher = _trained_teacher(study, batch[0])
  labels = [row.label for row in rows if row.trial is not None]
  for row in selection.with_chosen_trials(plan, workdir).rows:
    if row.label in labels:
      # The other seeds, if it was chosen.
      _train_rows(study, [row], teacher, programs)
  collected = results.write(plan, workdir)
  for sweep in {row.trial.sweep: None for row in rows if row.trial is not None}:
    if selection.all_lost(plan, sweep, workdir):
      raise loop.NonFiniteLossError(
        f'{sweep}: the loss or the score of every trial became NaN or infinite'
      )
  return collected


def _train_rows(
  study: Study,
  rows: Sequence[Row],
  teacher: Teacher | None,
  programs: Mapping[str, loop.Programs],
) -> None:
  """Trains every seed of a row, or of rows together, that is not finished.

  Args:
    study: the study.
    rows: one row, or several that train together.
    teacher: the teacher.
    programs: see `_shared_programs`.
  """
  groups = run_groups.groups(study.plan, study.workdir, rows)
  labels = {run.row.label for group in groups for run in group}
  row = rows[0]
  shared = programs.get(row.label)
  if shared is None and len(groups) > 1:
    shared = loop.Programs()
  unfinished = [x for x in rows if x.label in labels]
  with workdir_lib.recorded(study.workdir, unfinished):
    if groups and row.views is not None and teacher is not None:
      teacher = teacher._replace(
        outputs=teacher_outputs.column(
          *(study.plan, row, teacher.model, study.workdir),
          say=study.say,
          interrupted=study.options.interrupted,
        )
      )
    for group in groups:
      seed_runs.train(study, group, teacher, shared)
      hosts.meet()


def _shared_programs(study: Study) -> dict[str, loop.Programs]:
  """Returns the programs of each row that is not the only one of its kind."""
  programs: dict[str, loop.Programs] = {}
  # On several devices, an equation may depend on the mesh that surrounds it.
  if study.mesh.size == 1:
    for rows in run_groups.alike(study.plan.rows):
      if len(rows) > 1:
        shared = loop.Programs(row.method for row in rows)
        programs |= {row.label: shared for row in rows}
  return programs


def _teacher_from_file(study: Study) -> Teacher | None:
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


def _trained_teacher(study: Study, row: Row) -> Teacher:
  """Returns the teacher that a finished row trained, and writes its file."""
  plan, workdir, (seed,) = study.plan, study.workdir, row.seeds
  model = results.trained(plan, row, seed, workdir)['last']
  if hosts.first():
    files.save(workdir / 'teacher.safetensors', model, plan.about_data)
  metrics = workdir_lib.read_result(workdir, row, seed)['test']['last']
  study.say(f'teacher: {_score(metrics, plan)} on test')
  return _teacher(study, model)


def _teacher(study: Study, model: Model) -> Teacher:
  lazy = measurements.lazy_answers(study.plan, model, study.mesh)
  return Teacher(model, lazy)


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
  content = (rows, labels, plan.options['log_every'], seed_runs.versions())
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
