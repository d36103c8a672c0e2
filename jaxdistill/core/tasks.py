"""Tasks: what the targets of a data set mean, as pure functions.

In shapes, `B` is the batch size and `N` the number of examples of a split.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from jaxdistill.core.metric import Metric
from jaxdistill.core.values import (
  Array,
  Batch,
  Dataset,
  Features,
  Metrics,
  Output,
)


class TaskLoss(Protocol):
  """The loss of a network's outputs on the targets."""

  def __call__(self, outputs: Any, batch: Batch, /) -> Array:
    """Returns one loss per example, `[B]`.

    Args:
      outputs: the network's `Output`: an array `[B, ...]`, for example logits,
        or a dict of arrays.
      batch: the batch, with its targets.
    """


class TaskStatistics(Protocol):
  """What the metrics of a split are computed from, for one batch."""

  def __call__(self, outputs: Any, batch: Batch, /) -> dict[str, Array]:
    """Returns named arrays `[B, ...]` with one row per example.

    Args:
      outputs: the network's `Output`.
      batch: the batch, with its targets.
    """


class Summarize(Protocol):
  """Turns the statistics of a whole split into metrics."""

  def __call__(self, statistics: dict[str, Any], /) -> dict[str, float]:
    """Returns {metric: value}.

    Args:
      statistics: what `Task.statistics` returned, joined over all batches:
        arrays `[N, ...]` on the host.
    """


class Progress(Protocol):
  """What the log of the training shows of a task."""

  def __call__(self, outputs: Any, batch: Batch, /) -> Metrics:
    """Returns {metric: scalar} of one batch.

    The task's score is among them, unless it cannot be computed for a single
    batch. Methods that compare models by batches then refuse the task. The mean
    over batches stands for the metric of the whole split, from which it differs
    if the metric is not a mean over examples.

    Args:
      outputs: the network's `Output`.
      batch: the batch, with its targets.
    """


class Predict(Protocol):
  """Turns outputs into predictions."""

  def __call__(self, outputs: Any, batch: Batch, /) -> Any:
    """Returns predictions `[B, ...]`, for example class numbers `[B]`.

    Those of a whole split are kept in memory, so they should be small.

    Args:
      outputs: the network's `Output`, or what `Task.final` makes of it.
      batch: the batch. It always has the images, but it need not have targets.
    """


class Probabilities(Protocol):
  """Turns outputs into probabilities of classes."""

  def __call__(self, outputs: Any, /) -> Array:
    """Returns the probabilities of the classes, `[B, num_classes]`.

    Args:
      outputs: the network's `Output`, or what `Task.final` makes of it.
    """


class Final(Protocol):
  """Turns outputs into what an exported file gives."""

  def __call__(self, outputs: Any, size: Sequence[int], /) -> Output:
    """Returns what the file's user gets of a network's outputs, `[B, ...]`.

    Args:
      outputs: the network's `Output`.
      size: the height and width of the images.
    """


def as_they_are(outputs: Output, size: Sequence[int], /) -> Output:
  """Returns the outputs; they do not depend on the size of the images."""
  del size
  return outputs


class Probes(Protocol):
  """Measures how well labels can be read from predictions that are vectors."""

  def __call__(
    self, train: Any, train_label: Any, test: Any, test_label: Any, /
  ) -> dict[str, float]:
    """Returns {metric: fraction of the test images} in [0, 1].

    Args:
      train: the predictions for the training images, `[N, D]` on the host.
      train_label: their classes, `[N]`.
      test: the predictions for the test images, `[M, D]`.
      test_label: their classes, `[M]`.
    """


class Agreement(Protocol):
  """Measures how far two models agree on a split."""

  def __call__(self, student: Any, teacher: Any, /) -> float:
    """Returns the agreement, at most 1, the value of equal predictions.

    Args:
      student: the predictions of one model, `[N, ...]` on the host.
      teacher: the predictions of the other model for the same examples.
    """


# The column of a batch that holds the predictions of the teacher.
TEACHER = 'teacher'
# The column of a training batch that holds the main output of the teacher for
# the augmented images.
TEACHER_OUTPUTS = 'teacher_outputs'


def only_images(batch: Batch, /) -> Features:
  """Returns the images of a batch, which is all that most networks read."""
  return {'image': batch['image']}


def _no_check(dataset: Dataset, /) -> None:
  del dataset


def _no_notes(dataset: Dataset, /) -> tuple[str, ...]:
  del dataset
  return ()


class Task(NamedTuple):
  """What the targets of a data set mean.

  Attributes:
    name: what the task is called in messages.
    loss: (outputs, batch) -> one loss per example `[B]`.
    statistics: (outputs, batch) -> named arrays `[B, ...]`, one row per
      example.
    summarize: the statistics of a whole split -> {metric: value}.
    progress: (outputs, batch) -> {metric: scalar}, for the training log.
    predict: (outputs, batch) -> predictions `[B, ...]`.
    agreement: the predictions of two models on one split -> a number of at most
      1.
    score: the metric that chooses the best epoch.
    targets: the columns of the data that the task reads besides 'image'.
    class_scores: whether the last axis of the main output holds scores of
      classes, which methods such as `kd` turn into probabilities.
    whole_images: whether whole images are evaluated, in the size that the data
      have, and not a part of them in the size of training.
    final: (outputs, size of the images) -> what an exported file gives, for
      example maps of that size.
    final_name: what the result of `final` is called in the description of an
      exported file, such as 'embedding of length 1'; empty if it is what the
      network gives, such as the scores of classes.
    check: dataset -> None; a UsageError refuses targets that are not valid.
    reads_teacher: whether the statistics read the column `TEACHER`, the
      predictions of the teacher for the same images. Such a task needs a
      trained teacher, and networks get as many outputs as it has.
    probes: what is measured of predictions if the images have labels, or None.
      The predictions are then vectors.
    notes: dataset -> lines that are printed before training, one for each thing
      that may surprise the user.
    probabilities: outputs -> the probabilities of classes `[B, num_classes]`,
      from which the report of a run is made; None if the task has none.
    prepare: (rng, batch) -> batch; changes standardised batches before the
      networks see them. For example, it adds channels to the images. It is used
      in training and in evaluation, where the key is always the same. None:
      nothing changes.
    num_outputs: the number of output channels that networks of a config get;
      None: the number of classes.
    inputs: batch -> the features that a network reads in training: 'image', and
      those that its stages name as `optional`. Outside of training, networks
      read only images.
  """

  name: str
  loss: TaskLoss
  statistics: TaskStatistics
  summarize: Summarize
  progress: Progress
  predict: Predict
  agreement: Agreement
  score: Metric
  targets: tuple[str, ...] = ('label',)
  class_scores: bool = True
  whole_images: bool = False
  final: Final = as_they_are
  final_name: str = ''
  check: Callable[[Dataset], None] = _no_check
  reads_teacher: bool = False
  probes: Probes | None = None
  notes: Callable[[Dataset], tuple[str, ...]] = _no_notes
  probabilities: Probabilities | None = None
  prepare: Callable[[Array, Batch], Batch] | None = None
  num_outputs: int | None = None
  inputs: Callable[[Batch], Features] = only_images
