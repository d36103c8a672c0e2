"""Opens exported students as functions of raw images."""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Augment, Network, Task
from jaxdistill.data.transforms import augment
from jaxdistill.networks.weights import files
from jaxdistill.study import predictors, reading
from jaxdistill.study.formats import table
from jaxdistill.study.parse import parse
from jaxdistill.study.predictors import Predictor
from jaxdistill.study.reading import Reading
from jaxdistill.study.registry import TABLES, TASKS

_FOLDER = 'export'
_VARIABLES = 'safetensors'


class _About(NamedTuple):
  """What a file says about its images and outputs, see `formats.source`."""

  image_shape: tuple[int, ...]
  network_size: tuple[int, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  label_names: tuple[str, ...]
  task: Any
  reading: Reading = Reading()


def predictor(
  path: str | os.PathLike[str],
  *,
  network: Network | None = None,
  task: Task | None = None,
) -> Predictor:
  """Opens a student that `jaxdistill export` or `distill` wrote.

    student = jd.predictor('runs/mine')
    images = jd.data.read_image('new.png', image_size=32)[None]
    print(student.label_names[student(images)[0]])

  Args:
    path: an exported file of any format, a folder of such files, or a work
      directory whose students were exported. In a folder, the student of the
      first seed after the last epoch is taken, in the format that comes first
      among 'safetensors', 'stablehlo', 'onnx' and 'tflite', with floats and
      with its adapter if there are such files.
    network: the network of a .safetensors file that does not describe it, see
      `load`.
    task: what the outputs mean, if it is a task of your own.

  Returns:
    The student, which maps raw images to predictions.

  Raises:
    UsageError: there is no such file, it is damaged or has another description
      beside it, the folder holds the students of several rows, or the package
      that runs the file is not installed.
  """
  place = pathlib.Path(os.path.expanduser(path))
  file = _chosen(place) if place.is_dir() else place
  kind = file.suffix[1:]
  if not file.is_file():
    raise UsageError(f'{file}: expected an exported file, got no such file')
  if kind not in table.FORMATS:
    raise UsageError(
      f'{file}: expected an exported file, which ends with '
      f'{", ".join("." + name for name in table.FORMATS)}, or a folder of them'
    )
  if network is not None and kind != _VARIABLES:
    raise UsageError(
      f'network: expected a .{_VARIABLES} file with it, got {file}'
    )
  description = _description(file)
  if kind == _VARIABLES:  # it describes itself
    model, metadata = files.load_with_metadata(file, network)
    about = _checked(file, metadata)
    task = task or _task(file, about.task)
    prepare = _preprocess(about, task)
    student = predictors.of_model(
      model, prepare, about.image_shape, task, about.label_names
    )
    return student._replace(reading=about.reading)
  if not description:
    raise UsageError(
      f'{file}: expected its description {file.name}.json beside it; copy both '
      'files'
    )
  about = _checked(file, description)
  task = task or _task(file, about.task)
  names = predictors.names_of(task, about.label_names)
  run = table.program(file, kind)
  shape = about.image_shape
  return Predictor(run, shape, task, names, reading=about.reading)


def _chosen(folder: pathlib.Path) -> pathlib.Path:
  """Returns the file of a folder that `predictor` takes.

  Raises:
    UsageError: the folder holds none, or those of several rows.
  """
  inner = folder / _FOLDER if (folder / _FOLDER).is_dir() else folder
  ranks: dict[pathlib.Path, tuple[Any, ...]] = {}
  rows = {}
  for description in sorted(inner.glob('*.json')):
    file = description.with_suffix('')
    if file.suffix[1:] in table.FORMATS and file.is_file():
      about = _read_json(description)
      rows[file] = str(about.get('row'))
      ranks[file] = _rank(file, about)
  if not ranks:
    raise UsageError(
      f'{folder}: expected a folder with exported students, which `jaxdistill '
      'export` writes into a work directory, got a folder without them'
    )
  first = min(ranks, key=lambda file: ranks[file])
  if len({*rows.values()}) > 1:
    names = ', '.join(dict.fromkeys(map(repr, rows.values())))
    raise UsageError(
      f'{folder}: expected the students of one row, got those of {names}; name '
      f'one of the files, such as {first}'
    )
  return first


def _rank(file: pathlib.Path, about: Mapping[str, Any]) -> tuple[Any, ...]:
  """Returns what orders the files of a row; the smallest one is taken."""
  seed = about.get('seed')
  return (
    seed if isinstance(seed, int) else 0,
    about.get('model') != 'last',
    about.get('int8') is not None,
    file.stem.endswith('-feature'),
    [*table.FORMATS].index(file.suffix[1:]),
    file.name,
  )


def _description(file: pathlib.Path) -> Mapping[str, Any]:
  """Returns what lies beside a file and describes it; empty if nothing does.

  Raises:
    UsageError: it describes another file.
  """
  beside = file.with_name(f'{file.name}.json')
  if not beside.is_file():
    return {}
  description = _read_json(beside)
  checksum = description.get('sha256')
  if checksum is not None and checksum != sha256(file):
    raise UsageError(
      f'{file}: is damaged, or {beside.name} describes another file; copy both '
      'files again, or export them again'
    )
  return description


def sha256(path: pathlib.Path) -> str:
  """Returns the SHA-256 checksum of a file, as hexadecimal digits."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _read_json(path: pathlib.Path) -> Mapping[str, Any]:
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise UsageError(
      f'{path}: expected a JSON file ({checks.reason(error)})'
    ) from None
  if not isinstance(content, Mapping):
    raise UsageError(f'{path}: expected the description of a file')
  return content


def _checked(file: pathlib.Path, content: Mapping[str, Any]) -> _About:
  """Returns what a description says, which may come from anywhere.

  Raises:
    UsageError: a key is missing or has another type.
  """
  needed = [key for key in _About._fields if key not in _About._field_defaults]
  missing = [key for key in needed if key not in content]
  if missing:
    raise UsageError(
      f'{file}: expected a student that `jaxdistill export` wrote, got a file '
      f'that does not say its {missing[0]}'
    )
  lists = {}
  for key, kinds in (
    ('image_shape', (int,)),
    ('network_size', (int,)),
    ('mean', (int, float)),
    ('std', (int, float)),
    ('label_names', (str,)),
  ):
    value = content[key]
    if not isinstance(value, list) or any(type(x) not in kinds for x in value):
      raise UsageError(
        f'{file}: expected a list of {kinds[-1].__name__} as {key}, got '
        f'{str(value)[:80]}'
      )
    lists[key] = tuple(value)
  try:
    pixels = reading.checked(content)
  except UsageError as error:
    raise UsageError(f'{file}: {error}') from None
  about = _About(**lists, task=content['task'], reading=pixels)
  lengths = tuple(map(len, about[:4]))
  channels = about.image_shape[-1] if about.image_shape else 0
  if lengths != (3, 2, channels, channels) or min(about.image_shape) < 1:
    raise UsageError(
      f'{file}: expected an image_shape [H, W, C], a network_size [H, W], and '
      f'C numbers as mean and std, got {list(about[:4])}'
    )
  return about


def _task(file: pathlib.Path, section: Any) -> Task:
  """Returns the task of a description.

  Raises:
    UsageError: it is not one of the library, whose name no file can choose to
      import.
  """
  name = section.get('name') if isinstance(section, Mapping) else section
  if not isinstance(name, str) or name not in TASKS:
    raise UsageError(
      f'{file}: expected a task of this library ({", ".join(TASKS)}), got '
      f'{name!r}; pass your own one: predictor(path, task=...)'
    )
  try:
    task: Task = parse(section, TASKS, 'task', TABLES).build({})
  except UsageError as error:
    raise UsageError(f'{file}: {error}') from None
  return task


def _preprocess(about: _About, task: Task) -> Augment:
  """Returns what evaluation does to raw images, see `recipes.preprocess`."""
  height, width = about.network_size
  steps = [
    augment.center(height, width),
    augment.standardize(about.mean, about.std),
    *([] if task.prepare is None else [task.prepare]),
  ]
  return augment.chain(*steps)
