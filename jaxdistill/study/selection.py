"""The rows that the user chose, and which of their runs are finished."""

from collections.abc import Collection, Sequence
import pathlib
import sys

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row

ROLES = ('teacher', 'student')


def chosen_rows(
  plan: Plan, labels: Sequence[str], roles: Collection[str] = ROLES
) -> tuple[Row, ...]:
  """Returns the rows with the given labels, and always the teacher's first.

  Args:
    plan: the plan.
    labels: labels of rows; empty: all rows.
    roles: rows of other roles are left out.

  Raises:
    UsageError: a label does not exist.
  """
  rows = [row for row in plan.rows if row.role in roles]
  for label in labels:
    checks.choice('row', label, [row.label for row in rows])
  return tuple(
    row
    for row in rows
    if row.role == 'teacher' or not labels or row.label in labels
  )


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
  rows = chosen_rows(plan, labels, roles)
  for row in plan.rows:
    workdir_lib.check_row(workdir, row, trains=False)
  runs = [(row, seed) for row in rows for seed in row.seeds]
  finished = [run for run in runs if workdir_lib.is_finished(workdir, *run)]
  missing = ', '.join(
    f'{row.label!r} seed {seed}'
    for row, seed in runs
    if (row, seed) not in finished
  )
  if {row.role for row in rows} - {row.role for row, _ in finished}:
    raise UsageError(
      f'{workdir}: not finished: {missing}; run it with --mode=fit first'
    )
  if missing:
    print(f'not finished: {missing}', file=sys.stderr)
  return finished
