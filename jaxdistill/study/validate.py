"""Step 2 of a study: all that can be refused before the data are read."""

from collections.abc import Iterable, Mapping
import pathlib
from typing import Any, get_args

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Augment,
  Dataset,
  Method,
  Network,
  Task,
)
from jaxdistill.networks.initial import Scheme
from jaxdistill.networks.weights import hub, huggingface
from jaxdistill.optimizers import Optimizer, Schedule
from jaxdistill.study import models, settings, sweeps, values
from jaxdistill.study.drafts import (
  Draft,
  Role,
  RowDraft,
  TeacherDraft,
  Training,
)
from jaxdistill.study.labels import slug
from jaxdistill.study.parse import Section, parse
from jaxdistill.study.registry import TABLES
from jaxdistill.study.settings import RawSection, Settings
from jaxdistill.training.trackers import Tracker

# Stands in for what only the data say, to try functions before data are read.
TRIAL_CONTEXT: dict[str, Any] = {'num_classes': 10, 'mean': (0.0,)}
TEACHER_LABEL = 'teacher'
# The keys of the teacher's section that are not arguments of its network.
TEACHER_KEYS = ('checkpoint', 'weights', 'initial', 'training', 'image_size')
# Type -> what the function of a section gets besides its own keys.
_CONTEXT: dict[Any, tuple[str, ...]] = {
  Augment: tuple(TRIAL_CONTEXT),
  Network: ('num_classes',),
  Optimizer: ('schedule',),
  Method: ('recipe', 'num_classes'),
}


def validate(config: Settings) -> Draft:
  """Parses all sections of a config and builds what needs no data.

  Args:
    config: the keys of the config.

  Raises:
    UsageError: a name, key or value is invalid.
  """
  data = _parse(Dataset, config.data, 'data')
  task = _parse(Task, settings.with_default_name('task', config.task), 'task')
  student = _parse(Network, config.student, 'student')
  initial = None
  if config.initial is not None:
    initial = _initial(config.initial, 'initial')
  training = _training(config)
  seeds = settings.check_seeds('seeds', config.seeds)
  rows = _rows(config, training, seeds)
  teacher = None
  if config.teacher is not None:
    teacher = _any_teacher(config.teacher, training)
  built_task: Task = task.build({})
  if built_task.reads_teacher and (teacher is None or not teacher.is_trained):
    raise UsageError(
      f'teacher: expected a trained teacher for the task {built_task.name!r}, '
      'which reads its outputs; set teacher.checkpoint or teacher.weights'
    )
  trackers = [
    _parse(Tracker, section, f'trackers.{i}')
    for i, section in enumerate(config.trackers)
  ]
  _try_augment(training.augment)
  _try_network(student, 'student')
  return Draft(
    settings=config,
    data=data,
    task=built_task,
    task_section=task,
    student=student,
    teacher=teacher,
    initial=initial,
    training=training,
    rows=rows,
    trackers=tuple(tracker.build({}) for tracker in trackers),
  )


def _parse(
  kind: Any, section: Any, where: str, siblings: tuple[str, ...] = ()
) -> Section:
  """Parses a section that stands for a value of the type `kind`."""
  context = _CONTEXT.get(kind, ())
  return parse(
    section, TABLES[kind], where, TABLES, context=context, siblings=siblings
  )


def _training(config: Settings) -> Training:
  """Parses the keys of a recipe that hold for every row."""
  named = ('augment', 'optimizer', 'schedule')
  raw = {key: getattr(config, key) for key in settings.RECIPE_KEYS}
  raw |= {key: settings.with_default_name(key, raw[key]) for key in named}
  return Training(
    raw=raw,
    epochs=config.epochs,
    batch_size=config.batch_size,
    subset=config.subset,
    augment=_parse(Augment, raw['augment'], 'augment'),
    optimizer=_parse(Optimizer, raw['optimizer'], 'optimizer'),
    schedule=_parse(Schedule, raw['schedule'], 'schedule'),
  )


def _changed(
  training: Training, changes: Mapping[str, Any], where: str
) -> Training:
  """Returns a recipe with some keys changed by a row.

  A section without a name changes keys of the config's section; one with a name
  replaces it.

  Args:
    training: the keys that hold for every row.
    changes: the keys of the row, all of them keys of a recipe.
    where: the place of the row in the config.
  """
  values.check_keys(changes, settings.RECIPE_FIELDS, where)
  settings.check_recipe_numbers(changes, f'{where}.')
  raw = dict(training.raw)
  fields: dict[str, Any] = {}
  kinds = {'augment': Augment, 'optimizer': Optimizer, 'schedule': Schedule}
  for key, value in changes.items():
    if isinstance(value, Mapping) and 'name' not in value:
      value = {**raw[key], **value}
    raw[key] = value
    fields[key] = (
      _parse(kinds[key], value, f'{where}.{key}') if key in kinds else value
    )
  return training._replace(raw=raw, **fields)


