"""Runs the rows of a plan in a work directory, and tells what came out."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from jaxdistill import evaluation, experiment
from jaxdistill.networks import files
from jaxdistill.training import checkpoint, loop
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
# Say where something is, not what: a checksum stands beside them.
PLACES = ('teacher.checkpoint',)


def run(
  plan: experiment.Plan,
  workdir: str | os.PathLike,
  *,
  show: bool = True,
  interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
  """Trains whatever the work directory lacks.

  Args:
    plan: what to run.
    workdir: holds everything; a run goes on where it stopped.
    show: whether to show progress and results.
    interrupted: asked at each step whether to stop.

  Returns:
    The results, which also stand in results.json.

  Raises:
    UsageError: the directory belongs to another config, or to a process that
      is at work in it, or cannot be written.
  """
  workdir = pathlib.Path(workdir)
  console = rich.console.Console(stderr=True, quiet=not show)
  with locked(workdir):
    for row in plan.rows:
      _check_row(workdir, row)
    teacher = plan.teacher
    if teacher is not None:
      metrics = _evaluate(plan, teacher, 'test')
      console.print(f'teacher from a file: {_percent(metrics, plan)} on test')
    for row in plan.rows:
      checkpoint.write_json(_folder(workdir, row) / 'row.json', row.resolved)
      for seed in row.seeds:
        if not _finished(workdir, row, seed):
          _run_seed(plan, row, seed, workdir, teacher, show, interrupted)
      if row.role == 'teacher':
        teacher = trained(plan, row, row.seeds[0], workdir)['last']
        files.save(workdir / 'teacher.safetensors', teacher)
        metrics = read_result(workdir, row, row.seeds[0])['test']['last']
        console.print(f'teacher: {_percent(metrics, plan)} on test')
    results = collect(plan, workdir)
    checkpoint.write_json(workdir / 'results.json', results)
  return results


def trained(
  plan: experiment.Plan, row: experiment.Row, seed: int, workdir: pathlib.Path
) -> dict[str, Model]:
  """The models a finished run made: 'last', and 'best' on validation.

  Raises:
    UsageError: the run is not finished.
  """
  if not _finished(workdir, row, seed):
    raise UsageError(
      f'{workdir}: row {row.label!r}, seed {seed} is not finished; run it with '
      '--mode=fit first'
    )
  # Every phase is done, so this reads files and trains nothing.
  carry = {row.role: experiment.initial_model(plan, row.role, seed)}
  options = loop.Options(directory=str(_folder(workdir, row) / str(seed)))
  fitted = loop.fit(row.method, carry, plan.dataset, seed=seed, options=options)
  return _models(fitted, row.role)


def evaluate(
  plan: experiment.Plan, workdir: str | os.PathLike
) -> dict[str, Any]:
  """Evaluates finished runs again, from their files; returns the results."""
  workdir = pathlib.Path(workdir)
  teacher = plan.teacher
  for row in plan.rows:
    _check_row(workdir, row)
  for row in plan.rows:
    for seed in row.seeds:
      models = trained(plan, row, seed, workdir)
      teacher = models['last'] if row.role == 'teacher' else teacher
      old = read_result(workdir, row, seed)
      result = {**old, **_measure(plan, row, models, teacher)}
      checkpoint.write_json(_result_file(workdir, row, seed), result)
  results = collect(plan, workdir)
  checkpoint.write_json(workdir / 'results.json', results)
  return results


def export(
  plan: experiment.Plan, workdir: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes each finished student alone, last and best, as safetensors."""
  workdir = pathlib.Path(workdir)
  paths = []
  for row in plan.rows:
    _check_row(workdir, row)
  for row in plan.rows:
    for seed in row.seeds if row.role == 'student' else ():
      for when, model in trained(plan, row, seed, workdir).items():
        name = f'{experiment.slug(row.label)}-{seed}-{when}.safetensors'
        path = workdir / 'export' / name
        files.save(path, model)
        paths.append(path)
  return paths


def collect(plan: experiment.Plan, workdir: pathlib.Path) -> dict[str, Any]:
  """The results of all rows, with what they were made by."""
  return {
    'rows': [
      {
        'label': row.label,
        'config': row.resolved,
        'seeds': {
          str(seed): read_result(workdir, row, seed) for seed in row.seeds
        },
      }
      for row in plan.rows
    ],
    'score': plan.task.score,
  }


def table(results: Mapping[str, Any]) -> rich.table.Table:
  """The results as a table: mean and standard deviation over seeds.

  The metric on the test split of the last epoch and of the one that was best
  on validation, and the last one's agreement with the teacher.
  """
  made = rich.table.Table(box=rich.box.MARKDOWN)
  made.add_column('network')
  score = results['score']
  for title in (
    'parameters',
    f'test {score}, last',
    f'test {score}, best on val.',
    'agreement',
    'seconds',
  ):
    made.add_column(title, justify='right')
  for row in results['rows']:
    seeds = list(row['seeds'].values())
    best = [s['test']['best'][score] for s in seeds if 'best' in s['test']]
    agreed = [s['agreement'] for s in seeds if s['agreement'] is not None]
    made.add_row(
      rich.markup.escape(row['label']),
      f'{seeds[0]["parameters"]:,}',
      _mean_and_sd([s['test']['last'][score] for s in seeds]),
      _mean_and_sd(best),
      _mean_and_sd(agreed),
      f'{np.mean([s["seconds"] for s in seeds]):.1f}',
    )
  return made


