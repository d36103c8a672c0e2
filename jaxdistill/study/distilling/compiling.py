"""The config of a call, with defaults that suit the data."""

from collections.abc import Iterable, Mapping, Sequence
import inspect
from typing import Any, Literal, NamedTuple

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset, Network
from jaxdistill.methods.supervised_vectors import with_classes
from jaxdistill.networks.layers import attention
from jaxdistill.networks.registry import NETWORKS
from jaxdistill.study.distilling import fine_tuning
from jaxdistill.study.distilling.students import Student
from jaxdistill.study.distilling.teacher_sections import Teacher
from jaxdistill.study.registry import METHODS

# Every row is trained for about so many steps, in a number of epochs between
# these bounds.
STEPS, FEWEST, MOST = 2000, 5, 200
LARGEST_BATCH = 64
# The learning rates of SGD and AdamW for the largest batch.
SGD_RATE, ADAMW_RATE = 0.1, 1e-3
# Vectors need a larger rate, because the gradients of a cosine are smaller than
# those of a cross-entropy.
SGD_RATE_OF_VECTORS = 0.5
# Methods that take the teacher's outputs for scores of the data's classes.
NEED_CLASSES = ('kd', 'refinery', 'dkd', 'dist', 'dml')
# Square images from this size on are cut at random, smaller ones are padded. A
# wide black border changes what a teacher says of an image.
LEAST_CUT = 64
# The smallest part of an image that is cut out, as a fraction of its area.
SMALLEST_CUT = 0.5
# So much of the initial running statistics of batch norms may be left at the
# end of the training. They can be a thousand times larger than the true ones.
LEFT_OF_STATISTICS = 1e-6
# Validations of a row.
EVALUATIONS = 20
BASELINE = 'labels only'


class Choices(NamedTuple):
  """The arguments of a call that say how to train; None: a default.

  Attributes:
    method: the name of a method, or 'auto'.
    baseline: whether to train the student on the labels alone as well.
    seeds: the number of seeds.
    epochs: passes over the training images.
    batch_size: the number of images in a batch.
    cache_teacher: see `call.distill`.
    cache_top_k: see `call.distill`.
    teacher_epochs: passes of the teacher, if it is trained.
  """

  method: str
  baseline: bool
  seeds: int
  epochs: float | None
  batch_size: int | None
  cache_teacher: bool | int | Literal['auto'] = 'auto'
  cache_top_k: int | None = None
  teacher_epochs: float | None = None


