"""Metrics of a model on a split, and the agreement of two models."""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import numpy as np

from jaxdistill.networks import staged
from jaxdistill.types import Augment, Batch, Model, Network, Task, Variables


def evaluate(
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  *,
  batch_size: int = 500,
) -> dict[str, float]:
  """Metrics of a model in inference mode, {name: value}.

  Args:
    model: the model.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`}.
    task: what the labels mean.
    preprocess: what stands in for augmentation (standardisation).
    batch_size: images at a time.
  """
  return task.summarize(
    _over(_statistics, model, split, task, preprocess, batch_size)
  )


def predict(
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  *,
  batch_size: int = 500,
) -> Any:
  """Predictions of a model on a split, `[N, ...]`; arguments as `evaluate`."""
  return _over(_predictions, model, split, task, preprocess, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
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


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predictions(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  batch = preprocess(jax.random.key(0), batch)
  return task.predict(staged.apply(network, variables, batch['image']))


def _over(
  function: Any,
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  batch_size: int,
) -> Any:
  """Rows `[N, ...]` of `function` over a split, in batches of one shape."""
  size = len(split['image'])
  batch_size = min(batch_size, size)
  rows = []
  for start in range(0, size, batch_size):
    # The last batch begins earlier rather than being shorter: one program.
    first = min(start, size - batch_size)
    batch = {k: v[first : first + batch_size] for k, v in split.items()}
    out = function(model.network, task, preprocess, model.variables, batch)
    rows.append(jax.tree.map(lambda x, n=start - first: x[n:], out))
  return jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(rows))
