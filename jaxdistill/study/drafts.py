"""The types between the steps of a study: a config that has been validated."""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any, Literal, NamedTuple
import zlib

from jaxdistill.core.types import Task
from jaxdistill.networks.weights import huggingface
from jaxdistill.optimizers import Optimizer
from jaxdistill.study.parse import Section
from jaxdistill.study.settings import Settings
from jaxdistill.study.sweeps import Trial
from jaxdistill.training.trackers import Tracker

Role = Literal['student', 'teacher']


class Training(NamedTuple):
  """The validated keys of a recipe.

  Attributes:
    raw: the keys as the config has them, with default names.
    epochs: passes over the subset.
    batch_size: the number of examples in a batch.
    subset: the split to train on.
    augment: still to be built, because it depends on the data set.
    optimizer: the section.
    schedule: the section.
  """

  raw: Mapping[str, Any]
  epochs: float
  batch_size: int
  subset: str
  augment: Section
  optimizer: Section
  schedule: Section

  @property
  def resolved(self) -> dict[str, Any]:
    """Every key with its defaults, as JSON."""
    return {
      'epochs': self.epochs,
      'batch_size': self.batch_size,
      'augment': self.augment.resolved,
      'optimizer': self.optimizer.resolved,
      'schedule': self.schedule.resolved,
      'subset': self.subset,
    }


class RowDraft(NamedTuple):
  """A validated row, whose method is still to be built.

  Attributes:
    label: the name of the row.
    role: the model that the row trains.
    seeds: the seeds of its runs.
    method: the section.
    training: the keys of its recipe.
    optimizer: the optimizer of its recipe.
    trial: the values that a sweep tries in this row; None outside a sweep.
  """

  label: str
  role: Role
  seeds: tuple[int, ...]
  method: Section
  training: Training
  optimizer: Optimizer
  trial: Trial | None = None

  @property
  def resolved(self) -> dict[str, Any]:
    """Every key of the row with its defaults, as JSON."""
    method = self.method.resolved
    checksums = dict(_file_checksums(method, 'method'))
    return {
      **self.training.resolved,
      'method': method,
      **({'checksums': checksums} if checksums else {}),
    }


class TeacherDraft(NamedTuple):
  """A validated teacher.

  Attributes:
    network: what to build; None if the file says what it is.
    file: the file of a trained teacher; None if it has yet to be trained.
    is_torch: whether the file holds PyTorch tensors.
    row: how the teacher is trained if there is no file.
    folder: the folder of a pretrained model, whose config.json says what its
      network is; None if the file is not in such a folder.
    image_size: the height and width to which the teacher resizes its images; 0:
      it gets them as they are.
    initial: the section of its initial weights, if it is trained.
    joined: name -> one of the teachers whose vectors are standardised and
      joined; empty for a teacher whose outputs are used as they are.
  """

  network: Section | None
  file: pathlib.Path | None
  is_torch: bool
  row: RowDraft
  folder: pathlib.Path | None = None
  image_size: int = 0
  initial: Section | None = None
  joined: Mapping[str, Any] = {}

  @property
  def is_trained(self) -> bool:
    """Whether files hold the teacher."""
    return self.file is not None or bool(self.joined)

  @property
  def resolved(self) -> dict[str, Any]:
    """What the numbers of a row depend on, as JSON."""
    if self.joined:
      return {name: part.resolved for name, part in self.joined.items()}
    network = {} if self.network is None else self.network.resolved
    if self.file is not None:
      checksum = 0
      for file in self._files():
        checksum = zlib.crc32(file.read_bytes(), checksum)
      key = 'weights' if self.is_torch else 'checkpoint'
      size = {'image_size': self.image_size} if self.image_size else {}
      return {**network, key: str(self.file), 'checksum': checksum, **size}
    (seed,) = self.row.seeds
    return {
      **network,
      **resolved_initial(self.initial),
      'training': self.row.resolved,
      'seed': seed,
    }

  def _files(self) -> Iterator[pathlib.Path]:
    """Yields the files that a teacher from a file depends on."""
    if self.file is not None:
      yield self.file
    places = []
    network = {} if self.network is None else self.network.resolved
    if network.get('name') == 'program':  # the other file holds its variables
      places.append(pathlib.Path(network['path']).expanduser())
    if self.folder is not None:
      places += [self.folder / name for name in huggingface.DESCRIPTIONS]
    yield from (place for place in places if place.is_file())


class Draft(NamedTuple):
  """A validated config, before its data are read.

  Attributes:
    settings: the keys of the config.
    data: the section of the data set.
    task: what the labels mean.
    task_section: the section of the task.
    student: the section of the student's network.
    teacher: the teacher, if there is one.
    initial: the section of the student's initial weights.
    training: the keys of a recipe that hold for every row.
    rows: the rows of the config, without the teacher's.
    trackers: services that get the numbers of the log.
  """

  settings: Settings
  data: Section
  task: Task
  task_section: Section
  student: Section
  teacher: TeacherDraft | None
  initial: Section | None
  training: Training
  rows: tuple[RowDraft, ...]
  trackers: tuple[Tracker, ...] = ()


def resolved_initial(section: Section | None) -> dict[str, Any]:
  """Returns a section of initial weights in the form in which it is recorded.

  Args:
    section: the section; None: the network draws its own weights.

  Returns:
    {'initial': its keys, with the checksum of the file that it names}.
  """
  if section is None:
    return {}
  file = pathlib.Path(str(section.resolved.get('path', ''))).expanduser()
  has_file = file.is_file()
  checksum = {'checksum': zlib.crc32(file.read_bytes())} if has_file else {}
  return {'initial': {**section.resolved, **checksum}}


def _file_checksums(value: Any, where: str) -> Iterator[tuple[str, int]]:
  """Yields the checksums of the JSON files that a section names."""
  if isinstance(value, Mapping):
    for key, part in value.items():
      yield from _file_checksums(part, f'{where}.{key}')
  elif isinstance(value, (list, tuple)):
    for i, part in enumerate(value):
      if isinstance(part, Mapping):  # a section in a sequence of sections
        yield from _file_checksums(part, f'{where}.{i}')
  elif isinstance(value, str) and value.endswith('.json'):
    path = pathlib.Path(value).expanduser()
    if path.is_file():
      yield where, zlib.crc32(path.read_bytes())
