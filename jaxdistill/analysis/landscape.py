"""The loss around a network, along two random directions.

Li et al., Visualizing the Loss Landscape of Neural Nets, 2017,
https://arxiv.org/abs/1712.09913; the layout of
https://github.com/tomgoldstein/loss-landscape
"""

from collections.abc import Iterator, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from matplotlib import figure
import numpy as np

from jaxdistill.losses import numerics
from jaxdistill.networks import arguments, staged
from jaxdistill.types import (
  Array,
  Augment,
  Batch,
  Model,
  Network,
  PyTree,
  Task,
  UsageError,
  Variables,
)


class Surface(NamedTuple):
  """Losses on a grid.

  Attributes:
    steps: along either direction, `[P]`.
    loss: `[P, P]`, the first direction downwards.
  """

  steps: np.ndarray
  loss: np.ndarray


def directions(params: PyTree, rng: Array) -> tuple[PyTree, PyTree]:
  """Two random directions, normalised filter by filter.

  Each filter of a kernel (its last axis counts them) has the norm of the
  network's own filter; biases and parameters of norms do not move.

  Args:
    params: of the network.
    rng: the same one gives the same directions for networks of one kind.
  """

  def direction(rng: Array) -> PyTree:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(rng, len(leaves))
    made = [_filterwise(*x) for x in zip(keys, leaves)]
    return jax.tree.unflatten(structure, made)

  first, second = jax.random.split(rng)
  return direction(first), direction(second)


def loss_surface(
  model: Model,
  split: Mapping[str, Any],
  task: Task,
  preprocess: Augment,
  *,
  seed: int = 0,
  points: int = 51,
  span: float = 1.0,
  batch_size: int = 500,
  chunk: int | None = None,
) -> Surface:
  """The mean loss of labels at params + x * first + y * second.

  In inference mode, with the running statistics as they are.

  Args:
    model: the model, which is the middle of the grid.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`}; the paper's
      training images, not augmented.
    task: its loss.
    preprocess: what stands in for augmentation (standardisation).
    seed: of the directions.
    points: of the grid, along each direction; odd.
    span: x and y go from -span to span.
    batch_size: images at a time.
    chunk: points at a time, in one program; None: 1 on a CPU, which is slow at
      convolutions with many kernels at once, else 17.

  Raises:
    UsageError: a number is out of its range.
  """
  points = arguments.whole('points', points)
  if points % 2 == 0:
    raise UsageError(f'points: {points} is even: no point would be the model')
  numerics.check_positive('span', span)
  batch_size = arguments.whole('batch_size', batch_size)
  usual = 1 if jax.default_backend() == 'cpu' else 17
  chunk = arguments.whole('chunk', usual if chunk is None else chunk)
  both = directions(model.variables['params'], jax.random.key(seed))
  steps = np.linspace(-span, span, points)
  steps[points // 2] = 0.0
  grid = np.stack(np.meshgrid(steps, steps, indexing='ij'), -1).reshape(-1, 2)
  # The last chunk has as many points as the others: one program.
  padded = np.concatenate([grid, grid[-1:].repeat(-len(grid) % chunk, 0)])
  total = np.zeros(len(padded))
  for batch in _batches(split, batch_size):
    for start in range(0, len(padded), chunk):
      own = slice(start, start + chunk)
      where = jnp.asarray(padded[own], jnp.float32)
      total[own] += _losses(
        model.network, task, preprocess, model.variables, both, where, batch
      )
  mean = total[: len(grid)] / len(split['image'])
  return Surface(steps, mean.reshape(points, points))


def draw(
  surfaces: Mapping[str, Surface],
  *,
  columns: int = 3,
  kind: str = 'contour',
  highest: float | None = None,
) -> figure.Figure:
  """Surfaces in rows, as contours or in three dimensions.

  Args:
    surfaces: title -> surface.
    columns: panels in a row, such as the snapshots of one method.
    kind: 'contour' or '3d'.
    highest: the loss at which surfaces are cut off; None: they are not.

  Raises:
    UsageError: there is no such kind.
  """
  if kind not in ('contour', '3d'):
    raise staged.unknown('kind of figure', kind, ('contour', '3d'))
  columns = min(arguments.whole('columns', columns), len(surfaces))
  rows = -(-len(surfaces) // columns)
  drawn = figure.Figure(figsize=(3 * columns, 3 * rows), layout='constrained')
  for i, (title, surface) in enumerate(surfaces.items(), 1):
    loss = np.minimum(surface.loss, np.inf if highest is None else highest)
    if kind == '3d':
      axes: Any = drawn.add_subplot(rows, columns, i, projection='3d')
      x, y = np.meshgrid(surface.steps, surface.steps, indexing='ij')
      axes.plot_surface(x, y, loss, cmap='viridis')
    else:
      axes = drawn.add_subplot(rows, columns, i)
      lines = axes.contour(surface.steps, surface.steps, loss.T, levels=15)
      axes.clabel(lines, fontsize=6)
    axes.set(title=title)
  return drawn


def _filterwise(rng: Array, x: Array) -> Array:
  """A Gaussian of the shape of `x` with the norms of its filters."""
  if x.ndim < 2:
    return jnp.zeros_like(x)
  axes = tuple(range(x.ndim - 1))
  drawn = jax.random.normal(rng, x.shape, x.dtype)
  ours, wanted = (jnp.sqrt((a**2).sum(axes, keepdims=True)) for a in (drawn, x))
  return drawn * wanted / (ours + 1e-10)


def _batches(split: Mapping[str, Any], size: int) -> Iterator[Batch]:
  for start in range(0, len(split['image']), size):
    own = slice(start, start + size)
    yield {k: jnp.asarray(split[k][own]) for k in ('image', 'label')}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  both: tuple[PyTree, PyTree],
  where: Array,
  batch: Batch,
) -> Array:
  """Sum of the losses of a batch at some points `[P, 2]`, `[P]`."""
  batch = preprocess(jax.random.key(0), batch)

  def loss(point: Array) -> Array:
    params = jax.tree.map(
      lambda x, a, b: x + point[0] * a + point[1] * b,
      variables['params'],
      *both,
    )
    answer = staged.apply(
      network, {**variables, 'params': params}, batch['image']
    )
    return task.loss(answer, batch).sum()

  return jax.vmap(loss)(where)
