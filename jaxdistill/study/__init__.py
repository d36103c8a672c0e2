"""Runs the rows of a plan in a work directory, and tells what came out."""

from collections.abc import Callable, Mapping, Sequence
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import rich.console

from jaxdistill import experiment, recipes
from jaxdistill.data import arrays, streaming
from jaxdistill.networks import files, staged
from jaxdistill.study import exporting, measuring
from jaxdistill.study import workdir as workdirs
from jaxdistill.study.exporting import FORMATS as FORMATS
from jaxdistill.study.tables import table as table
from jaxdistill.training import checkpoint, hosts, loop, sharding
from jaxdistill.training.log import Log
from jaxdistill.types import Carry, Model, UsageError

PACKAGES = (
  'jaxdistill',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
)


def run(
  plan: experiment.Plan,
  workdir: str | os.PathLike,
  *,
  rows: Sequence[str] = (),
  show: bool = True,
  interrupted: Callable[[], bool] = lambda: False,
  model_parallel: int = 1,
) -> dict[str, Any]:
  """Trains whatever the work directory lacks, on all devices.

  Of several processes all call this, and the first one writes.

  Args:
    plan: what to run.
    workdir: holds everything; a run goes on where it stopped. Several processes
      share it.
    rows: labels of the rows to train, the teacher before them; none: all.
    show: whether to show progress and results.
    interrupted: see `loop.Options`.
    model_parallel: see `loop.Options`.

  Returns:
    The results of all seeds that are finished, which also stand in
    results.json.

  Raises:
    UsageError: a row does not exist; the directory belongs to another config,
      or to a process that is at work in it, or cannot be written; a batch does
      not spread over the devices; the processes do not run the same.
  """
  workdir = pathlib.Path(workdir)
  show = show and hosts.first()
  console = rich.console.Console(stderr=True, quiet=not show)
  mesh = sharding.make_mesh(model_parallel)
  options = loop.Options(
    score=plan.task.score,
    interrupted=interrupted,
    model_parallel=model_parallel,
    **plan.options,
  )
  chosen = _chosen(plan, rows)
  _check_same(plan, chosen)
  for row in chosen:
    if not hosts.of_first(workdirs.all_finished, workdir, row):
      sharding.check_batch_size(row.resolved['batch_size'], mesh)
  with workdirs.locked(workdir):
    for about in (_about_statistics(plan), _about_size(plan)):
      if about:
        console.print(about)
    for row in plan.rows:
      workdirs.check_row(workdir, row)
    if hosts.first():
      workdirs.keep_config(workdir, plan.config)
    teacher = plan.teacher
    if teacher is not None:
      metrics = measuring.evaluate_on(plan, teacher, 'test', mesh)
      console.print(f'teacher from a file: {_percent(metrics, plan)} on test')
    taught = measuring.asked_once(plan, teacher, mesh)
    for row in chosen:
      if hosts.first():
        checkpoint.write_json(
          workdirs.row_folder(workdir, row) / 'row.json', row.resolved
        )
      for seed in row.seeds:
        if not hosts.of_first(workdirs.is_finished, workdir, row, seed):
          _run_seed(plan, row, seed, workdir, teacher, taught, show, options)
          hosts.meet()
      if row.role == 'teacher':
        teacher = trained(plan, row, row.seeds[0], workdir)['last']
        taught = measuring.asked_once(plan, teacher, mesh)
        if hosts.first():
          files.save(workdir / 'teacher.safetensors', teacher)
        metrics = workdirs.read_result(workdir, row, row.seeds[0])['test'][
          'last'
        ]
        console.print(f'teacher: {_percent(metrics, plan)} on test')
    results = collect(plan, workdir)
    if hosts.first():
      checkpoint.write_json(workdir / 'results.json', results)
  return results


def trained(
  plan: experiment.Plan, row: experiment.Row, seed: int, workdir: pathlib.Path
) -> dict[str, Model]:
  """The models a finished run made: 'last', and 'best' on validation.

  Raises:
    UsageError: the run is not finished.
  """
  return measuring.last_and_best(finished(plan, row, seed, workdir), row.role)


