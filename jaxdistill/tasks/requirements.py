"""What methods require of a task."""

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Metrics, Task


def class_scores(method: str, task: Task) -> None:
  """Checks that the outputs of a task are scores of classes.

  Args:
    method: the method or objective that turns them into probabilities.
    task: the task.

  Raises:
    UsageError: they are not.
  """
  if not task.class_scores:
    raise UsageError(
      f'{method}: expected a task whose outputs are scores of classes, got '
      f'{task.name!r}'
    )


def label_loss(method: str, task: Task) -> None:
  """Checks that a task has a loss on the targets of the data.

  Args:
    method: the method that minimises it.
    task: the task.

  Raises:
    UsageError: it has none.
  """
  if not task.targets:
    raise UsageError(
      f'{method}: expected a task with targets, got {task.name!r}, in which a '
      'student learns from its teacher alone; set label_weight=0, or choose a '
      'method that has it'
    )


def image_classes(method: str, task: Task) -> None:
  """Checks that a task gives each image one class, its label.

  Args:
    method: the method or objective that reads the classes.
    task: the task.

  Raises:
    UsageError: it does not.
  """
  _target(
    method, task, 'label', "each image has one class, such as 'classification'"
  )


def masks(method: str, task: Task) -> None:
  """Checks that a task gives each pixel a class, in the column 'mask'.

  Args:
    method: the method or objective that reads the classes.
    task: the task.

  Raises:
    UsageError: it does not.
  """
  _target(
    method, task, 'mask', "each pixel has a class, such as 'segmentation'"
  )


def depths(method: str, task: Task) -> None:
  """Checks that a task gives each pixel a distance, in the column 'depth'.

  Args:
    method: the method or objective that compares distances.
    task: the task.

  Raises:
    UsageError: it does not.
  """
  _target(method, task, 'depth', "each pixel has a depth, such as 'depth'")


def boxes(method: str, task: Task) -> None:
  """Checks that a task is about objects with boxes, in the column 'boxes'.

  Args:
    method: the method or objective that reads the boxes.
    task: the task.

  Raises:
    UsageError: it is not.
  """
  _target(method, task, 'boxes', "objects have boxes, such as 'detection'")


def batch_score(method: str, task: Task, metrics: Metrics) -> Array:
  """Returns the score of a batch; the scores of some tasks need a whole split.

  Args:
    method: the name of the method that compares models by this score.
    task: the task.
    metrics: what `Task.progress` returned.

  Raises:
    UsageError: the score is not among them.
  """
  if task.score.name not in metrics:
    raise UsageError(
      f'{method}: expected a task whose score can be computed for a batch, got '
      f'{task.name!r} with the score {task.score.name!r}'
    )
  return metrics[task.score.name]


def _target(method: str, task: Task, column: str, what: str) -> None:
  if column not in task.targets:
    raise UsageError(
      f'{method}: expected a task in which {what}, got {task.name!r}'
    )
