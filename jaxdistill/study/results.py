"""Results: finished runs read back from a work directory."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Model
from jaxdistill.study import (
  measurements,
  models,
  recording,
  report,
  selection,
)
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.page import document
from jaxdistill.study.plans import Plan, Row
from jaxdistill.tasks import probing
from jaxdistill.training import checkpoint, loop
from jaxdistill.training.distributed import hosts, sharding


def trained(
  plan: Plan, row: Row, seed: int, workdir: str | os.PathLike[str]
) -> dict[str, Model]:
  """Returns the models of a finished run.

  Args:
    plan: what was run.
    row: a row of the plan.
    seed: one of its seeds.
    workdir: the work directory.

  Returns:
    'last', and 'best' if one was chosen by the validation split.

  Raises:
    UsageError: the run is not finished.
  """
  return measurements.last_and_best(
    finished(plan, row, seed, workdir), row.role
  )


def finished(
  plan: Plan, row: Row, seed: int, workdir: str | os.PathLike[str]
) -> loop.Fitted:
  """Returns what a finished run ended with, all roles of its carry included.

  Args:
    plan: what was run.
    row: a row of the plan.
    seed: one of its seeds.
    workdir: the work directory.

  Raises:
    UsageError: the run is not finished.
  """
  workdir = pathlib.Path(workdir)
  if not hosts.of_first(workdir_lib.is_finished, workdir, row, seed):
    raise UsageError(
      f'{workdir}: row {row.label!r}, seed {seed} is not finished; run it with '
      '--mode=fit first'
    )
  # Every phase is finished, so this reads files and trains nothing.
  carry: Carry = {row.role: models.initial_model(plan, row.role, seed)}
  folder = workdir_lib.seed_folder(workdir, row, seed)
  options = loop.FitOptions(directory=str(folder))
  return loop.fit(row.method, carry, plan.dataset, seed=seed, options=options)


def evaluate(
  plan: Plan, workdir: str | os.PathLike[str], rows: Sequence[str] = ()
) -> dict[str, Any]:
  """Evaluates finished runs again, from their files.

  Args:
    plan: what was run.
    workdir: the work directory.
    rows: labels of rows; the teacher's is always evaluated. Empty: all rows.

  Returns:
    The results of all finished runs.

  Raises:
    UsageError: no student is finished, or the teacher is not; a row does not
      exist or belongs to another config.
  """
  workdir = pathlib.Path(workdir)
  mesh = sharding.make_mesh()
  plan = measurements.with_teacher(plan, mesh)
  lazy = measurements.lazy_answers
  teacher_answers = lazy(plan, plan.teacher, mesh)
  for row, seed in selection.finished_runs(plan, workdir, rows):
    fitted = finished(plan, row, seed, workdir)
    if row.role == 'teacher':
      teacher_answers = lazy(plan, fitted.carry['teacher'], mesh)
    old_result = workdir_lib.read_result(workdir, row, seed)
    measured = measurements.measure(
      plan, row, seed, fitted, teacher_answers, mesh
    )
    recording.write_answers(
      plan, workdir, row, seed, measured.answers, teacher_answers
    )
    checkpoint.write_json(
      workdir_lib.result_file(workdir, row, seed),
      {**old_result, **measured.result},
    )
  return write(plan, workdir)


def write(plan: Plan, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes results.json and report.html, and returns the results.

  Args:
    plan: what was run.
    workdir: the work directory.
  """
  results = collect(plan, workdir)
  if hosts.first():
    checkpoint.write_json(workdir / 'results.json', results)
    recording.write_images(plan, workdir, results)
    document.write_report(workdir)
  return results


def collect(plan: Plan, workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the results of all finished runs, with the keys of their rows.

  Args:
    plan: what was run.
    workdir: the work directory.
  """
  plan, rows = selection.with_chosen_trials(plan, workdir), []
  for row in plan.rows:
    seeds = {
      str(seed): workdir_lib.read_result(workdir, row, seed)
      for seed in row.seeds
      if workdir_lib.is_finished(workdir, row, seed)
    }
    if seeds:
      result = {'label': row.label, 'config': row.resolved, 'seeds': seeds}
      rows.append({**result, **_trial(row)})
  diverged = [
    {
      'label': row.label,
      'seed': seed,
      'message': workdir_lib.read_divergence(workdir, row, seed),
    }
    for row in plan.rows
    for seed in row.seeds
    if workdir_lib.has_diverged(workdir, row, seed)
  ]
  return {
    'rows': rows,
    **report.about_score(plan.task.score),
    'label_names': list(plan.class_names or plan.dataset.label_names),
    **({'probes': [*probing.NAMES]} if measurements.is_probed(plan) else {}),
    **({'reads_teacher': True} if plan.task.reads_teacher else {}),
    **({'diverged': diverged} if diverged else {}),
  }


def _trial(row: Row) -> dict[str, Any]:
  """Returns what results say of a trial; nothing for a row without a sweep."""
  if row.trial is None:
    return {}
  trial = row.trial._asdict()
  return {'trial': {key: trial[key] for key in ('sweep', 'values', 'chosen')}}
