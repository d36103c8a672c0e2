"""A teacher from a file: it is read and made to suit the data."""

from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill.core import marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Affine,
  Augment,
  Dataset,
  Model,
  Stage,
)
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import resizing
from jaxdistill.networks.weights import files, huggingface, pretrained
from jaxdistill.phases import recipes
from jaxdistill.study import models
from jaxdistill.study.drafts import TeacherDraft
from jaxdistill.study.plans import Plan

# Images have levels from 0 to 255.
SMALLEST_STD = 1e-3


class FileTeacher(NamedTuple):
  """A teacher from a file, for images and classes as the data have them.

  Attributes:
    model: the model.
    notes: what was changed in it, in lines for the user.
    foreign: why its outputs are not scores of the data's classes, in words; ''
      if they are.
    label_names: the names of the classes in its file, or empty.
  """

  model: Model
  notes: tuple[str, ...] = ()
  foreign: str = ''
  label_names: tuple[str, ...] = ()


def read(
  draft: TeacherDraft,
  dataset: Dataset,
  preprocess: Augment,
) -> FileTeacher:
  """Reads the file of a teacher.

  If the file says how its images were standardised, and which classes its
  outputs belong to, the teacher is changed so that it takes images that are
  standardised as the data, and its outputs have the data's order.

  Args:
    draft: the section of the teacher, with a file.
    dataset: the data.
    preprocess: how images are prepared for evaluation.

  Raises:
    UsageError: the file cannot be read, or does not suit the data.
  """
  assert draft.file is not None
  teacher = _read(draft, draft.file, dataset, preprocess)
  if draft.image_size:
    network = resizing.resized(teacher.model.network, draft.image_size)
    teacher = teacher._replace(model=teacher.model._replace(network=network))
  return teacher


def _read(
  draft: TeacherDraft,
  file: pathlib.Path,
  dataset: Dataset,
  preprocess: Augment,
) -> FileTeacher:
  """Reads a teacher that does not resize its images; see `read`."""
  if draft.folder is not None:
    return _pretrained(draft, draft.folder, dataset, preprocess)
  network = None
  if draft.network is not None:
    network = models.build_network(
      draft.network, 'teacher', dataset.num_classes
    )
  if draft.is_torch and network is not None:
    shape = recipes.example(dataset, preprocess, 1)['image'].shape
    if draft.image_size:
      shape = (1, draft.image_size, draft.image_size, shape[-1])
    image = jax.ShapeDtypeStruct(shape, np.float32)
    variables = pretrained.load(file, network, {'image': image})
    return FileTeacher(Model(network, variables))
  model, metadata = files.load_with_metadata(file, network)
  return _with_names(_standardized(model, metadata, dataset), metadata, dataset)


def _pretrained(
  draft: TeacherDraft,
  folder: pathlib.Path,
  dataset: Dataset,
  preprocess: Augment,
) -> FileTeacher:
  """Reads a model of another library, with what its folder says."""
  loaded = huggingface.load(folder)
  shape = recipes.example(dataset, preprocess, 1)['image'].shape[1:]
  if shape[-1] != huggingface.CHANNELS:
    raise UsageError(
      f'teacher.weights: expected data of {huggingface.CHANNELS} channels, for '
      f'which {folder} was trained, got {shape[-1]}'
    )
  notes = [f'teacher.weights: {folder}: {loaded.about}']
  size = (draft.image_size,) * 2 if draft.image_size else shape[:2]
  if size != (loaded.image_size,) * 2:
    notes.append(
      f'teacher.weights: was trained on images of {loaded.image_size} x '
      f'{loaded.image_size}, and gets images of {size[0]} x {size[1]}; '
      'teacher.image_size resizes them'
    )
  teacher = _standardized(loaded.model, loaded.metadata, dataset)
  teacher = teacher._replace(notes=(*notes, *teacher.notes))
  return _with_names(teacher, loaded.metadata, dataset)


def num_outputs(teacher: Model, image: jax.ShapeDtypeStruct) -> int:
  """Returns the length of the main output of a teacher.

  Args:
    teacher: the teacher.
    image: the shape of its images `[1, H, W, C]`.
  """
  shapes = graph.shapes(teacher.network, {'image': image})
  return int(shapes[graph.main_output(teacher.network)].shape[-1])


def checked(plan: Plan) -> Plan:
  """Checks the plan's teacher from a file, and says whether it is foreign.

  Args:
    plan: the plan, without rows that have begun.

  Raises:
    UsageError: the file does not fit the network and the data, or a row takes
      the outputs of a foreign teacher for scores of classes.
  """
  if plan.teacher is None:
    return plan
  models.check_teacher_file(plan, plan.teacher)
  foreign = plan.foreign_teacher or _other_outputs(plan, plan.teacher)
  if foreign and plan.task.reads_teacher:
    raise UsageError(
      f'student: expected the outputs of the teacher for the task '
      f'{plan.task.name!r}, but {foreign}'
    )
  for row in plan.rows if foreign else ():
    if not all(map(marks.allows_any_classes, row.method)):
      raise UsageError(
        f"{row.label}: the method takes the teacher's outputs for scores of "
        f"the data's classes, but {foreign}; such a teacher can teach by "
        "methods that compare features only, such as 'at'"
      )
  return plan._replace(foreign_teacher=foreign)


