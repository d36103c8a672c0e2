"""Which runs of a plan train together, and which rows share programs."""

from collections.abc import Iterable, Mapping, Sequence
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


def alike(rows: Iterable[Row]) -> list[list[Row]]:
  """Returns groups of rows that differ only in floating-point numbers."""
  groups: dict[str, list[Row]] = {}
  for row in rows:
    text = json.dumps(_without_floats(row.resolved), sort_keys=True)
    groups.setdefault(f'{row.role} {text}', []).append(row)
  return list(groups.values())


def batches(plan: Plan, rows: Iterable[Row]) -> list[list[Row]]:
  """Returns the rows in batches that train together.

  If the seeds train together, so do rows that are alike. All other rows, and
  those that read stored outputs of the teacher, are alone.

  Args:
    plan: what to run.
    rows: the rows, of which no trial has been chosen yet.
  """
  if not plan.together:
    return [[row] for row in rows]
  return [
    batch
    for group in alike(rows)
    for batch in (
      [[row] for row in group] if any(row.views for row in group) else [group]
    )
  ]


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
    rows: one row, or several that train together.

  Raises:
    UsageError: other runs began together.
  """
  runs = [Run(row, seed) for row in rows for seed in row.seeds]
  unfinished = [run for run in runs if not _has_ended(workdir, run)]
  if not plan.together:
    return [[run] for run in unfinished]
  begun = []
  (siblings,) = (x for x in alike(plan.rows) if rows[0].label in _labels(x))
  for row in siblings:
    folder = workdir_lib.group_folder(workdir, row)
    of_row = [run for run in runs if run.row.label == row.label]
    known = dict(named(of_row))
    known |= {_title(run): run for run in runs}
    found = {x: known[x] for x in group_files.names(folder) if x in known}
    if found:
      group_files.check(folder, list(found))
      begun.append(list(found.values()))
  members = [run for group in begun for run in group]
  rest = [run for run in unfinished if run not in members]
  return [*begun, rest] if rest else begun


def _has_ended(workdir: pathlib.Path, run: Run) -> bool:
  """Returns whether a run is finished, or a trial that has lost."""
  where = workdir, *run
  return hosts.of_first(workdir_lib.is_finished, *where) or (
    run.row.trial is not None
    and hosts.of_first(workdir_lib.has_diverged, *where)
  )


def named(runs: Sequence[Run]) -> Mapping[int | str, Run]:
  """Returns runs that train together by their names.

  The name is the seed if all of them belong to one row.
  """
  labels = {run.row.label for run in runs}
  return {
    run.seed if len(labels) == 1 and not _is_trial(run) else _title(run): run
    for run in runs
  }


def _labels(rows: Iterable[Row]) -> list[str]:
  return [row.label for row in rows]


def _title(run: Run) -> str:
  """Returns the name of a run among those of several rows."""
  label = run.row.label
  return label if _is_trial(run) else f'{label}, seed {run.seed}'


def _is_trial(run: Run) -> bool:
  """Returns whether a run is a trial that has not been chosen."""
  return run.row.trial is not None and not run.row.trial.chosen
