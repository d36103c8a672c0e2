"""Classification: logits `[B, num_classes]` and one label per image."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.metric import TOP1
from jaxdistill.core.types import Array, Batch, Dataset, Metrics, Task


def classification(*, label_smoothing: float = 0.0) -> Task:
  """Returns the task of classification.

  The loss is cross-entropy, -sum_i t_i log q_i, Equation (6) of Orthogonality.
  The metrics are the loss, top-1 and top-5 accuracy,
  and the top-1 accuracy chooses the best epoch.

  Args:
    label_smoothing: the fraction of each label that is spread evenly over all
      classes, in training only.

  Raises:
    UsageError: the label smoothing is not in [0, 1).
  """
  checks.number('label_smoothing', label_smoothing, at_least=0, below=1)

  def loss(logits: Array, batch: Batch) -> Array:
    target = one_hot(batch['label'], logits.shape[-1])
    target = optax.smooth_labels(target, label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)

  return Task(
    'classification',
    loss,
    _statistics,
    _summarize,
    _progress,
    _predict,
    _agreement,
    TOP1,
    check=check_labels,
    probabilities=probabilities,
  )


def check_labels(dataset: Dataset) -> None:
  """Checks that all labels of a data set are classes.

  Args:
    dataset: the data. Labels `[N, num_classes]`, which are probabilities, are
      not checked.

  Raises:
    UsageError: a label is not an integer in [0, num_classes). Inside `jax.jit`,
      where it cannot be refused, it would silently count as no class at all.
  """
  for name, split in dataset.splits.items():
    label = np.asarray(split['label'])
    if label.ndim > 1 or not label.size:
      continue
    low, high = label.min(), label.max()
    if label.dtype.kind not in 'iu' or low < 0 or high >= dataset.num_classes:
      raise UsageError(
        f'labels: expected integers from 0 to {dataset.num_classes - 1} in the '
        f'split {name!r}, got {low} to {high}'
      )


def one_hot(label: Array, num_classes: int) -> Array:
  """Returns labels as probabilities `[B, num_classes]`.

  Args:
    label: class numbers `[B]`, or mixed labels `[B, num_classes]`.
    num_classes: the number of classes.
  """
  if label.ndim == 1:
    return jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
  return label.astype(jnp.float32)


def probabilities(logits: Array) -> Array:
  """Returns the probabilities of the classes, `[B, num_classes]` in float32.

  Args:
    logits: `[B, num_classes]`.
  """
  return jax.nn.softmax(logits.astype(jnp.float32))


def _statistics(logits: Array, batch: Batch) -> dict[str, Array]:
  logits = logits.astype(jnp.float32)
  target = one_hot(batch['label'], logits.shape[-1])
  label = target.argmax(-1)[:, None]
  # If logits are equal, as they often are in 8 bits, the first class is the
  # prediction, as for argmax. NaN counts as wrong.
  label_logit = jnp.take_along_axis(logits, label, axis=-1)
  classes = jnp.arange(logits.shape[-1])[None]
  is_behind = jnp.where(
    classes > label, logits <= label_logit, logits < label_logit
  )
  rank = (~is_behind & (classes != label)).sum(-1)
  return {
    'loss': optax.softmax_cross_entropy(logits, target),
    'top1': (rank < 1).astype(jnp.float32),
    'top5': (rank < 5).astype(jnp.float32),
  }


def _summarize(statistics: dict[str, np.ndarray]) -> dict[str, float]:
  return {k: float(np.mean(v, dtype=np.float64)) for k, v in statistics.items()}


def _progress(logits: Array, batch: Batch) -> Metrics:
  return {TOP1.name: _statistics(logits, batch)[TOP1.name].mean()}


def _predict(logits: Array, batch: Batch) -> Array:
  del batch
  return logits.argmax(-1)


def _agreement(student: np.ndarray, teacher: np.ndarray) -> float:
  """Returns the fraction of examples with equal predictions."""
  return float(np.mean(student == teacher))