def _rows(
  config: Settings, training: Training, seeds: tuple[int, ...]
) -> tuple[RowDraft, ...]:
  """Validates the rows, and that each has a folder of its own."""
  if config.method is not None:
    return _row_or_trials(None, config.method, training, seeds, 'method')
  if not config.methods:
    raise UsageError('methods: expected at least one row')
  rows = tuple(
    row
    for label, section in config.methods.items()
    for row in _row_or_trials(
      str(label), section, training, seeds, f'methods.{label}'
    )
  )
  _check_folders(rows)
  return rows


def _check_folders(rows: Iterable[RowDraft]) -> None:
  """Checks that the label of each row gives it a folder of its own."""
  folders = {slug(TEACHER_LABEL): "the teacher's"}
  for label in (row.label for row in rows):
    # Some disks do not distinguish upper and lower case.
    folder = slug(label).casefold()
    if not folder.strip('.-') or len(folder) > 100:
      raise UsageError(
        f'methods: {label!r} is not a valid label: it needs a letter or a '
        'digit, and at most 100 characters'
      )
    if folder in folders:
      raise UsageError(
        f'methods: the row {label!r} would share its folder with '
        f'{folders[folder]}; choose another label'
      )
    folders[folder] = repr(label)


def _row_or_trials(
  label: str | None,
  section: Any,
  training: Training,
  seeds: tuple[int, ...],
  where: str,
) -> tuple[RowDraft, ...]:
  """Validates a row, or each trial of a row with a sweep.

  Args:
    label: the label of the row; None stands for the name of its method.
    section: the section of the row.
    training: the keys of a recipe that hold for every row.
    seeds: the seeds of the row.
    where: the place of the row in the config.
  """
  if not isinstance(section, Mapping) or 'sweep' not in section:
    row = _row(label or '', 'student', section, training, seeds, where)
    name = row.method.resolved['name'] if label is None else label
    return (row._replace(label=name),)
  name = str(section.get('name')) if label is None else label
  return tuple(
    _row(trial_label, 'student', changed, training, seeds[:1], where)._replace(
      trial=trial
    )
    for trial_label, changed, trial in sweeps.trials(
      name, section, seeds, where
    )
  )


def _row(
  label: str,
  role: Role,
  section: RawSection,
  training: Training,
  seeds: tuple[int, ...],
  where: str,
) -> RowDraft:
  """Validates a row: its method, and the keys of the recipe that it changes."""
  recipe_keys = settings.RECIPE_KEYS
  changes = {k: v for k, v in section.items() if k in recipe_keys}
  arguments = {k: v for k, v in section.items() if k not in recipe_keys}
  method = _parse(Method, arguments, where, siblings=(*recipe_keys, 'sweep'))
  _check_roles(method, role, where)
  row_training = _changed(training, changes, where)
  if 'augment' in changes:
    _try_augment(row_training.augment)
  optimizer = row_training.optimizer.build(
    {'schedule': row_training.schedule.build({})}
  )
  return RowDraft(label, role, seeds, method, row_training, optimizer)


def _check_roles(method: Section, role: Role, where: str) -> None:
  """Checks that the student is the model of the row, and the teacher is not.

  A model that is its own teacher learns nothing from it, and the results would
  not show why.
  """
  # A method of the user's may mean something else by these keys.
  roles = method.resolved
  student = roles.get('student', role)
  if student != role and student in get_args(Role):
    raise UsageError(
      f'{where}.student: expected {role!r}, the model of this row, got '
      f'{student!r}'
    )
  for key in ('teacher', 'peer'):
    if roles.get(key) == role:
      raise UsageError(
        f'{where}: expected a {key} other than the student, got the model '
        f'{role!r} for both in the method {roles["name"]!r}'
      )


