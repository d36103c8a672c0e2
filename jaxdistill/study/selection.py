"""The rows that the user or a sweep chose, and which runs are finished."""

from collections.abc import Collection, Sequence
import math
import pathlib
import sys

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row
from jaxdistill.training.distributed import hosts

ROLES = ('teacher', 'student')


def chosen_rows(
  plan: Plan, labels: Sequence[str], roles: Collection[str] = ROLES
) -> tuple[Row, ...]:
  """Returns the rows with the given labels, and always the teacher's first.

  Args:
    plan: the plan.
    labels: labels of rows; that of a row with a sweep stands for all of its
      trials. Empty: all rows.
    roles: rows of other roles are left out.

  Raises:
    UsageError: a label does not exist.
  """
  rows = [row for row in plan.rows if row.role in roles]
  names = {row.label: _names(row) for row in rows}
  for label in labels:
    checks.choice('row', label, dict.fromkeys(sum(names.values(), ())))
  return tuple(
    row
    for row in rows
    if row.role == 'teacher'
    or not labels
    or not set(labels).isdisjoint(names[row.label])
  )


def _names(row: Row) -> tuple[str, ...]:
  """Returns the labels that stand for a row: that of its sweep, and its own."""
  return (row.label,) if row.trial is None else (row.trial.sweep, row.label)


def with_chosen_trials(plan: Plan, workdir: pathlib.Path) -> Plan:
  """Returns the plan with all seeds for the chosen trial of each sweep.

  A trial is chosen when all trials of its sweep are finished: the one with the
  best validation score after the last epoch. The first wins a tie.

  Args:
    plan: the plan.
    workdir: its work directory.
  """
  qualities: dict[str, dict[str, float]] = {}
  for row in plan.rows:
    if row.trial is not None:
      quality = _quality(plan, row, workdir)
      qualities.setdefault(row.trial.sweep, {})[row.label] = quality
  chosen = set()
  for of_trials in qualities.values():
    if any(map(math.isnan, of_trials.values())):
      continue  # a trial is not finished
    best = max(of_trials, key=of_trials.__getitem__)
    if of_trials[best] > -math.inf:  # not all of them diverged
      chosen.add(best)
  rows = tuple(
    row._replace(seeds=row.trial.seeds, trial=row.trial._replace(chosen=True))
    if row.trial is not None and row.label in chosen
    else row
    for row in plan.rows
  )
  return plan._replace(rows=rows)


def all_lost(plan: Plan, sweep: str, workdir: pathlib.Path) -> bool:
  """Returns whether all trials of a sweep have lost."""
  return all(
    _quality(plan, row, workdir) == -math.inf
    for row in plan.rows
    if row.trial is not None and row.trial.sweep == sweep
  )


def _quality(plan: Plan, row: Row, workdir: pathlib.Path) -> float:
  """Returns how good a trial is: NaN if unfinished, -inf if it has lost.

  A trial has lost if it diverged, or if its score is NaN.
  """
  seed = row.seeds[0]
  if hosts.of_first(workdir_lib.has_diverged, workdir, row, seed):
    return -math.inf
  if not hosts.of_first(workdir_lib.is_finished, workdir, row, seed):
    return math.nan
  result = workdir_lib.read_result(workdir, row, seed)
  score = plan.task.score
  value = float(result['validation']['last'][score.name])
  return -math.inf if math.isnan(value) else score.quality(value)


def finished_runs(
  plan: Plan,
  workdir: pathlib.Path,
  labels: Sequence[str],
  roles: Collection[str] = ROLES,
) -> list[tuple[Row, int]]:
  """Returns (row, seed) of each finished run of the chosen rows.

  Runs that are not finished are listed on stderr.

  Args:
    plan: the plan.
    workdir: its work directory.
    labels: see `chosen_rows`.
    roles: see `chosen_rows`.

  Raises:
    UsageError: no run of one of the roles is finished, a row does not exist, or
      a row belongs to another config.
  """
  plan = with_chosen_trials(plan, workdir)
  rows = chosen_rows(plan, labels, roles)
  for row in plan.rows:
    workdir_lib.check_row(workdir, row, trains=False)
  runs = [(row, seed) for row in rows for seed in row.seeds]
  finished = [run for run in runs if workdir_lib.is_finished(workdir, *run)]
  missing = ', '.join(
    f'{row.label!r} seed {seed}'
    for row, seed in runs
    if (row, seed) not in finished
    and not workdir_lib.has_diverged(workdir, row, seed)
  )
  if {row.role for row in rows} - {row.role for row, _ in finished}:
    raise UsageError(
      f'{workdir}: not finished: {missing}; run it with --mode=fit first'
    )
  if missing:
    print(f'not finished: {missing}', file=sys.stderr)
  return finished
