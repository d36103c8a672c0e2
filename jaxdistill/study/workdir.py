"""What lies in a work directory, and whose it is."""

import ast
from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import pathlib
import pprint
import textwrap
from typing import Any

from jaxdistill import experiment
from jaxdistill.training import hosts
from jaxdistill.types import UsageError

# Say where something is, not what: a checksum stands beside them.
PLACES = (
  *('teacher.checkpoint', 'teacher.weights'),
  *('data.path', 'data.data_dir'),
)


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


def keep_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Writes what the directory is made by as a config, overrides included."""
  text = pprint.pformat(dict(config), width=76, sort_dicts=False)
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError):  # holds what is no plain value
    return
  (workdir / 'config.py').write_text(
    f'def get_config():\n  return {textwrap.indent(text, "  ").lstrip()}\n'
  )


def check_row(
  workdir: pathlib.Path, row: experiment.Row, *, trains: bool = True
) -> None:
  """Raises UsageError where the row there was made by another config.

  Where nothing `trains` any more, it does not matter how arithmetic was chosen.
  """
  path = row_folder(workdir, row) / 'row.json'
  if not path.exists():
    return
  old, new = (without_places(x) for x in (_read_json(path), row.resolved))
  if not trains or all_finished(workdir, row):
    new['fast_cpu'] = old.get('fast_cpu')
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


def row_folder(workdir: pathlib.Path, row: experiment.Row) -> pathlib.Path:
  """Where a row is kept."""
  return workdir / 'rows' / experiment.slug(row.label)


def result_file(
  workdir: pathlib.Path, row: experiment.Row, seed: int
) -> pathlib.Path:
  """Where the result of a seed is kept."""
  return row_folder(workdir, row) / str(seed) / 'result.json'


def all_finished(workdir: pathlib.Path, row: experiment.Row) -> bool:
  """Whether each seed of a row is."""
  return all(is_finished(workdir, row, seed) for seed in row.seeds)


def is_finished(workdir: pathlib.Path, row: experiment.Row, seed: int) -> bool:
  """Whether a seed of a row has trained and has its result."""
  folder = row_folder(workdir, row) / str(seed)
  phases = [f'phase{i}.safetensors' for i in range(len(row.method))]
  return all((folder / name).exists() for name in ('result.json', *phases))


def read_result(
  workdir: pathlib.Path, row: experiment.Row, seed: int
) -> dict[str, Any]:
  """The result of a seed."""
  return _read_json(result_file(workdir, row, seed))


def without_places(resolved: Mapping[str, Any]) -> dict[str, Any]:
  """Flat, and without what says where something is."""
  flat = _flat(resolved)
  return {
    key: value
    for key, value in flat.items()
    if key not in PLACES and f'checksums.{key}' not in flat
  }


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
    raise UsageError(f'{path}: not readable as JSON ({error})') from None
