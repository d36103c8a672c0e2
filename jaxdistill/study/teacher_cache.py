"""Chooses which rows store the teacher's outputs, and for how many views.

In such a row, the teacher runs once for each view of a training image instead
of in each step. The method must read only the teacher's main output.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  TEACHER_OUTPUTS,
  Augment,
  Dataset,
  Method,
  Model,
  Network,
  Phase,
)
from jaxdistill.data.transforms import views as views_lib
from jaxdistill.data.transforms.top_scores import MOST_CLASSES, TopScores
from jaxdistill.networks import graph, table
from jaxdistill.phases import recipes
from jaxdistill.study import models
from jaxdistill.study.drafts import Training
from jaxdistill.study.plans import Plan, Row, Views
from jaxdistill.training import programs
from jaxdistill.training.distributed import hosts, sharding

# The number of views if the user does not choose one, and images vary.
VIEWS = 8
# Limits of 'auto': the largest size of the files in bytes, the least saving as
# a share of the cost of a step, and the least saving of the whole row in
# multiply-adds. Less is not worth the seconds of compiling another program.
LARGEST, LEAST_SHARE, LEAST_SAVED = 1 << 30, 0.1, 10**12
# The cost of a step of the student, in forward passes. By the number of
# operations it is 3; `benchmarks/cached_teacher.py` measured 6 and 9 on a CPU.
_PASSES_OF_A_STEP = 6


class Wish(NamedTuple):
  """What the user wants to be stored.

  Attributes:
    views: the value of `cache_teacher`, which is not False.
    top_k: the value of `cache_top_k`.
  """

  views: bool | int | Literal['auto']
  top_k: int | None = None


def reads_teacher(plan: Plan, row: Row) -> bool:
  """Returns whether the method of a row may read a teacher."""
  carry = models.abstract_carry(plan, row.role)
  alone = {k: v for k, v in carry.items() if k != 'teacher'}
  try:
    for phase in row.method:
      phase(alone)
  except Exception:  # whatever a method raises without its teacher
    return True
  return False


def with_column(
  dataset: Dataset, outputs: Any, splits: Collection[str]
) -> Dataset:
  """Returns a data set with the teacher's outputs as a column of some splits.

  Args:
    dataset: the data.
    outputs: the outputs `[N, per_image, ...]`, or their shape.
    splits: the names of the splits.
  """
  changed = {
    name: {**dataset.splits[name], TEACHER_OUTPUTS: outputs} for name in splits
  }
  return dataset._replace(splits={**dataset.splits, **changed})


def chosen(
  plan: Plan,
  row: Row,
  training: Training,
  augment: Augment,
  wish: Wish,
  made: Callable[[Views], Method],
) -> tuple[Row, str]:
  """Returns a row that stores the teacher's outputs if it can, and a note.

  Args:
    plan: what will be run.
    row: a row whose method reads a teacher.
    training: how the row is trained.
    augment: the augmentation of the row.
    wish: what the user wants.
    made: builds the method of the row for views.

  Returns:
    The row, and a line for the user that says what was chosen and why.

  Raises:
    UsageError: the outputs cannot be stored, and the user wants them to be.
  """
  views = _views(plan, row, training.subset, augment, wish)
  is_auto, method = wish.views == 'auto', None
  # More seeds may be trained later, and all of them need the same views.
  obstacle = _too_dear(plan, views, training.epochs) if is_auto else ''
  obstacle = obstacle or _obstacle(plan, row, views)
  if not obstacle:
    method = _method_of_outputs(plan, made, training, views)
    if method is None:
      name = row.resolved['method']['name']
      obstacle = f'{name!r} reads more of the teacher than its outputs'
    elif is_auto and _is_random(plan, training.subset, augment):
      obstacle = (
        'the augmentation is random, and with stored outputs the student would '
        f'see only a few versions of each image; cache_teacher={VIEWS} allows '
        'this'
      )
  if obstacle and is_auto:
    return row, f'the teacher runs in each step, because {obstacle}'
  if method is None:
    raise UsageError(
      f'cache_teacher: expected a row that can use stored outputs, but '
      f'{obstacle}; set cache_teacher=False'
    )
  count, size = views.per_image, views.outputs.shape[0]
  top, part = views.top, ''
  if top is not None:
    part = f', the {top.kept:,} largest of {top.num_classes:,} scores,'
  passes = training.epochs * len(row.seeds)
  number = f'{count} views' if count > 1 else 'one view'
  note = (
    f"the teacher's outputs{part} are computed once for {number} of each of "
    f'{size:,} images, and stored in files of {words(views.nbytes)}; each view '
    f'is used about {passes / count:.3g} times'
  )
  if passes <= count:
    note += ', so that this saves no time'
  resolved = {
    **row.resolved,
    'cache_teacher': count,
    **({} if top is None else {'cache_top_k': top.kept}),
  }
  return row._replace(method=method, views=views, resolved=resolved), note


def teacher_network(plan: Plan) -> Network:
  """Returns the network of the teacher, from a file or to be trained."""
  if plan.teacher is not None:
    return plan.teacher.network
  return plan.networks['teacher']


def words(size: int) -> str:
  """Returns a number of bytes in words."""
  units = {1e9: 'GB', 1e6: 'MB', 1e3: 'kB'}
  unit = next((x for x in units if size >= x), 1e3)
  return f'{size / unit:,.1f} {units[unit]}'


def _views(
  plan: Plan, row: Row, subset: str, augment: Augment, wish: Wish
) -> Views:
  """Returns how the outputs of the teacher would be stored.

  Raises:
    UsageError: the user wants the largest scores of outputs that are not scores
      of classes, or of too few classes.
  """
  shape = recipes.example(plan.dataset, augment, 1)['image'].shape
  image = {'image': jax.ShapeDtypeStruct(shape, jnp.float32)}
  network = teacher_network(plan)
  output = graph.shapes(network, image)[graph.main_output(network)]
  size = len(plan.dataset.splits[subset]['image'])
  top, kept = None, output.shape[1:]
  dtype: np.dtype[Any] = np.dtype(np.float16)
  if wish.top_k is not None:
    top = _top_scores(plan, row, output.shape, wish.top_k)
    dtype, kept = np.dtype(np.uint16), (top.width,)
  count = 1 if wish.views == 'auto' else wish.views
  if isinstance(count, bool):
    count = VIEWS if _is_random(plan, subset, augment) else 1
  outputs = jax.ShapeDtypeStruct((size, count, *kept), dtype)
  return Views(count, subset, augment, outputs, top)


def _top_scores(
  plan: Plan, row: Row, shape: Sequence[int], count: int
) -> TopScores:
  """Returns which scores are stored for the temperature of a row's method.

  Args:
    plan: what will be run.
    row: the row.
    shape: the shape of the teacher's outputs.
    count: the number of the largest scores.

  Raises:
    UsageError: the outputs are not scores of classes, or of too few, or the
      method has several temperatures.
  """
  if not plan.task.class_scores or len(shape) != 2:
    raise UsageError(
      'cache_top_k: expected a teacher that gives scores of classes '
      f'[B, num_classes], got the task {plan.task.name!r} and {list(shape)}'
    )
  most = min((shape[1] - 2) // 2, MOST_CLASSES)
  if count > most or shape[1] > MOST_CLASSES:
    raise UsageError(
      f'cache_top_k: expected at most {max(0, most)} of {shape[1]:,} classes, '
      f'because more would need larger files than all scores, got {count}'
    )
  temperatures = {*_temperatures(row.resolved['method'])} or {1.0}
  if len(temperatures) > 1:
    raise UsageError(
      'cache_top_k: expected terms of one temperature, at which the '
      'probabilities of the largest scores are exact, got '
      f'{", ".join(map("{:g}".format, sorted(temperatures)))}'
    )
  return TopScores(count, shape[1], temperatures.pop())


def _temperatures(section: Any) -> Iterator[float]:
  """Yields the temperatures of a method and of the terms that it joins."""
  for key, value in section.items() if isinstance(section, Mapping) else ():
    if key in ('temperature', 'tau') and isinstance(value, int | float):
      yield float(value)
    yield from _temperatures(value)


def _is_random(plan: Plan, subset: str, augment: Augment) -> bool:
  """Returns whether an image looks different in different steps."""
  try:
    return views_lib.is_random(augment, plan.dataset.splits[subset])
  except Exception:  # whatever a user's augmentation raises
    return True


def _too_dear(plan: Plan, views: Views, passes: float) -> str:
  """Returns why storing the outputs is not worth it, or '' if it is.

  If the teacher is a program, its multiply-adds are not known. It is then
  assumed to cost as much as the student's step.

  Args:
    plan: what will be run.
    views: how the outputs would be stored.
    passes: how often each image is used by a seed of the row.
  """
  count, size = views.outputs.shape[1], views.outputs.shape[0]
  if passes <= count:
    return 'each image is used only once'
  if views.nbytes > LARGEST:
    return f'the outputs would need files of {words(views.nbytes)}'
  shape = plan.image.shape[1:]
  student = table.summary(plan.networks['student'], shape).macs
  step = _PASSES_OF_A_STEP * student
  teacher = table.summary(teacher_network(plan), shape).macs or step
  share = teacher / (teacher + step) * (1 - count / passes)
  if share < LEAST_SHARE:
    return f'storing outputs would save only {100 * share:.0f} % of a step'
  if teacher * size * (passes - count) < LEAST_SAVED:
    return 'storing outputs would save only a few seconds'
  return ''


def _obstacle(plan: Plan, row: Row, views: Views) -> str:
  """Returns why the outputs cannot be stored for a row, or '' if they can."""
  if not hosts.alone():
    return 'several processes take part'
  if len(row.method) > 1:
    return f'{row.resolved["method"]["name"]!r} has several phases'
  if plan.task.prepare is not None:
    return f'the task {plan.task.name!r} changes the images in each step'
  try:
    mixes = views_lib.mixes(views.augment, plan.dataset.splits[views.subset])
  except Exception:  # whatever a user's augmentation raises
    mixes = True
  return 'the augmentation mixes images' if mixes else ''


def _method_of_outputs(
  plan: Plan,
  made: Callable[[Views], Method],
  training: Training,
  views: Views,
) -> Method | None:
  """Returns the method for stored outputs; None if it reads other features.

  To find out, a step is traced with a teacher that has no variables. This fails
  if the step reads anything of the teacher but the stored outputs. Of a phase
  with several programs, the others might still read more.

  Args:
    plan: what will be run.
    made: builds the method for views.
    training: how the row is trained.
    views: the views.
  """
  dataset = with_column(plan.dataset, views.outputs, {views.subset})
  carry = models.abstract_carry(plan, 'student')
  carry['teacher'] = Model(teacher_network(plan), {})
  student, shapes = carry['student']
  key = jax.random.key(0)
  try:
    method = made(views)
    phase = method[0](carry)
    batches: Any = {
      name: {
        column: jax.ShapeDtypeStruct(
          (training.batch_size, *x.shape[1:]),
          jax.dtypes.canonicalize_dtype(x.dtype),
        )
        for column, x in dataset.splits[stream.subset].items()
      }
      for name, stream in phase.streams.items()
    }

    def start(variables: Any) -> Any:
      return phase.init(key, {**carry, 'student': Model(student, variables)})

    if phase.static is not Phase._field_defaults['static']:
      return None
    state, frozen = jax.eval_shape(start, shapes)
    inputs = state, frozen, batches, key
    programs.trace(phase, inputs, sharding.make_mesh())
  except Exception:  # whatever is raised where the teacher is missing
    return None
  return method