def read_result(
  workdir: pathlib.Path, row: experiment.Row, seed: int
) -> dict[str, Any]:
  return _read_json(_result_file(workdir, row, seed))


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a work directory for this process.

  Raises:
    UsageError: it cannot be written, or another process holds it.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / 'lock').open('w')
  except OSError as error:
    raise UsageError(
      f'workdir: cannot write {str(workdir)!r} ({error})'
    ) from None
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UsageError(
        f'workdir: another run is at work in {workdir}'
      ) from None
    yield


def _run_seed(
  plan: experiment.Plan,
  row: experiment.Row,
  seed: int,
  workdir: pathlib.Path,
  teacher: Model | None,
  show: bool,
  interrupted: Callable[[], bool],
) -> None:
  """Trains one seed of a row, or goes on with it, and writes its result."""
  carry: Carry = {row.role: experiment.initial_model(plan, row.role, seed)}
  if row.role == 'student' and teacher is not None:
    carry['teacher'] = teacher
  folder = _folder(workdir, row) / str(seed)
  name = row.label if len(row.seeds) == 1 else f'{row.label} seed {seed}'
  options = loop.Options(
    directory=str(folder),
    evaluate=(
      (lambda model: _evaluate(plan, model, 'validation'))
      if 'validation' in plan.dataset.splits
      else None
    ),
    score=plan.task.score,
    log=Log(
      workdir, name=name, labels={'row': row.label, 'seed': seed}, show=show
    ),
    interrupted=interrupted,
    **plan.options,
  )
  fitted = loop.fit(row.method, carry, plan.dataset, seed=seed, options=options)
  if fitted.carry[row.role] is carry[row.role]:
    raise UsageError(f'row {row.label!r}: the method trains no {row.role!r}')
  for file, report in fitted.reports.items():
    checkpoint.write_json(folder / file, report)
  result = {
    'steps': fitted.steps,
    'seconds': round(fitted.seconds, 1),
    'best_step': fitted.best_step.get(row.role),
    **_measure(plan, row, _models(fitted, row.role), teacher),
    **_made_by(),
  }
  checkpoint.write_json(_result_file(workdir, row, seed), result)


def _made_by() -> dict[str, Any]:
  """What a result was made by."""
  device = jax.devices()[0]
  return {
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'device': f'{device.platform} {device.device_kind} x{jax.device_count()}',
    'date': datetime.date.today().isoformat(),
  }


def _models(fitted: loop.Fitted, role: str) -> dict[str, Model]:
  best = {'best': fitted.best[role]} if role in fitted.best else {}
  return {'last': fitted.carry[role], **best}


def _measure(
  plan: experiment.Plan,
  row: experiment.Row,
  models: Mapping[str, Model],
  teacher: Model | None,
) -> dict[str, Any]:
  """What the table shows of one run."""
  agreement = None
  if row.role == 'student' and teacher is not None:
    agreement = plan.task.agreement(
      *(
        evaluation.predict(
          model, plan.dataset.splits['test'], plan.task, plan.preprocess
        )
        for model in (models['last'], teacher)
      )
    )
  return {
    'parameters': files.count_parameters(models['last'].variables),
    'test': {k: _evaluate(plan, m, 'test') for k, m in models.items()},
    'agreement': agreement,
  }


def _evaluate(
  plan: experiment.Plan, model: Model, split: str
) -> dict[str, float]:
  return evaluation.evaluate(
    model, plan.dataset.splits[split], plan.task, plan.preprocess
  )


def _check_row(workdir: pathlib.Path, row: experiment.Row) -> None:
  """Raises UsageError where the row there was made by another config."""
  path = _folder(workdir, row) / 'row.json'
  if not path.exists():
    return
  old, new = _flat(_read_json(path)), _flat(row.resolved)
  differing = [
    f'{key} (there {old.get(key)!r}, now {new.get(key)!r})'
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key) and key not in PLACES
  ]
  if differing:
    raise UsageError(
      f'workdir: {workdir} holds row {row.label!r} of another config, which '
      f'differs in {", ".join(differing)}; choose another --workdir'
    )


def _flat(tree: Any, prefix: str = '') -> dict[str, Any]:
  if not isinstance(tree, dict):
    return {prefix: tree}
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{prefix}.{key}' if prefix else key)
  return flat


def _folder(workdir: pathlib.Path, row: experiment.Row) -> pathlib.Path:
  return workdir / 'rows' / experiment.slug(row.label)


def _result_file(
  workdir: pathlib.Path, row: experiment.Row, seed: int
) -> pathlib.Path:
  return _folder(workdir, row) / str(seed) / 'result.json'


def _finished(workdir: pathlib.Path, row: experiment.Row, seed: int) -> bool:
  folder = _folder(workdir, row) / str(seed)
  phases = [f'phase{i}.safetensors' for i in range(len(row.method))]
  return all((folder / name).exists() for name in ('result.json', *phases))


def _read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UsageError(f'{path}: not readable as JSON ({error})') from None


def _percent(metrics: Mapping[str, float], plan: experiment.Plan) -> str:
  score = plan.task.score
  return f'{score} {100 * metrics[score]:.2f}%'


def _mean_and_sd(values: list[float]) -> str:
  """'97.5 ± 0.3' in percent; the standard deviation of a sample."""
  if not values:
    return '-'
  mean = f'{100 * np.mean(values):.2f}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {100 * np.std(values, ddof=1):.2f}'
