"""From a config to a plan; the only module that knows what configs hold."""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any, NamedTuple
import zlib

import jax

from jaxdistill import optimizers, sections
from jaxdistill.data import augment as augment_lib
from jaxdistill.data import batches, digits, npz
from jaxdistill.methods import joint
from jaxdistill.networks import NETWORKS, files, staged
from jaxdistill.tasks import classification
from jaxdistill.types import (
  Augment,
  Carry,
  Dataset,
  Method,
  Model,
  Network,
  Recipe,
  Stream,
  Task,
  UsageError,
)

DATASETS: sections.Table = {'digits': digits.digits, 'npz': npz.npz}
AUGMENTS: sections.Table = {
  'none': augment_lib.none,
  'crop_flip': augment_lib.crop_flip,
}
TASKS: sections.Table = {'classification': classification.classification}
OPTIMIZERS: sections.Table = {'sgd': optimizers.sgd, 'adamw': optimizers.adamw}
SCHEDULES: sections.Table = {
  'cosine': optimizers.cosine,
  'linear': optimizers.linear,
  'step': optimizers.step,
  'constant': optimizers.constant,
  'plateau': optimizers.plateau,
}
METHODS: sections.Table = {'supervised': joint.supervised, 'kd': joint.kd}
# Key -> what the names of a section under that key mean.
TABLES: dict[str, sections.Table] = {
  'data': DATASETS,
  'augment': AUGMENTS,
  'task': TASKS,
  'optimizer': OPTIMIZERS,
  'schedule': SCHEDULES,
  'student': NETWORKS,
  'teacher': NETWORKS,
  'method': METHODS,
}


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
    preprocess: the standardisation that evaluation uses.
    networks: role -> network of the models that are made new.
    teacher: a teacher read from a file, or None.
    rows: what to train; the teacher comes first if it is to be trained.
    options: keyword arguments of `loop.Options`.
  """

  dataset: Dataset
  task: Task
  preprocess: Augment
  networks: dict[str, Network]
  teacher: Model | None
  rows: tuple[Row, ...]
  options: dict[str, Any]


def plan(config: Mapping[str, Any]) -> Plan:
  """Checks a config, loads its data and builds all it names.

  Raises:
    UsageError: anything wrong with it, before a file is written.
  """
  sections.check_keys(config, _plan, '')
  for key in ('data', 'student'):
    if key not in config:
      raise UsageError(f'the config needs the key {key!r}')
  made = _plan(**config)
  for row in made.rows:
    # The first phase's own checks: stages, shapes, class counts.
    row.method[0](abstract_carry(made, row.role))
  return made


def initial_model(made: Plan, role: str, seed: int) -> Model:
  """A new model of a role; the same for every method of a seed."""
  image = {'image': example_of(made.dataset, made.preprocess, 1)['image']}
  rng = jax.random.fold_in(jax.random.key(seed), 1 << 16)
  network = made.networks[role]
  return Model(network, staged.init(network, rng, image))


def abstract_carry(made: Plan, role: str) -> Carry:
  """What a row's first phase gets, with shapes in place of variables."""
  roles = ('teacher',) if role == 'teacher' else ('teacher', 'student')
  carry: Carry = {}
  for name in roles:
    if name in made.networks:
      shapes = jax.eval_shape(
        lambda n=name: initial_model(made, n, 0).variables
      )
      carry[name] = Model(made.networks[name], shapes)
    elif made.teacher is not None and name == 'teacher':
      carry[name] = made.teacher
  return carry