def compiled(
  data: Mapping[str, Any],
  dataset: Dataset,
  has_labels: bool,
  teacher: Teacher,
  student: Student,
  network: Network,
  teacher_network: Network | None,
  choices: Choices,
) -> dict[str, Any]:
  """Returns the config of a call.

  Args:
    data: the section of the data.
    dataset: the data.
    has_labels: whether the images have labels.
    teacher: the teacher.
    student: the student.
    network: the student's network.
    teacher_network: the teacher's network, if its blocks are known.
    choices: how to train.

  Raises:
    UsageError: `teacher_epochs` is given for a teacher that is not trained, or
      whose section has epochs as well.
  """
  count = len(dataset.splits['train']['image'])
  method_name, _ = method(dataset, has_labels, teacher, choices)
  task = 'classification' if has_labels else 'imitation'
  if method_name == 'embedding':
    task = 'embedding'
  batch_size = choices.batch_size or _batch_size(count)
  epochs = choices.epochs or _epochs(count, batch_size)
  name, rate = _optimizer(network, batch_size, method_name)
  steps = epochs * max(1, count // batch_size)
  section = dict(teacher.section)
  if is_trained_first(dataset, has_labels, teacher, choices):
    assert teacher_network is not None  # it is made of blocks
    section = _trained_section(
      teacher, teacher_network, choices, count, batch_size, epochs
    )
  elif choices.teacher_epochs is not None:
    raise UsageError(
      'teacher_epochs: expected a teacher that is trained on these labels, got '
      f'{teacher.title!r}, which is used as it is'
    )
  elif task == 'embedding':
    section = teacher.standardised_section
  baseline = None
  if choices.baseline and has_labels:
    baseline = _baseline(task, network, batch_size)
  return {
    'data': dict(data),
    **({} if task == 'classification' else {'task': {'name': task}}),
    'augment': _augment(dataset.splits['train']['image'].shape[1:3]),
    'teacher': section,
    'student': with_short_memory(student.section, steps),
    'optimizer': {'name': name},
    'schedule': {'name': 'cosine', 'rate': rate},
    'batch_size': batch_size,
    'epochs': epochs,
    'evaluate_every': max(1, int(epochs // EVALUATIONS)),
    'seeds': choices.seeds,
    **{
      key: value
      for key in ('cache_teacher', 'cache_top_k')
      if (value := getattr(choices, key))
    },
    'methods': _rows(method_name, task, baseline),
  }


def _trained_section(
  teacher: Teacher,
  network: Network,
  choices: Choices,
  count: int,
  batch_size: int,
  epochs: float,
) -> dict[str, Any]:
  """Returns the section of a teacher that is trained or fine-tuned first.

  Args:
    teacher: the teacher.
    network: its network.
    choices: how to train.
    count: the number of training images.
    batch_size: the number of images in a batch.
    epochs: the epochs of the student, which a new teacher has as well.

  Raises:
    UsageError: the section of the teacher has epochs as well.
  """
  name, rate = _optimizer(network, batch_size)
  own = teacher.section.get('training', {})
  if choices.teacher_epochs is not None and 'epochs' in own:
    raise UsageError(
      'teacher_epochs: expected it or the epochs of teacher.training, got '
      f'{choices.teacher_epochs:g} and {own["epochs"]}'
    )
  if teacher.is_trained:
    return fine_tuning.section(
      teacher,
      name,
      batch_size / LARGEST_BATCH,
      choices.teacher_epochs or _epochs(count, batch_size, fine_tuning.STEPS),
      own,
    )
  training = {
    'epochs': choices.teacher_epochs or epochs,
    'optimizer': {'name': name},
    'schedule': {'name': 'cosine', 'rate': rate},
    **own,
  }
  steps = training['epochs'] * max(1, count // batch_size)
  section = with_short_memory(teacher.section, steps)
  return {**section, 'training': training}


def _augment(size: Sequence[int]) -> dict[str, Any]:
  """Returns the augmentation that suits the size of the images."""
  height, width = size
  if height == width >= LEAST_CUT:
    return {'name': 'imagenet', 'size': height, 'scale': (SMALLEST_CUT, 1.0)}
  return {'name': 'crop_flip', 'padding': max(1, height // 8)}


def with_short_memory(
  section: Mapping[str, Any], steps: float
) -> dict[str, Any]:
  """Returns the section of a network whose batch norms suit a short training.

  Their momentum becomes small enough for the running statistics to forget their
  initial values, if the section does not choose it.

  Args:
    section: the section; or one with a section `network`, such as `scaled`.
    steps: the number of training steps.
  """
  nested = section.get('network')
  if isinstance(nested, Mapping):
    return {**section, 'network': with_short_memory(nested, steps)}
  make = NETWORKS.get(str(section.get('name')))
  parameters = inspect.signature(make).parameters if make else {}
  most = LEFT_OF_STATISTICS ** (1 / steps)
  if 'momentum' in section or 'momentum' not in parameters:
    return dict(section)
  if parameters['momentum'].default <= most:
    return dict(section)
  return {**section, 'momentum': round(most, 4)}


def _batch_size(count: int) -> int:
  """Returns the largest power of two that gives an epoch ten steps."""
  size = LARGEST_BATCH
  while size > 1 and 10 * size > count:
    size //= 2
  return size


def _epochs(count: int, batch_size: int, steps: int = STEPS) -> int:
  """Returns the number of epochs that gives about a number of steps."""
  epochs = round(steps / max(1, count // batch_size))
  return min(MOST, max(FEWEST, epochs))


def _optimizer(
  network: Network, batch_size: int, method_name: str = ''
) -> tuple[str, float]:
  """Returns the optimizer that suits a network, and its learning rate.

  The rate grows with the batch, whose mean gradient varies less.
  """
  blocks = (stage.module for stage in network.stages)
  name, rate = 'sgd', SGD_RATE
  if any(isinstance(b, attention.TransformerBlock) for b in blocks):
    name, rate = 'adamw', ADAMW_RATE
  elif method_name == 'embedding':
    rate = SGD_RATE_OF_VECTORS
  return name, rate * batch_size / LARGEST_BATCH


def method(
  dataset: Dataset, has_labels: bool, teacher: Teacher, choices: Choices
) -> tuple[str, str]:
  """Returns the name of the method, and why it was chosen.

  Args:
    dataset: the data.
    has_labels: whether the images have labels.
    teacher: the teacher.
    choices: how to train.
  """
  if choices.method != 'auto':
    return choices.method, 'as you chose'
  if not teacher.is_classifier:
    return 'embedding', 'because the teacher gives vectors, not classes'
  if not has_labels:
    return 'kd', 'because the teacher is a classifier; no labels are needed'
  if shares_classes(dataset, has_labels, teacher):
    return 'kd', "because the teacher's classes are those of the data"
  return 'srrl', 'because the teacher has other classes than the data'


def is_fine_tuned(
  dataset: Dataset, has_labels: bool, teacher: Teacher, choices: Choices
) -> bool:
  """Returns whether a trained teacher first learns the classes of the data.

  It does if it has other classes than the data, the method needs the classes of
  the data, and the teacher is made of the library's blocks, so that its head
  can be exchanged.
  """
  name, _ = method(dataset, has_labels, teacher, choices)
  return (
    name in NEED_CLASSES
    and teacher.new_head_section is not None
    and not shares_classes(dataset, has_labels, teacher)
  )


def is_trained_first(
  dataset: Dataset, has_labels: bool, teacher: Teacher, choices: Choices
) -> bool:
  """Returns whether the teacher is trained or fine-tuned before the students.

  Args:
    dataset: see `method`, like the others.
    has_labels: whether the images have labels.
    teacher: the teacher.
    choices: how to train.
  """
  return not teacher.is_trained or is_fine_tuned(
    dataset, has_labels, teacher, choices
  )


def _rows(
  name: str, task: str, baseline: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
  """Returns the rows: the baseline if there is one, and the method."""
  row: dict[str, Any] = {'name': name}
  method = METHODS.get(name)
  has_weight = method and 'label_weight' in inspect.signature(method).parameters
  if task == 'imitation' and has_weight:
    row['label_weight'] = 0.0
  return {**({BASELINE: baseline} if baseline else {}), name: row}


def _baseline(
  task: str, network: Network, batch_size: int
) -> dict[str, Any] | None:
  """Returns the row of the student that learns the labels alone.

  Args:
    task: the name of the task; the images have labels.
    network: the student's network.
    batch_size: the number of images in a batch.

  Returns:
    The row; None if the student cannot show a vector of its own, because its
    last stage is not a linear layer.
  """
  if task != 'embedding':
    return {'name': 'supervised'}
  try:
    with_classes(network, num_classes=1)
  except UsageError:
    return None
  name, rate = _optimizer(network, batch_size)
  return {
    'name': 'supervised_vectors',
    'optimizer': {'name': name},
    'schedule': {'name': 'cosine', 'rate': rate},
  }


def shares_classes(
  dataset: Dataset, has_labels: bool, teacher: Teacher
) -> bool:
  """Returns whether the teacher's outputs are scores of the data's classes.

  Without labels, the classes are the teacher's.
  """
  if teacher.outputs is None or not has_labels:
    return True
  same_names = _same(teacher.label_names, dataset.label_names)
  same_count = teacher.outputs == dataset.num_classes
  return teacher.is_classifier and same_count and same_names


def _same(names: Iterable[str], others: Iterable[str]) -> bool:
  """Returns whether two lists hold the same names, or one holds none."""
  first, second = sorted(names), sorted(others)
  return not first or not second or first == second