def _other_outputs(plan: Plan, teacher: Model) -> str:
  """Says how the outputs of student and teacher differ in shape; or ''."""
  student_shape, teacher_shape = (
    graph.shapes(network, {'image': plan.image})[
      graph.main_output(network)
    ].shape
    for network in (plan.networks['student'], teacher.network)
  )
  # Detectors of one task may differ in their numbers of anchors or regions.
  task, has_classes = plan.task, student_shape[-1] == teacher_shape[-1]
  is_alike = has_classes and not (task.class_scores or task.reads_teacher)
  if student_shape == teacher_shape or (is_alike and _is_read(plan, teacher)):
    return ''
  return (
    f"the teacher's outputs have the shape {teacher_shape[1:]} for each image, "
    f"and the student's {student_shape[1:]}"
  )


def _is_read(plan: Plan, teacher: Model) -> bool:
  """Returns whether the task can read the outputs of a teacher."""
  try:
    models.read_outputs(plan, teacher.network)
  except UsageError:
    return False
  return True


def _standardized(
  model: Model, metadata: Mapping[str, Any], dataset: Dataset
) -> FileTeacher:
  """Returns a teacher that takes images standardised as the data are."""
  if not {'mean', 'std'} & metadata.keys():
    return FileTeacher(model)
  for name in ('mean', 'std'):
    if name not in metadata:
      raise UsageError(f'teacher: expected mean and std, got no {name}')
  mean, std = (
    _numbers(name, metadata[name], len(dataset.mean))
    for name in ('mean', 'std')
  )
  if min(std) < SMALLEST_STD:
    raise UsageError(
      f'teacher: expected std of at least {SMALLEST_STD}, got {std}'
    )
  if mean == dataset.mean and std == dataset.std:
    return FileTeacher(model)
  affine = Affine(
    tuple(d / s for d, s in zip(dataset.std, std)),
    tuple((d - m) / s for d, m, s in zip(dataset.mean, mean, std)),
  )
  stages = tuple(
    _after(stage, affine) if i == 0 or 'image' in stage.inputs else stage
    for i, stage in enumerate(model.network.stages)
  )
  note = (
    f'teacher: was trained on images of mean {_words(mean)} and std '
    f'{_words(std)}, not those of the data, {_words(dataset.mean)} and '
    f'{_words(dataset.std)}; it sees images as in its own training'
  )
  return FileTeacher(
    Model(model.network._replace(stages=stages), model.variables), (note,)
  )


def _after(stage: Stage, affine: Affine) -> Stage:
  """Returns a stage that reads images after an affine map."""
  if stage.image is None:
    return stage._replace(image=affine)
  scale, offset = stage.image
  return stage._replace(
    image=Affine(
      tuple(a * b for a, b in zip(affine.scale, scale)),
      tuple(a * b + c for a, b, c in zip(affine.offset, scale, offset)),
    )
  )


def _with_names(
  teacher: FileTeacher, metadata: Mapping[str, Any], dataset: Dataset
) -> FileTeacher:
  """Returns a teacher whose outputs have the order of the data's classes."""
  names, data_names = metadata.get('label_names', ()), dataset.label_names
  if not _are_names(names):
    raise UsageError(
      f'teacher: expected a list of names as label_names, got {names}'
    )
  teacher = teacher._replace(label_names=tuple(names))
  if not names or not data_names or tuple(names) == data_names:
    return teacher
  if len({*names}) < len(names) or len({*data_names}) < len(data_names):
    raise UsageError(
      'teacher: has other label_names than the data, and their '
      'orders cannot be compared, because a name occurs twice'
    )
  if sorted(names) != sorted(data_names):
    unshared = {*names} ^ {*data_names}
    name = next(n for n in (*data_names, *names) if n in unshared)
    owner = 'the data have' if name in data_names else 'the teacher has'
    return teacher._replace(foreign=f'only {owner} the class {name!r}')
  order = np.array([names.index(name) for name in data_names])
  note = (
    "teacher: has the data's classes in another order; its outputs "
    'are reordered by name'
  )
  model = _reordered(teacher.model, order)
  return teacher._replace(model=model, notes=(*teacher.notes, note))


def _reordered(model: Model, order: np.ndarray) -> Model:
  """Returns a classifier whose outputs are in another order."""
  head = model.network.stages[-1]
  if not isinstance(head.module, layers.CLASSIFIERS):
    raise UsageError(
      "teacher: has the data's classes in another order, and the "
      f'outputs of its last stage {head.name!r} cannot be reordered, because '
      "it is not one of the library's classifiers"
    )
  variables = {
    collection: {
      **tree,
      **(
        {head.name: jax.tree.map(lambda x: x[..., order], tree[head.name])}
        if head.name in tree
        else {}
      ),
    }
    for collection, tree in model.variables.items()
  }
  return model._replace(variables=variables)


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
  """Returns the numbers of a file, one for each channel."""
  is_list = isinstance(value, list) and len(value) == count
  if not is_list or not all(
    type(x) in (int, float) and math.isfinite(x) for x in value
  ):
    raise UsageError(
      f'teacher: expected {name} with {count} numbers, one for each '
      f"of the data's channels, got {value}"
    )
  return tuple(map(float, value))


def _are_names(names: Any) -> bool:
  """Returns whether a value is a list of strings."""
  is_list = isinstance(names, (list, tuple))
  return is_list and all(isinstance(name, str) for name in names)


def _words(numbers: Sequence[float]) -> str:
  return f'({", ".join(f"{x:.4g}" for x in numbers)})'
