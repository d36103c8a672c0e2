"""From a config to a plan; the only module that knows what configs hold."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import math
import os
import pathlib
import re
from typing import Any, NamedTuple
import zlib

import jax
import numpy as np

from jaxdistill import fast_cpu, recipes, sections
from jaxdistill.networks import files, pretrained, staged
from jaxdistill.networks import initial as initial_lib
from jaxdistill.tables import TABLES
from jaxdistill.types import (
  Augment,
  Carry,
  Dataset,
  Method,
  Model,
  Network,
  Task,
  UsageError,
)


class Row(NamedTuple):
  """One line of the final table: a method, run once for each seed.

  Attributes:
    label: its name.
    role: the model that it trains, 'student' or 'teacher'.
    method: the phases.
    seeds: of the runs.
    resolved: everything that its numbers depend on, as JSON.
  """

  label: str
  role: str
  method: Method
  seeds: tuple[int, ...]
  resolved: dict[str, Any]


class Plan(NamedTuple):
  """A checked config, ready to run.

  Attributes:
    dataset: the data.
    task: what its labels mean.
    preprocess: what evaluation does in place of augmentation.
    networks: role -> network of the models that are made new.
    teacher: a teacher read from a file, or None.
    initial: draws the student's kernels anew, or None.
    rows: what to train; the teacher comes first if it is to be trained.
    options: keyword arguments of `loop.Options`.
    config: what it was made from.
  """

  dataset: Dataset
  task: Task
  preprocess: Augment
  networks: dict[str, Network]
  teacher: Model | None
  initial: initial_lib.Scheme | None
  rows: tuple[Row, ...]
  options: dict[str, Any]
  config: Mapping[str, Any] = {}


def plan(config: Mapping[str, Any]) -> Plan:
  """Checks a config, loads its data and builds all it names.

  Raises:
    UsageError: anything wrong with it, before a file is written.
  """
  sections.check_keys(config, _plan, '')
  for key in ('data', 'student'):
    if key not in config:
      raise UsageError(f'the config needs the key {key!r}')
  made = _plan(**config)._replace(config=config)
  for row in made.rows:
    # The first phase's own checks: stages, shapes, class counts.
    carry = abstract_carry(made, row.role)
    with _of_row(row.label):
      row.method[0](carry)
  if made.teacher is not None:
    _check_file(made, made.teacher)
  return made


def initial_model(made: Plan, role: str, seed: int) -> Model:
  """A new model of a role; the same for every method of a seed.

  A student of its teacher's kind does not begin as the teacher did.
  """
  image = {'image': recipes.example(made.dataset, made.preprocess, 1)['image']}
  rng = jax.random.fold_in(jax.random.key(seed), 1 << 16)
  network = made.networks[role]
  if role == 'student' and _alike(made):
    rng = jax.random.fold_in(rng, 2)
  variables = staged.init(network, rng, image)
  if role == 'student' and made.initial is not None:
    variables = made.initial(jax.random.fold_in(rng, 1 << 16), variables)
  return Model(network, variables)


def _alike(made: Plan) -> bool:
  """Whether student and teacher have the same variables."""
  teacher = made.teacher
  network = teacher.network if teacher else made.networks.get('teacher')
  if network is None:
    return False
  ours = _shapes(made, 'student', made.networks['student'])
  return ours == _shapes(made, 'teacher', network)


def abstract_carry(made: Plan, role: str) -> Carry:
  """What a row's first phase gets, with shapes in place of variables."""
  roles = ('teacher',) if role == 'teacher' else ('teacher', 'student')
  carry: Carry = {}
  for name in roles:
    if name in made.networks:
      carry[name] = Model(
        made.networks[name], _shapes(made, name, made.networks[name])
      )
    elif made.teacher is not None and name == 'teacher':
      carry[name] = made.teacher
  return carry


def _shapes(made: Plan, role: str, network: Network) -> Any:
  """Shapes of a network's variables.

  Raises:
    UsageError: it cannot be built for the images.
  """
  image = recipes.example(made.dataset, made.preprocess, 1)['image']
  with _blaming(f'{role}: no such network for images {image.shape[1:]}'):
    return staged.variable_shapes(network, {'image': image})


def _network(
  section: sections.Section, role: str, context: Mapping[str, Any]
) -> Network:
  try:
    with _blaming(f'{role}: no such network'):
      return section.make(context)
  except UsageError as error:
    if str(error).startswith(role):
      raise
    raise UsageError(f'{role}: no such network ({error})') from error


def _try_network(section: sections.Section, role: str) -> None:
  """Refuses a network of the library before the data say how many classes."""
  if section.resolved['name'] in TABLES[role]:
    _network(section, role, {'num_classes': 10})


