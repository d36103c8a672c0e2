"""Work directories: what they contain, and which config they belong to.

config.py: the config with all overrides.
lock: held by the run that works in the directory.
metrics.jsonl: the records of all rows; see `training.log`.
teacher.safetensors: the trained teacher.
teacher-*, student-*: networks that were given to `distill` as objects.
rows/LABEL/row.json: everything that the numbers of a row depend on.
rows/LABEL/SEED/phase0.safetensors, ...: the models after each phase.
rows/LABEL/SEED/checkpoints0/...: checkpoints of a phase that is not finished.
rows/LABEL/together/...: a note of the runs that train in one program, and their
  checkpoints, until all of these runs are finished: seeds of the row, or of
  several rows or trials of which it is the first.
rows/LABEL/SEED/result.json: the measurements of a finished run.
rows/LABEL/SEED/diverged.json: where the loss of a sweep's trial became NaN.
rows/LABEL/SEED/predictions.npz: the model's predictions for some test images.
predictions.npz: those of a teacher from a file; see the module `recorded`.
examples.npz: a few small test images for the report; see `examples`.
results.json: the results of all finished runs.
report.html: the same on one page, with charts; see `page`.
export/: the files that `--mode=export` writes.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import importlib
import json
import pathlib
import re
from typing import IO, Any

from jaxdistill.core.checks import UsageError
from jaxdistill.study.labels import slug
from jaxdistill.study.plans import Row
from jaxdistill.training import checkpoint, group_files
from jaxdistill.training.distributed import hosts

# These keys say where a file is, not what it holds; its checksum says that.
PLACES = re.compile(
  r'teacher(\.teacher\d+)?\.(checkpoint|weights)|data\.(path|data_dir)'
  r'|(teacher\.)?initial\.path'
)

# The largest number of differing keys that a message names.
_MOST_KEYS = 3


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a work directory for this run; the first process takes the lock.

  Raises:
    UsageError: the directory cannot be written, or another run holds it.
  """
  with contextlib.ExitStack() as stack:
    problem = _lock(workdir, stack) if hosts.first() else ''
    if hosts.any_of(bool(problem))[0]:
      raise UsageError(
        problem or 'workdir: the first process cannot use the work directory'
      )
    yield


def check_row(workdir: pathlib.Path, row: Row, *, trains: bool = True) -> None:
  """Checks that a row in the directory was made by the same config.

  Args:
    workdir: the work directory.
    row: the row.
    trains: whether the row is still to be trained. If not, it does not matter
      whether the process runs with --fast_cpu, and seeds train together.

  Raises:
    UsageError: a key differs, or seeds that began together are no longer in the
      config.
  """
  path = row_folder(workdir, row) / 'row.json'
  if not path.exists():
    return
  old, new = (without_places(x) for x in (_read_json(path), row.resolved))
  if not trains or all_finished(workdir, row):
    new |= {key: old.get(key) for key in ('fast_cpu', 'together')}
  if bool(old.get('fast_cpu')) != bool(new.get('fast_cpu')):
    was_fast = bool(old.get('fast_cpu'))
    raise UsageError(
      f'workdir: {workdir} holds row {row.label!r}, which was started '
      f'{"with" if was_fast else "without"} --fast_cpu: '
      f'{"give" if was_fast else "leave out"} --fast_cpu, or choose another '
      'work directory'
    )
  differing = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
  if differing:
    shown = [
      f'{key} (there {_short(old.get(key))}, now {_short(new.get(key))})'
      for key in differing[:_MOST_KEYS]
    ]
    if len(differing) > _MOST_KEYS:
      shown.append(f'and {len(differing) - _MOST_KEYS} other keys')
    raise UsageError(
      f'workdir: {workdir} holds row {row.label!r} of another config, which '
      f'differs in {", ".join(shown)}; choose another work directory'
    )
  folder = group_folder(workdir, row)
  begun = [x for x in group_files.names(folder) if isinstance(x, int)]
  seeds = row.seeds if row.trial is None else row.trial.seeds
  if trains and not {*begun} <= {*seeds}:
    raise UsageError(
      f'seeds: expected the seeds {list(begun)} of row {row.label!r}, and '
      'perhaps others, because these began to train together, got '
      f'{list(seeds)}; to begin again, delete {folder}'
    )


