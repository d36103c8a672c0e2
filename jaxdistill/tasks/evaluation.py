"""Metrics and predictions of a model on a split."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from jaxdistill.core.types import (
  Augment,
  Batch,
  Model,
  Network,
  Task,
  Variables,
)
from jaxdistill.data.loading import streaming
from jaxdistill.networks import graph

# The number of images at a time is at most `MOST`, and at most what fits into
# `BYTES` per device.
MOST = 500
BYTES = 32 << 20


def evaluate(
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  *,
  batch_size: int | None = None,
  sharding: NamedSharding | None = None,
) -> dict[str, float]:
  """Returns the metrics of a model in inference mode, {name: value}.

  Args:
    model: the model.
    split: {'image': uint8 `[N, H, W, C]`, and the targets}.
    task: what the targets mean.
    preprocess: replaces augmentation; it centres and standardises the images.
    batch_size: the number of images at a time, which is rounded up to a
      multiple of the number of devices. None: 500, or fewer if they need more
      than 32 MiB as float32 on each device.
    sharding: how the rows of a batch are spread over the axis 'data' of the
      devices; None: they are where the model is.
  """
  return task.summarize(
    over(_statistics, model, split, task, preprocess, batch_size, sharding)
  )


def predict(
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  *,
  batch_size: int | None = None,
  sharding: NamedSharding | None = None,
) -> Any:
  """Returns the predictions of a model on a split, `[N, ...]`.

  Args:
    model: see `evaluate`, like the others.
    split: the images and targets.
    task: what the targets mean.
    preprocess: replaces augmentation.
    batch_size: the number of images at a time.
    sharding: how the rows of a batch are spread.
  """
  return over(
    _predictions, model, split, task, preprocess, batch_size, sharding
  )


def answer(
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  *,
  batch_size: int | None = None,
  sharding: NamedSharding | None = None,
) -> tuple[Any, Any]:
  """Returns the predictions of a model and the probabilities of the classes.

  Args:
    model: see `evaluate`, like the others.
    split: the images and targets.
    task: what the targets mean; it gives probabilities.
    preprocess: replaces augmentation.
    batch_size: the number of images at a time.
    sharding: how the rows of a batch are spread.

  Returns:
    (predictions `[N, ...]`, probabilities float16 `[N, num_classes]`).
  """
  predictions, probabilities = over(
    _answers, model, split, task, preprocess, batch_size, sharding
  )
  return predictions, probabilities


def _statistics(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  batch = preprocess(jax.random.key(0), batch)
  return task.statistics(graph.apply(network, variables, batch['image']), batch)


def _predictions(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  batch = preprocess(jax.random.key(0), batch)
  outputs = graph.apply(network, variables, batch['image'])
  return task.predict(outputs, batch)


def _answers(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  assert task.probabilities is not None
  batch = preprocess(jax.random.key(0), batch)
  outputs = graph.apply(network, variables, batch['image'])
  probabilities = task.probabilities(outputs).astype(jnp.float16)
  return task.predict(outputs, batch), probabilities


@functools.cache
def _compiled(function: Any, sharding: NamedSharding | None) -> Any:
  """Compiles a function whose resulting rows every process receives."""
  static = (0, 1, 2)
  if sharding is None:
    return jax.jit(function, static_argnums=static)
  mesh = sharding.mesh

  def on_mesh(*arguments: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*arguments)

  whole = NamedSharding(mesh, PartitionSpec())
  return jax.jit(on_mesh, static_argnums=static, out_shardings=whole)


def over(
  function: Callable[[Network, Task, Augment, Any, Batch], Any],
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  batch_size: int | None = None,
  sharding: NamedSharding | None = None,
) -> Any:
  """Applies a function to a split in batches of one shape.

  Args:
    function: (network, task, preprocess, variables, batch) -> a tree of rows
      `[B, ...]`; compiled once for each network.
    model: the network, and the tree that the function takes as variables.
    split: see `evaluate`, like the others.
    task: what the targets mean.
    preprocess: replaces augmentation.
    batch_size: the number of images at a time.
    sharding: how the rows of a batch are spread.

  Returns:
    The tree of rows `[N, ...]` on the host, in the order of the split.
  """
  size = len(split['image'])
  parts = sharding.mesh.shape['data'] if sharding is not None else 1
  if batch_size is None:
    image_bytes = 4 * math.prod(split['image'].shape[1:])
    batch_size = min(MOST, max(1, BYTES // image_bytes) * parts)
  batch_size = -(-min(batch_size, size) // parts) * parts
  compiled = _compiled(function, sharding)
  # A process takes, and possibly decodes, only the rows of its own devices.
  own_rows = streaming.own_rows(batch_size, sharding)
  outputs, new_rows = [], []
  for start in range(0, size, batch_size):
    # The last batch begins earlier instead of being shorter, because another
    # shape would have to be compiled.
    first = max(0, min(start, size - batch_size))
    rows = np.minimum(np.arange(first, first + batch_size)[own_rows], size - 1)
    batch = {k: v[rows] for k, v in split.items()}
    if sharding is not None:
      batch = {
        k: streaming.spread(v, sharding, own_rows.start, batch_size)
        for k, v in batch.items()
      }
    outputs.append(
      compiled(model.network, task, preprocess, model.variables, batch)
    )
    new_rows.append(slice(start - first, size - first))
  parts_of_split = [
    jax.tree.map(lambda x, rows=rows: x[rows], output)
    for output, rows in zip(jax.device_get(outputs), new_rows)
  ]
  return jax.tree.map(lambda *x: np.concatenate(x), *parts_of_split)
