"""Runs the rows of a plan in a work directory, and tells what came out."""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import pprint
import textwrap
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from jaxdistill import evaluation, experiment, recipes
from jaxdistill import export as export_lib
from jaxdistill.data import arrays, streaming
from jaxdistill.networks import files, staged
from jaxdistill.training import checkpoint, hosts, loop, sharding
from jaxdistill.training.log import Log
from jaxdistill.types import DIFFERENCES, Carry, Model, UsageError

PACKAGES = (
  'jaxdistill',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
)
FORMATS = ('safetensors', 'stablehlo')
# Say where something is, not what: a checksum stands beside them.
PLACES = (
  *('teacher.checkpoint', 'teacher.weights'),
  *('data.path', 'data.data_dir'),
)


def run(
  plan: experiment.Plan,
  workdir: str | os.PathLike,
  *,
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
    show: whether to show progress and results.
    interrupted: see `loop.Options`.
    model_parallel: see `loop.Options`.

  Returns:
    The results, which also stand in results.json.

  Raises:
    UsageError: the directory belongs to another config, or to a process that
      is at work in it, or cannot be written; a batch does not spread over the
      devices; the processes do not run the same.
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
  _check_same(plan)
  for row in plan.rows:
    if not hosts.of_first(_all_finished, workdir, row):
      sharding.check_batch_size(row.resolved['batch_size'], mesh)
  with locked(workdir):
    for about in (_about_statistics(plan), _about_size(plan)):
      if about:
        console.print(about)
    for row in plan.rows:
      _check_row(workdir, row)
    if hosts.first():
      _keep_config(workdir, plan.config)
    teacher = plan.teacher
    if teacher is not None:
      metrics = _evaluate(plan, teacher, 'test', mesh)
      console.print(f'teacher from a file: {_percent(metrics, plan)} on test')
    taught = _asked_once(plan, teacher, mesh)
    for row in plan.rows:
      if hosts.first():
        checkpoint.write_json(_folder(workdir, row) / 'row.json', row.resolved)
      for seed in row.seeds:
        if not hosts.of_first(_finished, workdir, row, seed):
          _run_seed(plan, row, seed, workdir, teacher, taught, show, options)
          hosts.meet()
      if row.role == 'teacher':
        teacher = trained(plan, row, row.seeds[0], workdir)['last']
        taught = _asked_once(plan, teacher, mesh)
        if hosts.first():
          files.save(workdir / 'teacher.safetensors', teacher)
        metrics = read_result(workdir, row, row.seeds[0])['test']['last']
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
  return _models(finished(plan, row, seed, workdir), row.role)


def finished(
  plan: experiment.Plan, row: experiment.Row, seed: int, workdir: pathlib.Path
) -> loop.Fitted:
  """What a finished run ended with, other roles of its carry included.

  Raises:
    UsageError: the run is not finished.
  """
  if not hosts.of_first(_finished, workdir, row, seed):
    raise UsageError(
      f'{workdir}: row {row.label!r}, seed {seed} is not finished; run it with '
      '--mode=fit first'
    )
  # Every phase is done, so this reads files and trains nothing.
  carry = {row.role: experiment.initial_model(plan, row.role, seed)}
  options = loop.Options(directory=str(_folder(workdir, row) / str(seed)))
  return loop.fit(row.method, carry, plan.dataset, seed=seed, options=options)


def evaluate(
  plan: experiment.Plan, workdir: str | os.PathLike
) -> dict[str, Any]:
  """Evaluates finished runs again, from their files; returns the results."""
  workdir = pathlib.Path(workdir)
  mesh = sharding.make_mesh()
  taught = _asked_once(plan, plan.teacher, mesh)
  for row in plan.rows:
    _check_row(workdir, row)
  for row in plan.rows:
    for seed in row.seeds:
      fitted = finished(plan, row, seed, workdir)
      if row.role == 'teacher':
        taught = _asked_once(plan, fitted.carry['teacher'], mesh)
      old = read_result(workdir, row, seed)
      result = {**old, **_measure(plan, row, fitted, taught, mesh)}
      checkpoint.write_json(_result_file(workdir, row, seed), result)
  results = collect(plan, workdir)
  checkpoint.write_json(workdir / 'results.json', results)
  return results


def export(
  plan: experiment.Plan,
  workdir: str | os.PathLike,
  formats: Sequence[str] = ('safetensors',),
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

  Raises:
    UsageError: a row is not finished, or belongs to another config.
    RuntimeError: a file answers otherwise than the student.
  """
  workdir = pathlib.Path(workdir)
  paths = []
  for row in plan.rows:
    _check_row(workdir, row)
  for row in plan.rows:
    for seed in row.seeds if row.role == 'student' else ():
      for when, model in trained(plan, row, seed, workdir).items():
        name = f'{experiment.slug(row.label)}-{seed}-{when}'
        for kind in formats:
          path = workdir / 'export' / f'{name}.{kind}'
          _write_model(plan, model, path)
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
  on validation, and the last one's agreement with the teacher. Models that a
  method left beside its student, such as assistants, have lines of their own.
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
    agreed = [s['agreement'] for s in seeds if s['agreement'] is not None]
    made.add_row(
      rich.markup.escape(row['label']),
      *_scores(seeds, score),
      _mean_and_sd(agreed),
      f'{np.mean([s["seconds"] for s in seeds]):.1f}',
    )
    # What the method left beside it, such as a pruned network.
    for role in seeds[0].get('beside', {}):
      beside = [s['beside'][role] for s in seeds if role in s.get('beside', ())]
      name = rich.markup.escape(f'{row["label"]}: {role}')
      made.add_row(name, *_scores(beside, score), '-', '-')
    for key in seeds[0].get('differences', {}):
      each = [s.get('differences', {}).get(key) for s in seeds]
      name = rich.markup.escape(f'{row["label"]}: {key}')
      made.add_row(name, *_scores([x for x in each if x], score), '-', '-')
  return made


def _scores(measured: Sequence[Any], score: str) -> tuple[str, str, str]:
  """Parameters and the scores of the last and the best epoch, over seeds."""
  best = [m['test']['best'][score] for m in measured if 'best' in m['test']]
  last = [m['test']['last'][score] for m in measured]
  count = measured[0].get('parameters')  # a difference has none
  shown = '-' if count is None else f'{count:,}'
  return shown, _mean_and_sd(last), _mean_and_sd(best)


def read_result(
  workdir: pathlib.Path, row: experiment.Row, seed: int
) -> dict[str, Any]:
  return _read_json(_result_file(workdir, row, seed))


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a work directory for this run; its first process does.

  Raises:
    UsageError: it cannot be written, or another run holds it.
  """
  with contextlib.ExitStack() as stack:
    problem = _lock(workdir, stack) if hosts.first() else ''
    if hosts.any_of(bool(problem))[0]:
      raise UsageError(problem or 'workdir: the first process cannot have it')
    yield


def _keep_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Writes what the directory is made by as a config, overrides included."""
  text = pprint.pformat(dict(config), width=76, sort_dicts=False)
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError):  # holds what is no plain value
    return
  (workdir / 'config.py').write_text(
    f'def get_config():\n  return {textwrap.indent(text, "  ").lstrip()}\n'
  )


def _lock(workdir: pathlib.Path, stack: contextlib.ExitStack) -> str:
  """Locks a directory until the stack is left; says what is wrong, or ''."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((workdir / 'lock').open('w'))
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return f'workdir: another run is at work in {workdir}'
  except OSError as error:
    return f'workdir: cannot write {str(workdir)!r} ({error})'
  return ''


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
  folder = _folder(workdir, row) / str(seed)
  options = options._replace(
    directory=str(folder),
    evaluate=(
      (lambda model: _evaluate(plan, model, 'validation', mesh))
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
    **_measure(plan, row, fitted, taught, mesh),
    **_made_by(),
  }
  if hosts.first():
    for file, report in fitted.reports.items():
      checkpoint.write_json(folder / file, report)
    checkpoint.write_json(_result_file(workdir, row, seed), result)


def _write_model(
  plan: experiment.Plan, model: Model, path: pathlib.Path
) -> None:
  """Writes one file of an export, and checks what it answers."""
  image = plan.dataset.splits['test']['image']
  some = jax.numpy.asarray(image[:8])

  def answers(model: Model) -> jax.Array:
    return export_lib.answers(
      model.network, plan.preprocess, model.variables, some
    )

  example = recipes.example(plan.dataset, plan.preprocess, 1)['image']
  about = {
    'label_names': list(plan.dataset.label_names),
    'mean': list(plan.dataset.mean),
    'std': list(plan.dataset.std),
  }
  if path.suffix == '.safetensors':
    shape = list(example.shape[1:])
    files.save(path, model, {**about, 'image_shape': shape})
    held = 'network' in files.load_tree(path)[1]
    found = answers(files.load(path, None if held else model.network))
  else:
    raw = image.shape[1:]
    program = export_lib.to_stablehlo(model, raw, preprocess=plan.preprocess)
    export_lib.save(path, program)
    found = export_lib.load(path)(some)
    checkpoint.write_json(
      path.with_name(f'{path.name}.json'),
      {
        **about,
        'input': f'raw images, uint8 [B, {", ".join(map(str, raw))}]',
        'output': f'[B, {plan.dataset.num_classes}] logits',
        'platforms': export_lib.PLATFORMS,
        'standardized': 'inside, by mean and std',
      },
    )
  try:
    eps = export_lib.rounding(model, example)
    export_lib.check(path, found, answers(model), eps)
  except RuntimeError:
    path.unlink()
    raise


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


def _models(fitted: loop.Fitted, role: str) -> dict[str, Model]:
  best = {'best': fitted.best[role]} if role in fitted.best else {}
  return {'last': fitted.carry[role], **best}


def _measure(
  plan: experiment.Plan,
  row: experiment.Row,
  fitted: loop.Fitted,
  taught: Callable[[], Any] | None,
  mesh: Mesh,
) -> dict[str, Any]:
  """What the table shows of one run, and of models that it left beside."""
  models, agreement = _models(fitted, row.role), None
  if row.role == 'student' and taught is not None:
    answers = _predictions(plan, models['last'], mesh)
    agreement = plan.task.agreement(answers, taught())
  beside = {
    name: _tested(plan, _models(fitted, name), mesh)
    for name, model in fitted.carry.items()
    if isinstance(model, Model)
    and name not in ('student', 'teacher')
    and _answer(plan, model) == _answer(plan, models['last'])
  }
  wanted = fitted.reports.get(DIFFERENCES, {})
  return {
    **_tested(plan, models, mesh),
    'agreement': agreement,
    'beside': beside,
    'differences': {k: _difference(beside, v) for k, v in wanted.items()},
  }


def _difference(
  beside: Mapping[str, Any], factors: Mapping[str, float]
) -> dict[str, Any]:
  """A sum of test metrics, of the last epoch and of the best ones."""
  tests = [beside[role]['test'] for role in factors]

  def total(when: str, metric: str) -> float:
    return sum(f * t[when][metric] for f, t in zip(factors.values(), tests))

  shared = set.intersection(*map(set, tests))
  return {
    'test': {
      when: {m: total(when, m) for m in tests[0][when]} for when in shared
    }
  }


def _answer(plan: experiment.Plan, model: Model) -> tuple[int, ...] | None:
  """Shape of a model's answer to an image; None of what reads other things."""
  image = {'image': recipes.example(plan.dataset, plan.preprocess, 1)['image']}
  try:
    variables = staged.variable_shapes(model.network, image)
    wanted = jax.tree.map(lambda x: x.shape, variables['params'])
    found = jax.tree.map(lambda x: x.shape, model.variables['params'])
    if wanted != found:
      return None
    return staged.shapes(model.network, image)[
      staged.output(model.network)
    ].shape
  except (UsageError, ValueError, TypeError):
    return None


def _tested(
  plan: experiment.Plan, models: Mapping[str, Model], mesh: Mesh
) -> dict[str, Any]:
  """Size and test metrics of a model, last and best on validation."""
  return {
    'parameters': files.count_parameters(models['last'].variables),
    'test': {k: _evaluate(plan, m, 'test', mesh) for k, m in models.items()},
  }


def _predictions(plan: experiment.Plan, model: Model, mesh: Mesh) -> Any:
  return evaluation.predict(
    _placed(model, mesh),
    plan.dataset.splits['test'],
    plan.task,
    plan.preprocess,
    sharding=sharding.rows(mesh),
  )


def _asked_once(
  plan: experiment.Plan, teacher: Model | None, mesh: Mesh
) -> Callable[[], Any] | None:
  """The teacher's predictions on the test split, made when first wanted."""
  if teacher is None:
    return None
  return functools.cache(lambda: _predictions(plan, teacher, mesh))


def _evaluate(
  plan: experiment.Plan, model: Model, split: str, mesh: Mesh
) -> dict[str, float]:
  return evaluation.evaluate(
    _placed(model, mesh),
    plan.dataset.splits[split],
    plan.task,
    plan.preprocess,
    sharding=sharding.rows(mesh),
  )


def _placed(model: Model, mesh: Mesh) -> Model:
  return model._replace(variables=sharding.place(model.variables, mesh))


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


def _check_same(plan: experiment.Plan) -> None:
  """Raises UsageError where the processes do not run the same."""
  rows = [
    (row.label, row.seeds, _without_places(row.resolved)) for row in plan.rows
  ]
  about = (rows, plan.options['log_every'], _versions())
  digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()
  found = hosts.gather(int.from_bytes(digest[:8], 'big', signed=True))[:, 0]
  differing = np.flatnonzero(found != found[0])
  if len(differing):
    raise UsageError(
      f'process {", ".join(map(str, differing))} runs another config, other '
      'data or other versions of packages than process 0'
    )


def _without_places(resolved: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in _flat(resolved).items() if k not in PLACES}


def _check_row(workdir: pathlib.Path, row: experiment.Row) -> None:
  """Raises UsageError where the row there was made by another config."""
  path = _folder(workdir, row) / 'row.json'
  if not path.exists():
    return
  old, new = (_without_places(x) for x in (_read_json(path), row.resolved))
  if _all_finished(workdir, row):
    new['fast_cpu'] = old.get('fast_cpu')  # nothing is trained any more
  differing = [
    f'{key} (there {old.get(key)!r}, now {new.get(key)!r})'
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key)
  ]
  if bool(old.get('fast_cpu')) != bool(new.get('fast_cpu')):
    how = 'give' if old.get('fast_cpu') else 'leave out'
    raise UsageError(
      f'workdir: {workdir} holds row {row.label!r}, begun '
      f'{"with" if old.get("fast_cpu") else "without"} --fast_cpu: {how} '
      '--fast_cpu, or choose another --workdir'
    )
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


def _all_finished(workdir: pathlib.Path, row: experiment.Row) -> bool:
  return all(_finished(workdir, row, seed) for seed in row.seeds)


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