def finished(
  plan: experiment.Plan, row: experiment.Row, seed: int, workdir: pathlib.Path
) -> loop.Fitted:
  """What a finished run ended with, other roles of its carry included.

  Raises:
    UsageError: the run is not finished.
  """
  if not hosts.of_first(workdirs.is_finished, workdir, row, seed):
    raise UsageError(
      f'{workdir}: row {row.label!r}, seed {seed} is not finished; run it with '
      '--mode=fit first'
    )
  # Every phase is done, so this reads files and trains nothing.
  carry = {row.role: experiment.initial_model(plan, row.role, seed)}
  options = loop.Options(
    directory=str(workdirs.row_folder(workdir, row) / str(seed))
  )
  return loop.fit(row.method, carry, plan.dataset, seed=seed, options=options)


def evaluate(
  plan: experiment.Plan,
  workdir: str | os.PathLike,
  rows: Sequence[str] = (),
) -> dict[str, Any]:
  """Evaluates finished runs again, from their files.

  Args:
    plan: what was run.
    workdir: where.
    rows: labels of the rows, the teacher with them; none: all.

  Returns:
    The results of all that is finished.

  Raises:
    UsageError: no student is finished, or its teacher is not; a row does not
      exist or belongs to another config.
  """
  workdir = pathlib.Path(workdir)
  mesh = sharding.make_mesh()
  taught = measuring.asked_once(plan, plan.teacher, mesh)
  for row, seed in _all_finished(plan, workdir, rows):
    fitted = finished(plan, row, seed, workdir)
    if row.role == 'teacher':
      taught = measuring.asked_once(plan, fitted.carry['teacher'], mesh)
    old = workdirs.read_result(workdir, row, seed)
    result = {**old, **measuring.measure(plan, row, fitted, taught, mesh)}
    checkpoint.write_json(workdirs.result_file(workdir, row, seed), result)
  results = collect(plan, workdir)
  checkpoint.write_json(workdir / 'results.json', results)
  return results


def export(
  plan: experiment.Plan,
  workdir: str | os.PathLike,
  formats: Sequence[str] = ('safetensors',),
  rows: Sequence[str] = (),
) -> list[pathlib.Path]:
  """Writes each finished student alone, last and best.

  Each file is read again, and its answers to test images compared with the
  student's.

  Args:
    plan: what was run.
    workdir: where.
    formats: 'safetensors': the variables, with the network's spec and how to
      prepare images in the metadata; 'stablehlo': see `jaxdistill.export`, a
      program from raw uint8 images to logits, for any batch size on CPU, GPU
      and TPU, with a JSON file beside it that says so.
    rows: labels of the rows; none: all.

  Raises:
    UsageError: no student is finished, a row does not exist or belongs to
      another config.
    RuntimeError: a file answers otherwise than the student.
  """
  workdir = pathlib.Path(workdir)
  paths = []
  for row, seed in _all_finished(plan, workdir, rows, ('student',)):
    for when, model in trained(plan, row, seed, workdir).items():
      name = f'{experiment.slug(row.label)}-{seed}-{when}'
      for kind in formats:
        path = workdir / 'export' / f'{name}.{kind}'
        exporting.write(plan, model, path)
        paths.append(path)
  return paths


def collect(plan: experiment.Plan, workdir: pathlib.Path) -> dict[str, Any]:
  """The results of all that is finished, with what they were made by."""
  rows = []
  for row in plan.rows:
    seeds = {
      str(seed): workdirs.read_result(workdir, row, seed)
      for seed in row.seeds
      if workdirs.is_finished(workdir, row, seed)
    }
    if seeds:
      about = {'label': row.label, 'config': row.resolved}
      rows.append({**about, 'seeds': seeds})
  return {'rows': rows, 'score': plan.task.score}


def _chosen(
  plan: experiment.Plan,
  labels: Sequence[str],
  roles: Sequence[str] = ('teacher', 'student'),
) -> tuple[experiment.Row, ...]:
  """The rows of those labels, or all, behind the teacher."""
  rows = [row for row in plan.rows if row.role in roles]
  valid = [row.label for row in rows]
  for label in labels:
    if label not in valid:
      raise staged.unknown('row', label, valid)
  return tuple(
    row
    for row in rows
    if row.role == 'teacher' or not labels or row.label in labels
  )


def _all_finished(
  plan: experiment.Plan,
  workdir: pathlib.Path,
  labels: Sequence[str],
  roles: Sequence[str] = ('teacher', 'student'),
) -> list[tuple[experiment.Row, int]]:
  """The seeds of the chosen rows that are finished, of each role some."""
  chosen = _chosen(plan, labels, roles)
  for row in plan.rows:
    workdirs.check_row(workdir, row, trains=False)
  found: list[tuple[experiment.Row, int]] = []
  missing: list[tuple[experiment.Row, int]] = []
  for row in chosen:
    for seed in row.seeds:
      done = workdirs.is_finished(workdir, row, seed)
      (found if done else missing).append((row, seed))
  about = ', '.join(f'{row.label!r} seed {seed}' for row, seed in missing)
  if {row.role for row in chosen} - {row.role for row, _ in found}:
    raise UsageError(
      f'{workdir}: not finished: {about}; run it with --mode=fit first'
    )
  if missing:
    print(f'not finished: {about}', file=sys.stderr)
  return found


