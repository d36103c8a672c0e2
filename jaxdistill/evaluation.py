"""Metrics of a model on a split, and the agreement of two models."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from jaxdistill.data import streaming
from jaxdistill.networks import staged
from jaxdistill.types import Augment, Batch, Model, Network, Task, Variables

# Images at a time; of large ones, what so many bytes hold.
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
  """Metrics of a model in inference mode, {name: value}.

  Args:
    model: the model.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`}.
    task: what the labels mean.
    preprocess: what stands in for augmentation (standardisation).
    batch_size: images at a time, rounded up to what the devices divide; None:
      500, or as many large ones as take 32 MiB as float32 on each device.
    sharding: how the rows of a batch lie on the devices, over the axis 'data';
      None: wherever the model is.
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
  """Predictions of a model on a split, `[N, ...]`; arguments as `evaluate`."""
  return over(
    _predictions, model, split, task, preprocess, batch_size, sharding
  )


def _statistics(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  batch = preprocess(jax.random.key(0), batch)
  return task.statistics(
    staged.apply(network, variables, batch['image']), batch
  )


def _predictions(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  batch = preprocess(jax.random.key(0), batch)
  return task.predict(staged.apply(network, variables, batch['image']))


@functools.cache
def _compiled(function: Any, sharding: NamedSharding | None) -> Any:
  """The function under jit; its rows come back to every process."""
  whole = sharding and NamedSharding(sharding.mesh, PartitionSpec())
  return jax.jit(function, static_argnums=(0, 1, 2), out_shardings=whole)


def over(
  function: Callable[[Network, Task, Augment, Any, Batch], Any],
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  batch_size: int | None = None,
  sharding: NamedSharding | None = None,
) -> Any:
  """Rows `[N, ...]` of a function over a split, in batches of one shape.

  Args:
    function: (network, task, preprocess, variables, batch) -> tree of rows
      `[B, ...]`; compiled once for each network.
    model: its network, and whatever tree the function takes as variables.
    split: as `evaluate`; so are the rest.
    task: what the labels mean.
    preprocess: what stands in for augmentation.
    batch_size: images at a time.
    sharding: of the rows of a batch.
  """
  size = len(split['image'])
  parts = sharding.mesh.shape['data'] if sharding is not None else 1
  if batch_size is None:
    image = 4 * math.prod(split['image'].shape[1:])
    batch_size = min(MOST, max(1, BYTES // image) * parts)
  batch_size = -(-min(batch_size, size) // parts) * parts
  compiled = _compiled(function, sharding)
  # Of what is decoded when rows are taken, a process decodes only its own.
  own_rows = streaming.own_rows(batch_size, sharding)
  outs, counted = [], []
  for start in range(0, size, batch_size):
    # The last batch begins earlier rather than being shorter: one program.
    first = max(0, min(start, size - batch_size))
    taken = np.minimum(np.arange(first, first + batch_size)[own_rows], size - 1)
    batch = {k: v[taken] for k, v in split.items()}
    if sharding is not None:
      batch = {
        k: streaming.spread(v, sharding, own_rows.start, batch_size)
        for k, v in batch.items()
      }
    outs.append(
      compiled(model.network, task, preprocess, model.variables, batch)
    )
    counted.append(slice(start - first, size - first))
  rows = [
    jax.tree.map(lambda x, own=own: x[own], out)
    for out, own in zip(jax.device_get(outs), counted)
  ]
  return jax.tree.map(lambda *x: np.concatenate(x), *rows)
