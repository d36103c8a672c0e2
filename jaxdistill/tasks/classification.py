"""Classification: logits `[B, num_classes]` against one label per image."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill.types import Array, Batch, Task, UsageError


def classification(*, label_smoothing: float = 0.0) -> Task:
  """Cross-entropy, top-1 and top-5; top-1 chooses the epoch.

  Args:
    label_smoothing: share of each label spread evenly over all classes, in
      training only.

  Raises:
    UsageError: it is no share.
  """
  if not 0 <= label_smoothing < 1:
    raise UsageError(
      f'task.label_smoothing: {label_smoothing} is no share in [0, 1)'
    )

  def loss(logits: Array, batch: Batch) -> Array:
    target = one_hot(batch['label'], logits.shape[-1])
    target = optax.smooth_labels(target, label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)

  return Task(loss, _statistics, _summarize, _predict, _agreement, 'top1')


def one_hot(label: Array, num_classes: int) -> Array:
  """Labels `[B]`, or mixed ones `[B, num_classes]`, as `[B, num_classes]`."""
  if label.ndim == 1:
    return jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
  return label.astype(jnp.float32)


def _statistics(logits: Array, batch: Batch) -> dict[str, Array]:
  logits = logits.astype(jnp.float32)
  target = one_hot(batch['label'], logits.shape[-1])
  label = target.argmax(-1)[:, None]
  # Ties and NaN count as wrong, so that constant logits do not look right.
  chosen = jnp.take_along_axis(logits, label, axis=-1)
  others = jnp.arange(logits.shape[-1])[None] != label
  rank = (~(logits < chosen) & others).sum(-1)
  return {
    'loss': optax.softmax_cross_entropy(logits, target),
    'top1': (rank < 1).astype(jnp.float32),
    'top5': (rank < 5).astype(jnp.float32),
  }


def _summarize(statistics: dict[str, np.ndarray]) -> dict[str, float]:
  return {k: float(np.mean(v, dtype=np.float64)) for k, v in statistics.items()}


def _predict(logits: Array) -> Array:
  return logits.argmax(-1)


def _agreement(predictions: np.ndarray, others: np.ndarray) -> float:
  return float(np.mean(predictions == others))