def example_of(
  dataset: Dataset, augment: Augment, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of an augmented training batch."""
  batch = {
    k: jax.ShapeDtypeStruct((batch_size, *v.shape[1:]), v.dtype)
    for k, v in dataset.splits['train'].items()
  }
  return jax.eval_shape(augment, jax.random.key(0), batch)


def _plan(
  data: Mapping[str, Any],
  student: Mapping[str, Any],
  teacher: Mapping[str, Any] | None = None,
  method: Mapping[str, Any] | None = None,
  methods: Mapping[str, Mapping[str, Any]] | None = None,
  task: Mapping[str, Any] | None = None,
  augment: Mapping[str, Any] | None = None,
  optimizer: Mapping[str, Any] | None = None,
  schedule: Mapping[str, Any] | None = None,
  batch_size: int = 64,
  epochs: float = 240,
  seeds: int | Sequence[int] = 1,
  evaluate_every: int = 1,
  log_every: int = 50,
  checkpoint_seconds: float = 60.0,
) -> Plan:
  """`plan` with the config's keys as arguments; their defaults stand here."""
  # Names and keys are checked first: what follows may take long.
  data_section = _parse('data', data)
  task_section = _parse('task', task or {'name': 'classification'})
  student_section = _parse('student', student)
  recipe = {
    'epochs': epochs,
    'batch_size': batch_size,
    'augment': augment or {'name': 'none'},
    'optimizer': optimizer or {'name': 'sgd'},
    'schedule': schedule or {'name': 'cosine'},
  }
  drafts = _drafts(method, methods, recipe)
  taught = None if teacher is None else _Teacher.parse(teacher, recipe)
  seeds = _seeds(seeds)

  dataset = data_section.make({})
  made_task = task_section.make({})
  context = {'num_classes': dataset.num_classes}
  networks = {'student': student_section.make(context)}
  about = {'data': data_section.resolved, 'task': task_section.resolved}
  rows, read = [], None
  if taught is not None:
    about['teacher'] = taught.resolved
    read = taught.read(context)
    if read is None and taught.network is not None:
      networks['teacher'] = taught.network.make(context)
      rows.append(
        taught.draft.row('teacher', (taught.seed,), dataset, made_task, about)
      )
  about['student'] = student_section.resolved
  for label, draft in drafts.items():
    rows.append(draft.row(label, seeds, dataset, made_task, about))
  return Plan(
    dataset=dataset,
    task=made_task,
    preprocess=augment_lib.standardize(dataset.mean, dataset.std),
    networks=networks,
    teacher=read,
    rows=tuple(rows),
    options={
      'evaluate_every': evaluate_every,
      'log_every': log_every,
      'checkpoint_seconds': checkpoint_seconds,
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
    own = {k: v for k, v in section.items() if k in recipe}
    rest = {k: v for k, v in section.items() if k not in recipe}
    merged = {**recipe, **own}
    for key in ('epochs', 'batch_size'):
      number = merged[key]
      if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or number <= 0
      ):
        raise UsageError(f'{key}: {number!r} is no number above 0')
    parsed = {
      k: _parse(k, v, k if k not in own else f'{where}.{k}')
      if k in TABLES
      else v
      for k, v in merged.items()
    }
    return cls(_parse('method', rest, where), parsed)

  def row(
    self,
    label: str,
    seeds: tuple[int, ...],
    dataset: Dataset,
    task: Task,
    about: Mapping[str, Any],
  ) -> Row:
    """Builds the method; `about` is what else its numbers depend on."""
    batch_size = self.recipe['batch_size']
    augment = augment_lib.chain(
      self.recipe['augment'].make({}),
      augment_lib.standardize(dataset.mean, dataset.std),
    )
    schedule = self.recipe['schedule'].make({})
    train_size = len(dataset.splits['train']['label'])
    recipe = Recipe(
      epochs=self.recipe['epochs'],
      steps_per_epoch=batches.steps_per_epoch(train_size, batch_size),
      optimizer=self.recipe['optimizer'].make({'schedule': schedule}),
      stream=Stream(batch_size, augment),
      task=task,
      example=example_of(dataset, augment, batch_size),
    )
    context = {'recipe': recipe, 'num_classes': dataset.num_classes}
    role = 'teacher' if label == 'teacher' else 'student'
    resolved = {**self.resolved(), **about}
    return Row(label, role, self.method.make(context), seeds, resolved)

  def resolved(self) -> dict[str, Any]:
    recipe = {
      k: v.resolved if isinstance(v, sections.Section) else v
      for k, v in self.recipe.items()
    }
    return {**recipe, 'method': self.method.resolved}


class _Teacher(NamedTuple):
  """A checked teacher section.

  Attributes:
    network: what to build; None: the file says what it is.
    file: where a trained one is; None: it is to be trained.
    draft: how it is trained.
    seed: of the training.
  """

  network: sections.Section | None
  file: pathlib.Path | None
  draft: _Draft
  seed: int

  @classmethod
  def parse(
    cls, section: Mapping[str, Any], recipe: Mapping[str, Any]
  ) -> '_Teacher':
    """Of {'name': ..., 'training': {...}}, or with 'checkpoint': a file."""
    if not isinstance(section, Mapping):
      raise UsageError(f'teacher: wanted a section, got {section!r}')
    own = ('checkpoint', 'training')
    rest = {k: v for k, v in section.items() if k not in own}
    training = dict(section.get('training', {}))
    seed = training.pop('seed', 0)
    for key in training:
      if key not in recipe:
        raise staged.unknown('key of teacher.training', key, [*recipe, 'seed'])
    draft = _Draft.parse(
      {'name': 'supervised', **training, 'student': 'teacher'},
      recipe,
      'teacher.training',
    )
    file = None
    if 'checkpoint' in section:
      file = pathlib.Path(os.path.expanduser(section['checkpoint']))
      file = file / 'teacher.safetensors' if file.is_dir() else file
      if not file.exists():
        raise UsageError(f'teacher.checkpoint: no file {str(file)!r}')
    network = None if file and not rest else _parse('teacher', rest)
    return cls(network, file, draft, seed)

  def read(self, context: Mapping[str, Any]) -> Model | None:
    if self.file is None:
      return None
    network = None if self.network is None else self.network.make(context)
    return files.load(self.file, network)

  @property
  def resolved(self) -> dict[str, Any]:
    network = {} if self.network is None else self.network.resolved
    if self.file is not None:
      checksum = zlib.crc32(self.file.read_bytes())
      return {**network, 'checkpoint': str(self.file), 'checksum': checksum}
    return {**network, 'training': self.draft.resolved(), 'seed': self.seed}


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
    label: _Draft.parse(section, recipe, f'methods.{label}')
    for label, section in (methods or {}).items()
  }
  if not drafts or 'teacher' in drafts:
    raise UsageError("methods: wanted at least one row, none named 'teacher'")
  return drafts


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
  chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
  if not chosen or len(set(chosen)) < len(chosen):
    raise UsageError(f'seeds: {seeds!r} is no count or list of different seeds')
  return chosen


def _parse(
  key: str, section: Any, where: str | None = None
) -> sections.Section:
  return sections.parse(section, TABLES[key], where or key, TABLES, ('recipe',))
