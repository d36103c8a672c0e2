"""Step 3 of a study: the data set and the teacher's file are read."""

from typing import NamedTuple
import zlib

import numpy as np

from jaxdistill.core.types import Augment, Dataset
from jaxdistill.phases import recipes
from jaxdistill.study import several_teachers, teachers
from jaxdistill.study.drafts import Draft, RowDraft
from jaxdistill.study.parse import Section
from jaxdistill.study.teachers import FileTeacher


class Loaded(NamedTuple):
  """What a plan needs from files.

  Attributes:
    dataset: the data.
    checksum: a checksum of the data.
    augment: the config's augmentation, for these data.
    preprocess: what evaluation does to images in place of augmentation.
    teacher: the teacher of a file, or None.
    num_outputs: the number of outputs of new networks: that of the classes, or
      that of the teacher's outputs if the task reads these.
  """

  dataset: Dataset
  checksum: int
  augment: Augment
  preprocess: Augment
  teacher: FileTeacher | None
  num_outputs: int


def load(draft: Draft, dataset: Dataset | None = None) -> Loaded:
  """Reads the data set of a config, and its teacher if a file holds it.

  Args:
    draft: the config.
    dataset: the data of the config, if they have been read already.

  Raises:
    UsageError: a file is missing or damaged, or its content is invalid.
  """
  if dataset is None:
    dataset = draft.data.build({})
  augment = build_augment(draft.training.augment, dataset)
  preprocess = recipes.preprocess(dataset, augment, draft.task)
  teacher = None
  if draft.teacher is not None and draft.teacher.is_trained:
    # Without targets, the classes of the data are not those of the outputs.
    named = dataset if draft.task.targets else dataset._replace(label_names=())
    if draft.teacher.joined:
      joined = draft.teacher.joined
      teacher = several_teachers.read(joined, named, preprocess)
    else:
      teacher = teachers.read(draft.teacher, named, preprocess)
    if draft.teacher.joined and draft.task.class_scores:
      teacher = teacher._replace(foreign=several_teachers.FOREIGN)
  num_outputs = draft.task.num_outputs or dataset.num_classes
  if not num_outputs and draft.task.targets:
    # The task explains what the data lack better than a network of no classes.
    recipes.check_task(draft.task, dataset)
  if draft.task.reads_teacher and teacher is not None:
    image = recipes.example(dataset, preprocess, 1)['image']
    num_outputs = teachers.num_outputs(teacher.model, image)
  return Loaded(
    dataset, checksum(dataset), augment, preprocess, teacher, num_outputs
  )


def build_augment(section: Section, dataset: Dataset) -> Augment:
  """Builds an augmentation for a data set."""
  return section.build(
    {'num_classes': dataset.num_classes, 'mean': dataset.mean}
  )


def row_augment(row: RowDraft, draft: Draft, loaded: Loaded) -> Augment:
  """Returns the augmentation of a row: that of the config, or its own."""
  if row.training.augment is draft.training.augment:
    return loaded.augment
  return build_augment(row.training.augment, loaded.dataset)


def checksum(dataset: Dataset) -> int:
  """Returns a checksum of all labels, and of 64 images of each split.

  Of images and other columns `[N, H, W, ...]`, 64 rows count.
  """
  total = 0
  for name, split in sorted(dataset.splits.items()):
    rows = np.linspace(0, len(split['image']) - 1, 64).astype(int)
    for key in sorted(split, reverse=True):
      array = split[key] if len(split[key].shape) < 3 else split[key][rows]
      content = np.ascontiguousarray(array).tobytes()
      total = zlib.crc32(content, zlib.crc32(name.encode(), total))
  return total