def _any_teacher(section: RawSection, training: Training) -> TeacherDraft:
  """Validates a teacher, or {'joined': [...]} with one or several of them."""
  if 'joined' not in section:
    return _teacher(section, training)
  sections = section['joined']
  others = [key for key in section if key != 'joined']
  if others:
    raise UsageError(f"teacher: expected no {others[0]!r} beside 'joined'")
  is_list = isinstance(sections, (list, tuple))
  if not is_list or not sections:
    raise UsageError(
      'teacher.joined: expected a list of sections of teachers, '
      f'got {sections!r}'
    )
  joined = {}
  for i, part in enumerate(sections):
    if not isinstance(part, Mapping) or not {'checkpoint', 'weights'} & {*part}:
      raise UsageError(
        'teacher.joined: expected a section with checkpoint or weights, got '
        f'{part!r}'
      )
    joined[f'teacher{i + 1}'] = _teacher(part, training)
  row = _teacher_row({}, training)
  return TeacherDraft(None, None, False, row, joined=joined)


def _teacher(section: RawSection, training: Training) -> TeacherDraft:
  """Validates {'name': ..., 'training': {...}}, or a section with a file.

  'checkpoint' names a file of this library or a work directory, 'weights' a
  file of PyTorch tensors, or a folder or a name of a pretrained model.
  """
  if 'weights' in section and 'checkpoint' in section:
    raise UsageError('teacher: expected weights or checkpoint, got both')
  row = _teacher_row(section.get('training', {}), training)
  is_torch = 'weights' in section
  arguments = {k: v for k, v in section.items() if k not in TEACHER_KEYS}
  file = folder = network = None
  if is_torch and not arguments:
    folder = _pretrained_folder(str(section['weights']))
  if folder is not None:
    file = huggingface.weights_file(folder)
  elif is_torch or 'checkpoint' in section:
    file = _teacher_file(section, 'weights' if is_torch else 'checkpoint')
  if folder is None and (arguments or file is None or is_torch):
    network = _parse(Network, arguments, 'teacher', siblings=TEACHER_KEYS)
    _try_network(network, 'teacher')
  size = _teacher_image_size(section, file)
  check_training(section)
  initial = None
  if 'initial' in section:
    initial = _initial(section['initial'], 'teacher.initial')
  return TeacherDraft(network, file, is_torch, row, folder, size, initial)


def _pretrained_folder(weights: str) -> pathlib.Path | None:
  """Returns the folder of a pretrained model; None if it is another file."""
  if not weights.startswith(hub.PREFIX) and not pathlib.Path(weights).is_dir():
    return None
  return hub.folder(weights)


def _teacher_image_size(section: RawSection, file: pathlib.Path | None) -> int:
  """Returns the size to which a teacher from a file resizes its images."""
  if 'image_size' not in section:
    return 0
  if file is None:
    raise UsageError(
      'teacher.image_size: expected weights or checkpoint with it, because a '
      'teacher that is trained gets the images of the data'
    )
  return checks.integer(
    'teacher.image_size', section['image_size'], at_most=10_000
  )


def check_training(section: RawSection) -> None:
  """Checks that a teacher with `initial` weights is trained from them.

  Raises:
    UsageError: the section also names a file of a trained teacher.
  """
  if 'initial' in section and {'checkpoint', 'weights'} & section.keys():
    raise UsageError(
      'teacher.initial: expected a teacher with training, got one with '
      'weights or checkpoint'
    )


def _initial(section: Any, where: str) -> Section:
  """Validates initial weights, and builds them once to check their values."""
  initial = _parse(Scheme, section, where)
  initial.build({})
  return initial


def _teacher_row(keys: Any, training: Training) -> RowDraft:
  """Validates how the teacher is trained: on the labels, with one seed.

  The method is 'supervised' by default.
  """
  where = 'teacher.training'
  fields = {**settings.RECIPE_FIELDS, 'seed': int, 'method': RawSection}
  keys = values.check_keys(keys, fields, where)
  (seed,) = settings.check_seeds(f'{where}.seed', [keys.pop('seed', 0)])
  method = keys.pop('method', {'name': 'supervised'})
  section = {'student': 'teacher', **method, **keys}
  return _row(TEACHER_LABEL, 'teacher', section, training, (seed,), where)


def _teacher_file(section: RawSection, key: str) -> pathlib.Path:
  """Returns the file of a trained teacher."""
  file = pathlib.Path(str(section[key])).expanduser()
  if file.is_dir():
    file = file / 'teacher.safetensors'
  if not file.exists():
    raise UsageError(f'teacher.{key}: no file {str(file)!r}')
  return file


def _try_augment(section: Section) -> None:
  """Builds an augmentation without data, so that a wrong number is refused."""
  section.build(TRIAL_CONTEXT)


def _try_network(section: Section, role: Role) -> None:
  """Builds a network of the library without data, for the same reason.

  A user's own function may depend on the number of classes in its own way.
  """
  if section.resolved['name'] in TABLES[Network]:
    models.build_network(section, role, TRIAL_CONTEXT['num_classes'])
