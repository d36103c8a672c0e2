"""How much the norm of each layer's gradient changes from batch to batch.

This is the microbenchmark of Masked Layer Distillation (tech report
UCB/EECS-2021-243), which compares depthwise separable with dense convolutions.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core.types import Array, Augment, Batch, Model, Task, Variables
from jaxdistill.data.loading import batches
from jaxdistill.networks import graph

if TYPE_CHECKING:
  from matplotlib import figure


def gradient_norms(
  model: Model,
  split: Mapping[str, Any],
  preprocess: Augment,
  task: Task,
  *,
  batch_size: int = 64,
  num_batches: int = 50,
  seed: int = 0,
) -> dict[str, np.ndarray]:
  """Returns the norm of the gradient of each kernel, batch by batch.

  The model is in training mode, and its parameters are not updated.

  Args:
    model: the model.
    split: {'image': uint8 `[N, H, W, C]`, and the targets}.
    preprocess: the preprocessing for evaluation (standardisation).
    task: the task, whose loss is differentiated.
    batch_size: the number of images in a batch.
    num_batches: the number of batches.
    seed: the seed of the batches.

  Returns:
    'stage/layer' -> `[num_batches]`, in the order of the stages.

  Raises:
    UsageError: there are fewer images than `batch_size`.
  """

  @jax.jit
  def norms(variables: Variables, batch: Batch, rng: Array) -> list[Array]:
    batch = preprocess(rng, batch)

    def loss_of(params: Any) -> Array:
      features, _ = graph.run(
        model.network,
        {**variables, 'params': params},
        {'image': batch['image']},
        train=True,
        rngs={'dropout': rng},
      )
      outputs = graph.output(model.network, features)
      return task.loss(outputs, batch).mean()

    gradient = jax.grad(loss_of)(variables['params'])
    return [jnp.linalg.norm(x) for x in _kernels(model, gradient).values()]

  size = len(split['image'])
  per_epoch = batches.steps_per_epoch(size, batch_size)
  rows = []
  for step in range(num_batches):
    epoch, position = divmod(step, per_epoch)
    order = batches.epoch_order((seed,), epoch, size)
    chosen = order[position * batch_size : (position + 1) * batch_size]
    batch = {k: jnp.asarray(v[chosen]) for k, v in split.items()}
    rng = jax.random.fold_in(jax.random.key(seed), step)
    rows.append(norms(model.variables, batch, rng))
  table = np.asarray(jax.device_get(rows), np.float64)
  return dict(zip(_kernels(model, model.variables['params']), table.T))


def noise(norms: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Returns the standard deviation of each layer's norms, over their mean.

  Args:
    norms: from `gradient_norms`.
  """
  return {k: float(v.std(ddof=1) / v.mean()) for k, v in norms.items()}


def draw(lines: Mapping[str, Mapping[str, np.ndarray]]) -> 'figure.Figure':
  """Draws the noise of each layer against its depth, one line per network.

  Args:
    lines: label -> the network's `gradient_norms`.
  """
  drawing = figures.empty(5, 3.5)
  axes = drawing.add_subplot()
  for label, norms in lines.items():
    values = list(noise(norms).values())
    axes.plot(np.linspace(0, 1, len(values)), values, marker='.', label=label)
  axes.set(
    xlabel='depth of the layer, as a fraction of the network',
    ylabel='sd / mean of its gradient norm',
    ylim=(0, None),
  )
  axes.legend()
  return drawing


def _kernels(model: Model, params: Any) -> dict[str, Array]:
  """Returns 'stage/layer' -> its kernel, in the order of the stages."""
  kernels = {}
  for stage in graph.stage_names(model.network):
    tree = params.get(stage, {})
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      layer = jax.tree_util.keystr(path, simple=True, separator='/')
      if layer.endswith('kernel'):
        kernels[f'{stage}/{layer}'.removesuffix('/kernel')] = leaf
  return kernels
