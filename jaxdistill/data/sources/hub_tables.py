"""Tables of Hugging Face data sets: parquet files, and folders of Arrow files.

Only data are read: nothing in a downloaded data set is imported or executed.
"""

from collections.abc import Iterator, Mapping
import json
import os
import pathlib
import re
from typing import Any

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError

PURPOSE = "the data set 'huggingface'"
# The words in names of files and folders that say which split they belong to.
TRAIN = ('train', 'training')
TEST = ('test', 'testing', 'validation', 'valid', 'val', 'dev')
# Where the hub keeps every data set as parquet files, CONFIG/SPLIT/*.parquet.
_REVISION = 'refs/convert/parquet'
# What `save_to_disk` writes beside the Arrow files of a split.
_STATE = 'state.json'


def read(path: str, config: str | None) -> dict[str, Any]:
  """Returns the tables of a data set by the names of its splits.

  Args:
    path: a folder that `datasets.save_to_disk` wrote, a parquet file, a folder
      of parquet files, or the name of a data set of the hub.
    config: the configuration of a data set of the hub.

  Returns:
    {split: pyarrow.Table}; the schema's metadata describe the features.

  Raises:
    UsageError: there is no such data set, or it cannot be read.
  """
  place = pathlib.Path(os.path.expanduser(path))
  if not place.exists():
    place = _downloaded(path, config)
  try:
    return _tables(place)
  except (OSError, ValueError, KeyError) as error:
    raise UsageError(
      f'data.path: cannot read {path!r} ({checks.reason(error)})'
    ) from None


def is_data_set(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is a parquet file or a folder that `read` takes."""
  place = pathlib.Path(path)
  if place.is_dir():
    return bool(_folders(place)) or any(place.rglob('*.parquet'))
  return place.is_file() and place.suffix == '.parquet'


def features(table: Any) -> dict[str, Mapping[str, Any]]:
  """Returns the features that a table's metadata describe, by column; or {}."""
  metadata = table.schema.metadata or {}
  try:
    described = json.loads(metadata.get(b'huggingface', b'{}'))
    described = described.get('info', {}).get('features', {})
  except (ValueError, AttributeError):
    return {}
  return {k: v for k, v in described.items() if isinstance(v, Mapping)}


def _folders(place: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the folders of splits that `save_to_disk` wrote, by split."""
  if (place / _STATE).is_file():
    return {'train': place}
  return {
    state.parent.name: state.parent for state in place.glob(f'*/{_STATE}')
  }


def _tables(place: pathlib.Path) -> dict[str, Any]:
  folders = _folders(place) if place.is_dir() else {}
  if folders:
    return {split: _saved(folder) for split, folder in folders.items()}
  parquet = optional.require('pyarrow.parquet', PURPOSE)
  arrow = optional.require('pyarrow', PURPOSE)
  files = [place] if place.is_file() else sorted(place.rglob('*.parquet'))
  if not files:
    raise UsageError(
      f'data.path: expected parquet files or a folder of save_to_disk, got '
      f'{str(place)!r}'
    )
  parts: dict[str, list[Any]] = {}
  for file in files:
    split = _split_of(file.relative_to(place) if place.is_dir() else file.name)
    parts.setdefault(split, []).append(parquet.read_table(file))
  return {split: arrow.concat_tables(tables) for split, tables in parts.items()}


def _saved(folder: pathlib.Path) -> Any:
  """Returns the table of a folder of Arrow files."""
  arrow = optional.require('pyarrow', PURPOSE)
  ipc = optional.require('pyarrow.ipc', PURPOSE)
  state = json.loads((folder / _STATE).read_text())
  tables = [
    ipc.open_stream(
      arrow.memory_map(str(folder / entry['filename']))
    ).read_all()
    for entry in state['_data_files']
  ]
  return arrow.concat_tables(tables)


def _split_of(path: str | os.PathLike[str]) -> str:
  """Returns the split that the name of a file says: 'train' if it says none."""
  words = re.split(r'[^a-z]+', os.fspath(path).lower())
  return next((word for word in words if word in (*TRAIN, *TEST)), 'train')


def _downloaded(name: str, config: str | None) -> pathlib.Path:
  """Downloads a data set of the hub as parquet files; returns the folder."""
  if not re.fullmatch(r'[\w.-]+(/[\w.-]+)?', name):
    raise UsageError(f'data.path: no file or folder {name!r}')
  hub = optional.require(
    'huggingface_hub', f'data.path: no file or folder {name!r}; downloading it'
  )
  try:
    files = hub.list_repo_files(name, repo_type='dataset', revision=_REVISION)
    configs = sorted({file.partition('/')[0] for file in _parquet(files)})
    if config is None and len(configs) == 1:
      (config,) = configs
    if config not in configs:
      raise UsageError(
        f'data.config: expected one of {", ".join(configs)} for {name!r}, got '
        f'{config!r}'
      )
    folder = hub.snapshot_download(
      name,
      repo_type='dataset',
      revision=_REVISION,
      allow_patterns=f'{config}/*',
    )
  except UsageError:
    raise
  except Exception as error:  # of the network, or of the hub
    raise UsageError(
      f'data.path: no file or folder {name!r}, and the hub does not give it '
      f'({checks.reason(error)[:200]})'
    ) from None
  return pathlib.Path(folder, str(config))


def _parquet(files: list[str]) -> Iterator[str]:
  return (file for file in files if file.endswith('.parquet'))
