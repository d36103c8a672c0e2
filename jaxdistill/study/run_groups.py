"""Which runs of a plan train together in one program."""

from collections.abc import Iterable, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row
from jaxdistill.training import group_files
from jaxdistill.training.distributed import hosts


class Run(NamedTuple):
  """One seed of a row."""

  row: Row
  seed: int


def batches(plan: Plan, rows: Iterable[Row]) -> list[list[Row]]:
  """Returns the rows in batches that train together.

  If the seeds train together, so do the trials of a sweep that differ only in
  numbers which are not whole. All other rows are alone.

  Args:
    plan: what to run.
    rows: the rows, of which no trial has been chosen yet.
  """
  together: dict[str, list[Row]] = {}
  for row in rows:
    key = row.label
    if plan.together and row.trial is not None and row.views is None:
      text = json.dumps(_without_floats(row.resolved), sort_keys=True)
      key = f'{row.trial.sweep} {text}'
    together.setdefault(key, []).append(row)
  return list(together.values())


def _without_floats(resolved: Any) -> Any:
  """Returns JSON without the values of floats."""
  if isinstance(resolved, dict):
    return {key: _without_floats(value) for key, value in resolved.items()}
  if isinstance(resolved, list):
    return list(map(_without_floats, resolved))
  return 0.0 if isinstance(resolved, float) else resolved


def groups(
  plan: Plan, workdir: pathlib.Path, rows: Sequence[Row]
) -> list[list[Run]]:
  """Returns the runs that are to be trained; a group trains in one program.

  Args:
    plan: what to run.
    workdir: the work directory.
    rows: one row, or several whose trials train together.

  Raises:
    UsageError: other trials began together.
  """
  runs = [Run(row, seed) for row in rows for seed in row.seeds]
  unfinished = [run for run in runs if not _has_ended(workdir, run)]
  if not plan.together:
    return [[run] for run in unfinished]
  by_name = {name(run): run for run in runs}
  begun = []
  for row in _siblings(plan, rows):
    folder = workdir_lib.group_folder(workdir, row)
    names = [name for name in group_files.names(folder) if name in by_name]
    if names:
      group_files.check(folder, names)
      begun.append([by_name[name] for name in names])
  members = [run for group in begun for run in group]
  rest = [run for run in unfinished if run not in members]
  return [*begun, rest] if rest else begun


def _siblings(plan: Plan, rows: Sequence[Row]) -> Sequence[Row]:
  """Returns the rows with which some rows may have begun together."""
  trial = rows[0].trial
  if trial is None or trial.chosen:
    return rows
  return [
    row for row in plan.rows if row.trial and row.trial.sweep == trial.sweep
  ]


def _has_ended(workdir: pathlib.Path, run: Run) -> bool:
  """Returns whether a run is finished, or a trial that has lost."""
  where = workdir, *run
  return hosts.of_first(workdir_lib.is_finished, *where) or (
    run.row.trial is not None
    and hosts.of_first(workdir_lib.has_diverged, *where)
  )


def name(run: Run) -> int | str:
  """Returns the name of a run among those that train together."""
  trial = run.row.trial
  return run.seed if trial is None or trial.chosen else run.row.label
