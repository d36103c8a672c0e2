"""Pieces: independent parts of a row, each trained by a job of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import os
import pathlib
from typing import NamedTuple

import jax

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Method
from jaxdistill.phases import parts as parts_lib
from jaxdistill.study import models, results, selection
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row
from jaxdistill.training import checkpoint, loop, part_files
from jaxdistill.training.log import Log

ALL = 'all'


class _Job(NamedTuple):
  """One piece of one seed of a row.

  Attributes:
    row: the row.
    seed: the seed.
    number: the position of the piece, from 0.
    name: its name.
    method: the phases up to the one that trains it.
    carry: what the first of them gets.
    folder: where it trains.
  """

  row: Row
  seed: int
  number: int
  name: str
  method: Method
  carry: Carry
  folder: pathlib.Path

  @property
  def label(self) -> str:
    """What the user reads."""
    return (
      f'{self.row.label}, seed {self.seed}, piece {self.number} ({self.name})'
    )


def run_pieces(
  plan: Plan,
  workdir: str | os.PathLike[str],
  piece: int | str,
  *,
  rows: Sequence[str] = (),
  interrupted: Callable[[], bool] = lambda: False,
  model_parallel: int = 1,
) -> list[str]:
  """Trains pieces of rows and stores them in the work directory.

  A later call of `runs.run` joins the pieces and goes on. One piece uses all
  devices. If all pieces are trained, each one has a device for itself, and as
  many of them train at the same time as there are devices.

  Args:
    plan: what to run.
    workdir: the work directory, which must hold the teacher if the plan trains
      one. Jobs that train different pieces may share it.
    piece: the position of the piece, from 0, or 'all'.
    rows: labels of rows; empty: all rows whose method has independent pieces.
    interrupted: see `loop.FitOptions`.
    model_parallel: see `loop.FitOptions`; with 'all' it must be 1.

  Returns:
    A line for each piece.

  Raises:
    UsageError: no row has pieces, there is no such piece, the teacher is not
      trained, or another job is training the piece.
  """
  workdir = pathlib.Path(workdir)
  jobs = list(_jobs(plan, workdir, piece, rows))

  def train(job: _Job, devices: Sequence[jax.Device] | None) -> str:
    options = loop.FitOptions(
      directory=str(job.folder),
      log=Log(job.folder, labels={'piece': job.name}, show=False),
      interrupted=interrupted,
      model_parallel=model_parallel,
      devices=devices,
      **plan.options,
    )
    with workdir_lib.locked(job.folder):
      fitted = loop.fit(
        job.method, job.carry, plan.dataset, seed=job.seed, options=options
      )
    return f'{job.label}: {fitted.steps} steps, {fitted.seconds:.1f} s'

  if piece != ALL:
    return [train(job, None) for job in jobs]
  free = jax.local_devices()

  def train_alone(job: _Job) -> str:
    device = free.pop()
    try:
      with jax.default_device(device):
        return train(job, (device,))
    finally:
      free.append(device)

  with futures.ThreadPoolExecutor(len(free)) as pool:
    return list(pool.map(train_alone, jobs))


def _jobs(
  plan: Plan, workdir: pathlib.Path, piece: int | str, labels: Sequence[str]
) -> Iterator[_Job]:
  """Yields the jobs that train a piece, or all pieces, of every seed."""
  chosen = [
    row
    for row in selection.chosen_rows(plan, labels, ('student',))
    if parts_lib.first_in_parts(row.method) is not None
  ]
  if not chosen:
    raise UsageError(
      'piece: expected a row whose method trains independent pieces, such as '
      f'neighbourhood, got {", ".join(labels or [r.label for r in plan.rows])}'
    )
  teacher = _teacher(plan, workdir)
  for row in chosen:
    workdir_lib.check_row(workdir, row)
    folder = workdir_lib.row_folder(workdir, row)
    checkpoint.write_json(folder / 'row.json', row.resolved)
    for seed in row.seeds:
      carry = {
        'student': models.initial_model(plan, 'student', seed),
        **teacher,
      }
      yield from _jobs_of_seed(plan, workdir, row, seed, carry, piece)


def _jobs_of_seed(
  plan: Plan,
  workdir: pathlib.Path,
  row: Row,
  seed: int,
  carry: Carry,
  piece: int | str,
) -> Iterator[_Job]:
  """Yields the jobs of one seed."""
  order = parts_lib.first_in_parts(row.method)
  assert order is not None
  build = row.method[order]
  assert isinstance(build, parts_lib.InParts)
  silent = loop.FitOptions(log=Log(show=False))
  before = loop.fit(
    row.method[:order], carry, plan.dataset, seed=seed, options=silent
  )
  names = list(build.parts(before.carry))
  numbers: Sequence[int] = range(len(names))
  if piece != ALL:
    last = len(names) - 1
    numbers = [checks.integer('piece', piece, at_least=0, at_most=last)]
  for number in numbers:
    method = parts_lib.part_of(row.method, order, names[number])
    folder = part_files.folder(
      workdir_lib.seed_folder(workdir, row, seed), number
    )
    yield _Job(row, seed, number, names[number], method, carry, folder)


def _teacher(plan: Plan, workdir: pathlib.Path) -> Carry:
  """Returns the teacher of a plan by its role.

  Raises:
    UsageError: it is not trained.
  """
  if plan.teacher is not None:
    return {'teacher': plan.teacher}
  for row in plan.rows:
    if row.role == 'teacher':
      (seed,) = row.seeds
      if not workdir_lib.is_finished(workdir, row, seed):
        raise UsageError(
          f'{workdir}: expected a trained teacher with --piece; train it with '
          f'--row={row.label} first'
        )
      trained = results.trained(plan, row, seed, workdir)
      return {'teacher': trained['last']}
  return {}
