"""What a call says before it trains."""

from collections.abc import Iterator
import pathlib

from jaxdistill.networks import graph
from jaxdistill.networks.weights import sources
from jaxdistill.study import models
from jaxdistill.study.distilling import compiling, fine_tuning
from jaxdistill.study.distilling.compiling import Choices
from jaxdistill.study.distilling.sources import Source
from jaxdistill.study.distilling.students import Student
from jaxdistill.study.distilling.teacher_sections import Teacher
from jaxdistill.study.drafts import Role
from jaxdistill.study.plans import Plan


def lines(
  plan: Plan,
  source: Source,
  teacher: Teacher,
  student: Student,
  choices: Choices,
  out: pathlib.Path,
) -> Iterator[str]:
  """Yields the lines: data, teacher, student, rows and where the files go.

  Args:
    plan: what will be run.
    source: the data.
    teacher: the teacher.
    student: the student.
    choices: how to train.
    out: the work directory.
  """
  splits = {
    name: len(plan.dataset.splits[name]['image'])
    for name in ('train', 'validation', 'test')
    if name in plan.dataset.splits
  }
  parts = ', '.join(f'{count:,} {name}' for name, count in splits.items())
  classes = (
    f'{plan.dataset.num_classes} classes' if source.has_labels else 'no labels'
  )
  height, width = plan.image.shape[1:3]
  yield (
    f'data: {source.title}: {sum(splits.values()):,} images ({parts}), '
    f'{classes}, {height} x {width} pixels'
  )
  count = _parameters(plan, 'teacher')
  choice = (plan.dataset, source.has_labels, teacher, choices)
  training = ''
  if not teacher.is_trained:
    training = ', to be trained on these labels'
  elif compiling.is_fine_tuned(*choice):
    section = plan.config['teacher']['training']
    training = f', {fine_tuning.words(section)}'
  yield f'teacher: {teacher.title}, {count:,} parameters{training}'
  yield from _small_images(teacher, height)
  small = _parameters(plan, 'student')
  yield (
    f'student: {student.title}, {small:,} parameters, '
    f"{100 * small / count:.1f} % of the teacher's"
  )
  method, reason = compiling.method(*choice)
  yield f'method: {method}, {reason}'
  if method == 'embedding' and teacher.has_unknown_layers:
    yield (
      "vectors: the teacher's outputs; only a teacher made of this library's "
      'blocks would show the vectors that its last layer reads'
    )
  keys = plan.config
  rows = ', '.join(keys['methods'])
  yield (
    f'rows: {rows}; seeds: {keys["seeds"]}; epochs: {keys["epochs"]:g}; '
    f'batch size: {keys["batch_size"]}'
  )
  if plan.task.reads_teacher:
    verdict = '; the verdict compares accuracies'
    yield (
      f'score: {plan.task.score.name}, which compares student and teacher and '
      'does not read labels'
      f'{verdict if compiling.BASELINE in keys["methods"] else ""}'
    )
  yield f'results: {out}'


def _small_images(teacher: Teacher, side: int) -> Iterator[str]:
  """Yields a line if a teacher gets much smaller images than in its training.

  Args:
    teacher: the teacher.
    side: the height of the images.
  """
  source = sources.SOURCES.get(str((teacher.network or {}).get('name')))
  if source is None or teacher.outputs != sources.IMAGENET_CLASSES:
    return
  if 'image_size' not in teacher.section and 2 * side <= source.image_size:
    yield (
      f'teacher: was trained on images of {source.image_size} x '
      f'{source.image_size} pixels, and may see little in smaller ones; '
      'image_size enlarges the images for both networks, and in a config '
      'teacher.image_size for the teacher alone'
    )


def _parameters(plan: Plan, role: Role) -> int:
  """Returns the number of parameters of the student or the teacher."""
  if role not in plan.networks:
    assert plan.teacher is not None
    return graph.count_parameters(plan.teacher.variables)
  network = plan.networks[role]
  return graph.count_parameters(models.variable_shapes(plan, role, network))
