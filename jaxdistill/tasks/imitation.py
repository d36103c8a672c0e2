"""Tasks without targets: the student is compared with the teacher alone."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  TEACHER,
  Array,
  Batch,
  Metric,
  Metrics,
  Predict,
  Task,
)
from jaxdistill.losses import numerics
from jaxdistill.tasks import probing
from jaxdistill.tasks.classification import probabilities


def embedding() -> Task:
  """Returns the task of embedding, in which a student learns a vector.

  The outputs `[B, D]` of student and teacher are vectors that describe the
  image. The task reads no targets, and the student is scored by 'cosine', the
  mean cosine of its outputs and the teacher's for the same images; 1 is best.
  If the data have labels, the outputs of the test images are also classified by
  those of the training images; see `tasks.probing.probes`.

  The task needs a trained teacher, and methods that do not use labels, such as
  `embedding`.
  """
  return _imitation(
    'embedding', _direction, _cosine, Metric('cosine', percent=False)
  )._replace(class_scores=False, probes=probing.probes)


def imitation() -> Task:
  """Returns the task of imitation: a student learns a classifier's answers.

  The outputs `[B, N]` of student and teacher are scores of the same classes.
  The task reads no targets, and the student is scored by 'same_class', the
  fraction of images for which it predicts the class that the teacher predicts.

  The task needs a trained teacher, and methods that do not use labels, such as
  `kd` with `label_weight=0`.
  """
  return _imitation(
    'imitation',
    lambda outputs, batch: outputs.argmax(-1),
    lambda student, teacher: (student == teacher).astype(np.float32),
    Metric('same_class'),
  )._replace(probabilities=probabilities)


def _imitation(
  name: str, predict: Predict, similarity: Any, score: Metric
) -> Task:
  """Returns a task that compares predictions of student and teacher.

  Args:
    name: the name of the task.
    predict: (outputs, batch) -> predictions `[B, ...]`.
    similarity: (student, teacher) -> the similarity of predictions `[B]`.
    score: the mean similarity.
  """

  def loss(outputs: Any, batch: Batch) -> Array:
    raise UsageError(
      f'task {name!r}: expected a method that does not use labels, such as kd '
      'with label_weight=0, because this task has no loss without a teacher'
    )

  def statistics(outputs: Any, batch: Batch) -> dict[str, Array]:
    if TEACHER not in batch:
      raise UsageError(
        f'task {name!r}: expected the column {TEACHER!r}, the predictions of '
        f'the teacher for the same images, got {", ".join(batch)}'
      )
    return {score.name: similarity(predict(outputs, batch), batch[TEACHER])}

  def summarize(rows: dict[str, np.ndarray]) -> dict[str, float]:
    return {score.name: float(np.mean(rows[score.name], dtype=np.float64))}

  def progress(outputs: Any, batch: Batch) -> Metrics:
    del outputs, batch  # a batch of training does not hold the predictions
    return {}

  def agreement(student: np.ndarray, teacher: np.ndarray) -> float:
    return float(np.mean(similarity(student, teacher), dtype=np.float64))

  return Task(
    name,
    loss,
    statistics,
    summarize,
    progress,
    predict,
    agreement,
    score,
    targets=(),
    reads_teacher=True,
  )


def _direction(outputs: Array, batch: Batch) -> Array:
  """Returns vectors of length 1, in float32."""
  del batch
  return numerics.normalize(numerics.flatten(outputs.astype(jnp.float32)))


def _cosine(student: Any, teacher: Any) -> Any:
  """Returns the cosines `[B]` of vectors of length 1."""
  return (student * teacher).sum(-1)
