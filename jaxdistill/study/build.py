"""Step 4 of a study: networks, recipes and methods are built into a plan."""

from collections.abc import Iterator, Mapping
import contextlib
from typing import Any

from jaxdistill.core import cpu
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Augment, Dataset, Method, Network, Recipe
from jaxdistill.data.transforms import views as views_lib
from jaxdistill.networks.initial import Scheme
from jaxdistill.phases import recipes
from jaxdistill.study import config as config_lib
from jaxdistill.study import (
  drafts,
  load,
  measurements,
  models,
  settings,
  teacher_cache,
  teachers,
  validate,
)
from jaxdistill.study.drafts import Draft, Role, RowDraft
from jaxdistill.study.load import Loaded
from jaxdistill.study.parse import Section
from jaxdistill.study.plans import Plan, Row, Views


def plan(config: Mapping[str, Any], dataset: Dataset | None = None) -> Plan:
  """Checks a config, loads its data and builds everything that it names.

  Args:
    config: a dict or a `ConfigDict`, see `settings.Settings` for its keys.
    dataset: the data of the config, if they have been read already.

  Raises:
    UsageError: anything is wrong with the config. Nothing has been written.
  """
  plain_config = config_lib.plain(config)
  draft = validate.validate(settings.check(plain_config))
  loaded = load.load(draft, dataset)
  built_plan = build(draft, loaded)._replace(config=plain_config)
  built_plan = teachers.checked(built_plan)
  notes = (*built_plan.notes, *models.initial_notes(built_plan))
  built_plan = built_plan._replace(notes=notes)
  for row in built_plan.rows:
    # The first phase checks stages, shapes and numbers of classes.
    carry = models.abstract_carry(built_plan, row.role)
    with _naming_row(row.label):
      row.method[0](carry)
  models.check_outputs(built_plan)
  if draft.settings.cache_teacher is not False:
    built_plan = _with_views(built_plan, draft, loaded)
  return built_plan


def build(draft: Draft, loaded: Loaded) -> Plan:
  """Builds the networks and the rows of a validated config.

  Args:
    draft: the validated config.
    loaded: its data.

  Raises:
    UsageError: a network or a method does not suit the data.
  """
  num_classes = loaded.num_outputs
  networks: dict[str, Network] = {
    'student': models.build_network(draft.student, 'student', num_classes)
  }
  shared = _shared_resolved(draft, loaded)
  rows = []
  teacher = draft.teacher
  if teacher is not None:
    shared['teacher'] = teacher.resolved
    if not teacher.is_trained and teacher.network is not None:
      networks['teacher'] = models.build_network(
        teacher.network, 'teacher', num_classes
      )
      rows.append(_row(teacher.row, draft, loaded, shared))
  shared['student'] = draft.student.resolved
  shared |= drafts.resolved_initial(draft.initial)
  if draft.settings.together:
    shared['together'] = True
  rows += [_row(row, draft, loaded, shared) for row in draft.rows]
  file_teacher = loaded.teacher
  built_plan = Plan(
    dataset=loaded.dataset,
    task=draft.task,
    preprocess=loaded.preprocess,
    networks=networks,
    teacher=None if file_teacher is None else file_teacher.model,
    foreign_teacher='' if file_teacher is None else file_teacher.foreign,
    notes=() if file_teacher is None else file_teacher.notes,
    rows=tuple(rows),
    options=_fit_options(draft.settings),
    initial=_initial(draft),
    trackers=draft.trackers,
    teacher_names=() if file_teacher is None else file_teacher.label_names,
    together=draft.settings.together,
  )
  _check_sweeps(built_plan)
  return built_plan


def _initial(draft: Draft) -> dict[Role, Scheme]:
  """Returns role -> the function that gives a model other initial weights."""
  sections: dict[Role, Section | None] = {
    'student': draft.initial,
    'teacher': draft.teacher and draft.teacher.initial,
  }
  return {
    role: section.build({}) for role, section in sections.items() if section
  }


def _check_sweeps(plan: Plan) -> None:
  """Checks that a sweep has a split and a score by which it can choose."""
  for row in plan.rows:
    if row.trial is None:
      continue
    if 'validation' not in plan.dataset.splits:
      raise UsageError(
        f'{row.trial.sweep}: a sweep chooses by the validation split, but the '
        'data set has none; set data.validation'
      )
    if not measurements.has_score(plan, row):
      raise UsageError(
        f'{row.trial.sweep}: a sweep chooses by {plan.task.score.name}, which '
        'compares student and teacher, but this row learns the labels alone; '
        'remove its sweep'
      )