@contextlib.contextmanager
def recorded(workdir: pathlib.Path, rows: Iterable[Row]) -> Iterator[None]:
  """Writes what the numbers of rows depend on, before they are trained.

  If a row is refused before anything has been trained, its folder is deleted
  again, because the corrected config may have other keys.

  Args:
    workdir: the work directory.
    rows: the rows that are about to be trained.
  """
  folders = {row_folder(workdir, row): row for row in rows}
  notes = ('row.json', group_files.FILE)
  if hosts.first():
    for folder, row in folders.items():
      checkpoint.write_json(folder / notes[0], row.resolved)
  try:
    yield
  except UsageError:
    for folder in folders if hosts.first() else ():
      files = (path for path in folder.rglob('*') if path.is_file())
      if all(path.name in notes for path in files):
        checkpoint.delete(folder)
    raise


def _short(value: Any) -> str:
  """Returns a value in at most about 60 characters."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def row_folder(workdir: pathlib.Path, row: Row) -> pathlib.Path:
  """Returns the folder of a row."""
  return workdir / 'rows' / slug(row.label)


def seed_folder(workdir: pathlib.Path, row: Row, seed: int) -> pathlib.Path:
  """Returns the folder of one seed of a row."""
  return row_folder(workdir, row) / str(seed)


def group_folder(workdir: pathlib.Path, row: Row) -> pathlib.Path:
  """Returns the folder for the seeds of a row that train in one program."""
  return row_folder(workdir, row) / 'together'


def result_file(workdir: pathlib.Path, row: Row, seed: int) -> pathlib.Path:
  """Returns the path of the measurements of one seed."""
  return seed_folder(workdir, row, seed) / 'result.json'


def all_finished(workdir: pathlib.Path, row: Row) -> bool:
  """Returns whether every seed of a row is finished."""
  return all(is_finished(workdir, row, seed) for seed in row.seeds)


def is_finished(workdir: pathlib.Path, row: Row, seed: int) -> bool:
  """Returns whether one seed of a row has been trained and measured."""
  phases = [f'phase{i}.safetensors' for i in range(len(row.method))]
  folder = seed_folder(workdir, row, seed)
  return all((folder / name).exists() for name in ('result.json', *phases))


def divergence_file(workdir: pathlib.Path, row: Row, seed: int) -> pathlib.Path:
  """Returns the path of the note that one seed of a trial diverged."""
  return seed_folder(workdir, row, seed) / 'diverged.json'


def has_diverged(workdir: pathlib.Path, row: Row, seed: int) -> bool:
  """Returns whether the loss of one seed of a trial became NaN or infinite."""
  return divergence_file(workdir, row, seed).exists()


def read_divergence(workdir: pathlib.Path, row: Row, seed: int) -> str:
  """Returns where one seed of a trial diverged, in one line."""
  return str(_read_json(divergence_file(workdir, row, seed))['message'])


def read_result(workdir: pathlib.Path, row: Row, seed: int) -> dict[str, Any]:
  """Returns the measurements of one seed."""
  return _read_json(result_file(workdir, row, seed))


def without_places(resolved: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the keys of a row as 'section.key', without those of places."""
  flat = _flat(resolved)
  return {
    key: value
    for key, value in flat.items()
    if not PLACES.fullmatch(key) and f'checksums.{key}' not in flat
  }


def _lock(workdir: pathlib.Path, stack: contextlib.ExitStack) -> str:
  """Locks a directory until the stack is closed; returns the problem, or ''."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((workdir / 'lock').open('w'))
    _hold(lock)
  except BlockingIOError:
    return f'workdir: another run is using {workdir}'
  except OSError as error:
    return f'workdir: cannot write to {str(workdir)!r} ({error})'
  return ''


def _hold(file: IO[str]) -> None:
  """Locks an open file; the system frees it when the process ends.

  Raises:
    BlockingIOError: another process holds it.
  """
  try:
    import fcntl
  except ImportError:  # Windows has the module msvcrt instead
    msvcrt: Any = importlib.import_module('msvcrt')
    try:
      msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
      raise BlockingIOError(*error.args) from error
  else:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flat(tree: Any, prefix: str = '') -> dict[str, Any]:
  if not isinstance(tree, dict):
    return {prefix: tree}
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{prefix}.{key}' if prefix else key)
  return flat


def _read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UsageError(f'{path}: cannot be read as JSON ({error})') from None