@contextlib.contextmanager
def _blaming(what: str) -> Iterator[None]:
  """Says of what wrong numbers make an error."""
  try:
    yield
  except UsageError:
    raise
  except (TypeError, ValueError, ArithmeticError) as error:
    reason = str(error).partition('\n')[0]
    raise UsageError(f'{what} ({reason})') from error


@contextlib.contextmanager
def _of_row(label: str) -> Iterator[None]:
  """Says which row the choice of the user is in."""
  try:
    yield
  except UsageError as error:
    about = '' if str(error).startswith(label) else f'{label}: '
    raise UsageError(f'{about}{error}') from error


def _check_file(made: Plan, teacher: Model) -> None:
  """Raises UsageError where a file's teacher does not fit network and data."""
  there, wanted = (
    {
      jax.tree_util.keystr(path, simple=True, separator='/'): x.shape
      for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    for tree in (teacher.variables, _shapes(made, 'teacher', teacher.network))
  )
  for key in sorted({*there, *wanted}):
    if there.get(key) != wanted.get(key):
      raise UsageError(
        f'teacher.checkpoint: {key} is {there.get(key, "missing")} there; the '
        f'network and the data want {wanted.get(key, "no such array")}'
      )


def _plan(
  data: Mapping[str, Any],
  student: Mapping[str, Any],
  teacher: Mapping[str, Any] | None = None,
  method: Mapping[str, Any] | None = None,
  methods: Mapping[str, Mapping[str, Any]] | None = None,
  task: Mapping[str, Any] | None = None,
  initial: Mapping[str, Any] | None = None,
  augment: Mapping[str, Any] | None = None,
  optimizer: Mapping[str, Any] | None = None,
  schedule: Mapping[str, Any] | None = None,
  subset: str = 'train',
  batch_size: int = 64,
  epochs: float = 240,
  seeds: int | Sequence[int] = 1,
  evaluate_every: int = 1,
  log_every: int = 50,
  checkpoint_seconds: float = 60.0,
  workers: int | None = None,
  steps_per_call: int | None = None,
) -> Plan:
  """`plan` with the config's keys as arguments; their defaults stand here."""
  # Names and keys are checked first: what follows may take long.
  data_section = _parse('data', data)
  task_section = _parse('task', {'name': 'classification', **(task or {})})
  student_section = _parse('student', student)
  scheme = None if initial is None else _parse('initial', initial)
  recipe = {
    'epochs': epochs,
    'batch_size': batch_size,
    'augment': {'name': 'none', **(augment or {})},
    'optimizer': {'name': 'sgd', **(optimizer or {})},
    'schedule': {'name': 'cosine', **(schedule or {})},
    'subset': subset,
  }
  drafts = _drafts(method, methods, recipe)
  taught = None if teacher is None else _Teacher.parse(teacher, recipe)
  seeds = _seeds(seeds)
  for key, number in (
    ('evaluate_every', evaluate_every),
    ('log_every', log_every),
    ('steps_per_call', 1 if steps_per_call is None else steps_per_call),
  ):
    _check_positive(number, key)
  made_task = task_section.make({})
  _parse('augment', recipe['augment']).make(_TRIAL)
  for draft in (*drafts.values(), *([] if taught is None else [taught.draft])):
    draft.training(_TRIAL)
  _try_network(student_section, 'student')
  if taught is not None and taught.network is not None:
    _try_network(taught.network, 'teacher')
  if workers is not None and workers < 0:
    raise UsageError(f'workers: {workers} is below 0')
  if not 0 <= checkpoint_seconds < math.inf:
    raise UsageError(
      f'checkpoint_seconds: {checkpoint_seconds} is no number of seconds'
    )

  dataset = data_section.make({})
  chosen = _parse('augment', recipe['augment']).make(_about(dataset))
  preprocess = recipes.preprocess(dataset, chosen)
  context = {'num_classes': dataset.num_classes}
  networks = {'student': _network(student_section, 'student', context)}
  about = {
    'data': {**data_section.resolved, 'checksum': _checksum(dataset)},
    'task': task_section.resolved,
    'evaluate_every': evaluate_every,  # the best epoch depends on it
    'fast_cpu': fast_cpu.active(),
  }
  rows, read = [], None
  if taught is not None:
    about['teacher'] = taught.resolved
    read = taught.read(context, dataset, preprocess)
    if read is None and taught.network is not None:
      networks['teacher'] = _network(taught.network, 'teacher', context)
      rows.append(
        taught.draft.row(
          'teacher', (taught.seed,), dataset, made_task, preprocess, about
        )
      )
  about['student'] = student_section.resolved
  if scheme is not None:
    about['initial'] = scheme.resolved
  for label, draft in drafts.items():
    rows.append(draft.row(label, seeds, dataset, made_task, preprocess, about))
  return Plan(
    dataset=dataset,
    task=made_task,
    preprocess=preprocess,
    networks=networks,
    teacher=read,
    initial=scheme and scheme.make({}),
    rows=tuple(rows),
    options={
      'evaluate_every': evaluate_every,
      'log_every': log_every,
      'checkpoint_seconds': checkpoint_seconds,
      'workers': workers,
      'steps_per_call': steps_per_call,
    },
  )


class _Draft(NamedTuple):
  """A checked method section and the sections of its recipe."""

  method: sections.Section
  recipe: dict[str, Any]

  @classmethod
  def parse(
    cls, section: Mapping[str, Any], recipe: Mapping[str, Any], where: str
  ) -> '_Draft':
    """The section's own keys of the recipe stand above the config's."""
    if not isinstance(section, Mapping):
      raise UsageError(
        f"{where}: wanted a section {{'name': ...}}, got {section!r}"
      )
    own = {k: v for k, v in section.items() if k in recipe}
    rest = {k: v for k, v in section.items() if k not in recipe}
    sections.check_keys(own, _plan, where)
    for key, value in own.items():
      if isinstance(value, Mapping) and 'name' not in value:
        own[key] = {**recipe[key], **value}
    merged = {**recipe, **own}
    for key in ('epochs', 'batch_size'):
      _check_positive(merged[key], key)
    parsed = {
      k: _parse(k, v, k if k not in own else f'{where}.{k}')
      if k in TABLES
      else v
      for k, v in merged.items()
    }
    return cls(_parse('method', rest, where, recipe), parsed)

  def row(
    self,
    label: str,
    seeds: tuple[int, ...],
    dataset: Dataset,
    task: Task,
    preprocess: Augment,
    about: Mapping[str, Any],
  ) -> Row:
    """Builds the method; `about` is what else its numbers depend on.

    Raises:
      UsageError: it trains on images of another size than it is evaluated on.
    """
    recipe = recipes.recipe(
      dataset,
      task,
      epochs=self.recipe['epochs'],
      batch_size=self.recipe['batch_size'],
      subset=self.recipe['subset'],
      **self.training(_about(dataset)),
    )
    trained, evaluated = (
      example['image'].shape[1:]
      for example in (recipe.example, recipes.example(dataset, preprocess, 1))
    )
    if trained != evaluated:
      raise UsageError(
        f'{label}: its augment makes images {trained}, and the augment of the '
        f'config {evaluated}, which all are evaluated on'
      )
    context = {'recipe': recipe, 'num_classes': dataset.num_classes}
    role = 'teacher' if label == 'teacher' else 'student'
    resolved = {**self.resolved(), **about}
    with _of_row(label):
      method = self.method.make(context)
    return Row(label, role, method, seeds, resolved)

  def training(self, about: Mapping[str, Any]) -> dict[str, Any]:
    """The augmentation and the optimiser; `about` is what `_about` says."""
    schedule = self.recipe['schedule'].make({})
    return {
      'augment': self.recipe['augment'].make(about),
      'optimizer': self.recipe['optimizer'].make({'schedule': schedule}),
    }

  def resolved(self) -> dict[str, Any]:
    recipe = {
      k: v.resolved if isinstance(v, sections.Section) else v
      for k, v in self.recipe.items()
    }
    method = self.method.resolved
    checksums = dict(_checksums(method, 'method'))
    about = {'checksums': checksums} if checksums else {}
    return {**recipe, 'method': method, **about}


class _Teacher(NamedTuple):
  """A checked teacher section.

  Attributes:
    network: what to build; None: the file says what it is.
    file: where a trained one is; None: it is to be trained.
    foreign: whether the file is one of PyTorch tensors.
    draft: how it is trained.
    seed: of the training.
  """

  network: sections.Section | None
  file: pathlib.Path | None
  foreign: bool
  draft: _Draft
  seed: int

  @classmethod
  def parse(
    cls, section: Mapping[str, Any], recipe: Mapping[str, Any]
  ) -> '_Teacher':
    """Of {'name': ..., 'training': {...}}, or with a file.

    'checkpoint' is a file of ours, 'weights' one of PyTorch tensors.
    """
    if not isinstance(section, Mapping):
      raise UsageError(f'teacher: wanted a section, got {section!r}')
    own = ('checkpoint', 'weights', 'training')
    rest = {k: v for k, v in section.items() if k not in own}
    training = section.get('training', {})
    if not isinstance(training, Mapping):
      raise UsageError(f'teacher.training: wanted keys, got {training!r}')
    training = dict(training)
    (seed,) = _seeds([training.pop('seed', 0)], 'teacher.training.seed')
    for key in training:
      if key not in recipe:
        raise staged.unknown('key of teacher.training', key, [*recipe, 'seed'])
    draft = _Draft.parse(
      {'name': 'supervised', **training, 'student': 'teacher'},
      recipe,
      'teacher.training',
    )
    if 'weights' in section and 'checkpoint' in section:
      raise UsageError('teacher: has both weights and checkpoint; give one')
    key = 'weights' if 'weights' in section else 'checkpoint'
    file = None
    if key in section:
      file = pathlib.Path(os.path.expanduser(str(section[key])))
      file = file / 'teacher.safetensors' if file.is_dir() else file
      if not file.exists():
        raise UsageError(f'teacher.{key}: no file {str(file)!r}')
    named = bool(rest) or file is None or key == 'weights'
    network = _parse('teacher', rest) if named else None
    return cls(network, file, key == 'weights', draft, seed)

  def read(
    self, context: Mapping[str, Any], dataset: Dataset, preprocess: Augment
  ) -> Model | None:
    if self.file is None:
      return None
    network = None
    if self.network is not None:
      network = _network(self.network, 'teacher', context)
    if network is None or not self.foreign:
      return files.load(self.file, network)
    image = recipes.example(dataset, preprocess, 1)['image']
    variables = pretrained.load(self.file, network, {'image': image})
    return Model(network, variables)

  @property
  def resolved(self) -> dict[str, Any]:
    network = {} if self.network is None else self.network.resolved
    if self.file is not None:
      checksum = zlib.crc32(self.file.read_bytes())
      key = 'weights' if self.foreign else 'checkpoint'
      return {**network, key: str(self.file), 'checksum': checksum}
    return {**network, 'training': self.draft.resolved(), 'seed': self.seed}


# In place of what the data says, to try sections before it is read.
_TRIAL = {'num_classes': 10, 'mean': (0.0,)}


def _about(dataset: Dataset) -> dict[str, Any]:
  """What augmentation wants to know of the data."""
  return {'num_classes': dataset.num_classes, 'mean': dataset.mean}


def _checksum(dataset: Dataset) -> int:
  """Of all labels, and of 64 images of each split."""
  checksum = 0
  for name, split in sorted(dataset.splits.items()):
    rows = np.linspace(0, len(split['label']) - 1, 64).astype(int)
    for array in (split['label'], split['index'], split['image'][rows]):
      content = np.ascontiguousarray(array).tobytes()
      checksum = zlib.crc32(content, zlib.crc32(name.encode(), checksum))
  return checksum


def _checksums(value: Any, where: str) -> Iterator[tuple[str, int]]:
  """Of the JSON files that a section names, such as a process."""
  if isinstance(value, Mapping):
    for key, below in value.items():
      yield from _checksums(below, f'{where}.{key}')
  elif isinstance(value, str) and value.endswith('.json'):
    path = pathlib.Path(value).expanduser()
    if path.is_file():
      yield where, zlib.crc32(path.read_bytes())


def _drafts(
  method: Mapping[str, Any] | None,
  methods: Mapping[str, Mapping[str, Any]] | None,
  recipe: Mapping[str, Any],
) -> dict[str, _Draft]:
  """Row label -> its checked sections."""
  if (method is None) == (methods is None):
    raise UsageError("the config needs 'method' or 'methods', and not both")
  if method is not None:
    draft = _Draft.parse(method, recipe, 'method')
    return {draft.method.resolved['name']: draft}
  drafts = {
    str(label): _Draft.parse(section, recipe, f'methods.{label}')
    for label, section in (methods or {}).items()
  }
  if not drafts:
    raise UsageError('methods: wanted at least one row')
  folders = {'teacher': "the teacher's"}
  for label in drafts:
    folder = slug(label)
    if not folder.strip('.-') or len(folder) > 100:
      raise UsageError(f'methods: {label!r} is no label of a row')
    if folder in folders:
      raise UsageError(
        f'methods: the row {label!r} would share its folder with '
        f'{folders[folder]}; choose another label'
      )
    folders[folder] = repr(label)
  return drafts


def slug(label: str) -> str:
  """A row's label as a file name."""
  return re.sub(r'[^\w.-]+', '-', label)


def _seeds(seeds: int | Sequence[int], where: str = 'seeds') -> tuple[int, ...]:
  chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
  fine = all(type(s) is int and 0 <= s < 1 << 32 for s in chosen)
  if not chosen or not fine or len(set(chosen)) < len(chosen):
    raise UsageError(
      f'{where}: {seeds!r} is no count or list of different seeds from 0'
    )
  return chosen


def _check_positive(number: float, where: str) -> None:
  if not 0 < number < math.inf:
    raise UsageError(f'{where}: {number!r} is no number above 0')


def _parse(
  key: str,
  section: Any,
  where: str | None = None,
  also: Iterable[str] = (),
) -> sections.Section:
  table = TABLES[key]
  return sections.parse(section, table, where or key, TABLES, ('recipe',), also)