def _shared_resolved(draft: Draft, loaded: Loaded) -> dict[str, Any]:
  """Returns what the numbers of every row depend on, as JSON."""
  return {
    'data': {**draft.data.resolved, 'checksum': loaded.checksum},
    'task': draft.task_section.resolved,
    # The best epoch depends on it.
    'evaluate_every': draft.settings.evaluate_every,
    'fast_cpu': cpu.setting() or False,
  }


def _fit_options(config: settings.Settings) -> dict[str, Any]:
  """Returns the keyword arguments of `loop.FitOptions`."""
  return {
    'evaluate_every': config.evaluate_every,
    'log_every': config.log_every,
    'checkpoint_seconds': config.checkpoint_seconds,
    'workers': config.workers,
    'steps_per_call': config.steps_per_call,
  }


def _row(
  row: RowDraft, draft: Draft, loaded: Loaded, shared: Mapping[str, Any]
) -> Row:
  """Builds the recipe and the method of a row.

  Args:
    row: the row.
    draft: the config.
    loaded: the data.
    shared: what the numbers depend on besides the row's own keys.

  Raises:
    UsageError: the row would train on images of another size than it is
      evaluated on or on labels of other classes, or its method cannot be built.
  """
  dataset = loaded.dataset
  augment = load.row_augment(row, draft, loaded)
  recipe = _recipe(row, draft, dataset, augment)
  preprocessed = recipes.example(dataset, loaded.preprocess, 1)
  trained_shape = recipe.example['image'].shape[1:]
  evaluated_shape = preprocessed['image'].shape[1:]
  if trained_shape != evaluated_shape and not draft.task.whole_images:
    raise UsageError(
      f'{row.label}: its augment makes images {trained_shape}, but the augment '
      f'of the config, with which all rows are evaluated, {evaluated_shape}'
    )
  label = recipe.example.get('label')
  mixed: tuple[int, ...] = () if label is None else label.shape[1:]
  if mixed not in ((), (dataset.num_classes,)):
    raise UsageError(
      f'{row.label}: its augment makes labels of {mixed[0]} classes, but the '
      f'data have {dataset.num_classes}; remove num_classes from the augment'
    )
  method = _method(row, recipe, loaded)
  resolved = {**row.resolved, **shared}
  return Row(row.label, row.role, method, row.seeds, resolved, row.trial)


def _recipe(
  row: RowDraft, draft: Draft, dataset: Dataset, augment: Augment
) -> Recipe:
  """Builds the recipe of a row."""
  return recipes.recipe(
    dataset,
    draft.task,
    epochs=row.training.epochs,
    batch_size=row.training.batch_size,
    optimizer=row.optimizer,
    augment=augment,
    subset=row.training.subset,
  )


def _method(row: RowDraft, recipe: Recipe, loaded: Loaded) -> Method:
  """Builds the method of a row."""
  return row.method.build({'recipe': recipe, 'num_classes': loaded.num_outputs})


def _with_views(plan: Plan, draft: Draft, loaded: Loaded) -> Plan:
  """Returns a plan whose rows store the teacher's outputs where they can.

  Raises:
    UsageError: the user wants outputs to be stored, and a row cannot use them.
  """
  rows, notes = [], list(plan.notes)
  drafts = {row.label: row for row in draft.rows}
  for row in plan.rows:
    if row.label in drafts and teacher_cache.reads_teacher(plan, row):
      with _naming_row(row.label):
        row, note = _row_with_views(plan, row, drafts[row.label], draft, loaded)
      notes.append(f'{row.label}: {note}')
    rows.append(row)
  return plan._replace(rows=tuple(rows), notes=tuple(notes))


def _row_with_views(
  plan: Plan, row: Row, row_draft: RowDraft, draft: Draft, loaded: Loaded
) -> tuple[Row, str]:
  """Returns a row that stores the teacher's outputs if it can, and a note."""

  def made(views: Views) -> Method:
    dataset = teacher_cache.with_column(
      loaded.dataset, views.outputs, {'train', views.subset}
    )
    drawn = views_lib.drawn(views.augment, views.per_image, views.top)
    return _method(row_draft, _recipe(row_draft, draft, dataset, drawn), loaded)

  augment = load.row_augment(row_draft, draft, loaded)
  wish = teacher_cache.Wish(
    draft.settings.cache_teacher, draft.settings.cache_top_k
  )
  return teacher_cache.chosen(
    plan, row, row_draft.training, augment, wish, made
  )


@contextlib.contextmanager
def _naming_row(label: str) -> Iterator[None]:
  """Adds the label of the row to the message of a UsageError."""
  try:
    yield
  except UsageError as error:
    prefix = '' if str(error).startswith(label) else f'{label}: '
    raise UsageError(f'{prefix}{error}') from error