def _run_seed(
  plan: experiment.Plan,
  row: experiment.Row,
  seed: int,
  workdir: pathlib.Path,
  teacher: Model | None,
  taught: Callable[[], Any] | None,
  show: bool,
  options: loop.Options,
) -> None:
  """Trains one seed of a row, or goes on with it, and writes its result."""
  mesh = sharding.make_mesh(options.model_parallel)
  carry: Carry = {row.role: experiment.initial_model(plan, row.role, seed)}
  if row.role == 'student' and teacher is not None:
    carry['teacher'] = teacher
  folder = workdirs.row_folder(workdir, row) / str(seed)
  options = options._replace(
    directory=str(folder),
    evaluate=(
      (lambda model: measuring.evaluate_on(plan, model, 'validation', mesh))
      if 'validation' in plan.dataset.splits
      else None
    ),
    log=Log(
      workdir if hosts.first() else None,
      name=row.label if len(row.seeds) == 1 else f'{row.label} seed {seed}',
      labels={'row': row.label, 'seed': seed},
      show=show,
    ),
  )
  fitted = loop.fit(row.method, carry, plan.dataset, seed=seed, options=options)
  if fitted.carry[row.role] is carry[row.role]:
    raise UsageError(f'row {row.label!r}: the method trains no {row.role!r}')
  result = {
    'steps': fitted.steps,
    'seconds': round(fitted.seconds, 1),
    'best_step': fitted.best_step.get(row.role),
    **measuring.measure(plan, row, fitted, taught, mesh),
    **_made_by(),
  }
  if hosts.first():
    for file, report in fitted.reports.items():
      checkpoint.write_json(folder / file, report)
    checkpoint.write_json(workdirs.result_file(workdir, row, seed), result)


def _made_by() -> dict[str, Any]:
  """What a result was made by."""
  device = jax.devices()[0]
  return {
    'versions': _versions(),
    'device': f'{device.platform} {device.device_kind} x{jax.device_count()}',
    'date': datetime.date.today().isoformat(),
  }


def _versions() -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in PACKAGES}


def _about_statistics(plan: experiment.Plan) -> str:
  """What images are standardised by, where that is not exact; or ''."""
  train = plan.dataset.splits['train']
  given = plan.rows[0].resolved['data']
  sampled = [name for name in ('mean', 'std') if given.get(name) is None]
  if not streaming.is_lazy(train) or len(train['label']) <= arrays.SAMPLE:
    return ''
  if not sampled:
    return ''
  return (
    f'data: the {" and ".join(sampled)} are those of {arrays.SAMPLE:,} of '
    f'{len(train["label"]):,} images; data.mean and data.std give others'
  )


def _about_size(plan: experiment.Plan) -> str:
  """That networks see more pixels than the images have; or ''."""
  there = plan.dataset.splits['train']['image'].shape[1:3]
  seen = recipes.example(plan.dataset, plan.preprocess, 1)['image'].shape[1:3]
  if all(s <= t for s, t in zip(seen, there)):
    return ''
  sizes = (f'{height} x {width}' for height, width in (there, seen))
  return 'augment: the images, {}, are enlarged to {}'.format(*sizes)


def _check_same(
  plan: experiment.Plan, chosen: Sequence[experiment.Row]
) -> None:
  """Raises UsageError where the processes do not run the same."""
  rows = [
    (row.label, row.seeds, workdirs.without_places(row.resolved))
    for row in plan.rows
  ]
  labels = [row.label for row in chosen]
  about = (rows, labels, plan.options['log_every'], _versions())
  digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()
  found = hosts.gather(int.from_bytes(digest[:8], 'big', signed=True))[:, 0]
  differing = np.flatnonzero(found != found[0])
  if len(differing):
    raise UsageError(
      f'process {", ".join(map(str, differing))} runs another config, other '
      'rows, other data or other versions of packages than process 0'
    )


def _percent(metrics: Mapping[str, float], plan: experiment.Plan) -> str:
  score = plan.task.score
  return f'{score} {100 * metrics[score]:.2f}%'
