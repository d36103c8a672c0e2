"""How much each layer's gradient changes in length from batch to batch.

The microbenchmark of Masked Layer Distillation (tech report
UCB/EECS-2021-243): depthwise separable convolutions against dense ones.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib import figure
import numpy as np

from jaxdistill.data import batches
from jaxdistill.networks import staged
from jaxdistill.types import Array, Augment, Batch, Model, Task, Variables


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
  """Norms of the gradient of each kernel, batch by batch.

  The model is in training mode and does not move.

  Args:
    model: the model.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`}.
    preprocess: what stands in for augmentation (standardisation).
    task: its loss on labels is differentiated.
    batch_size: images in a batch.
    num_batches: how many.
    seed: of the batches.

  Returns:
    'stage/layer' -> `[num_batches]`, in the order of the stages.

  Raises:
    UsageError: there are fewer images than a batch has.
  """

  @jax.jit
  def norms(variables: Variables, batch: Batch, rng: Array) -> list[Array]:
    batch = preprocess(rng, batch)

    def loss_of(params: Any) -> Array:
      features, _ = staged.run(
        model.network,
        {**variables, 'params': params},
        {'image': batch['image']},
        train=True,
        rngs={'dropout': rng},
      )
      answer = features[staged.output(model.network)]
      return task.loss(answer, batch).mean()

    gradient = jax.grad(loss_of)(variables['params'])
    return [jnp.linalg.norm(x) for x in _kernels(model, gradient).values()]

  size = len(split['label'])
  per_epoch = batches.steps_per_epoch(size, batch_size)
  found = []
  for step in range(num_batches):
    epoch, place = divmod(step, per_epoch)
    order = batches.epoch_order((seed,), epoch, size)
    rows = order[place * batch_size : (place + 1) * batch_size]
    batch = {k: jnp.asarray(v[rows]) for k, v in split.items()}
    rng = jax.random.fold_in(jax.random.key(seed), step)
    found.append(norms(model.variables, batch, rng))
  table = np.asarray(jax.device_get(found), np.float64)
  return dict(zip(_kernels(model, model.variables['params']), table.T))


def noise(norms: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Each layer's standard deviation of norms over their mean.

  Args:
    norms: of `gradient_norms`.
  """
  return {k: float(v.std(ddof=1) / v.mean()) for k, v in norms.items()}


def draw(lines: Mapping[str, Mapping[str, np.ndarray]]) -> figure.Figure:
  """The noise of each layer against its depth, a line for each network.

  Args:
    lines: label -> its `gradient_norms`.
  """
  drawn = figure.Figure(figsize=(5, 3.5), layout='constrained')
  axes = drawn.add_subplot()
  for label, norms in lines.items():
    values = list(noise(norms).values())
    axes.plot(np.linspace(0, 1, len(values)), values, marker='.', label=label)
  axes.set(
    xlabel='depth of the layer, as a share of the network',
    ylabel='sd / mean of its gradient norm',
    ylim=(0, None),
  )
  axes.legend()
  return drawn


def _kernels(model: Model, params: Any) -> dict[str, Array]:
  """'stage/layer' -> its kernel, stages in their order."""
  found = {}
  for stage in staged.stage_names(model.network):
    tree = params.get(stage, {})
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      layer = jax.tree_util.keystr(path, simple=True, separator='/')
      if layer.endswith('kernel'):
        found[f'{stage}/{layer}'.removesuffix('/kernel')] = leaf
  return found
