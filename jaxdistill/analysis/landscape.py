"""The loss around a network, along two random directions.

Li et al., Visualizing the Loss Landscape of Neural Nets, 2017,
https://arxiv.org/abs/1712.09913; the layout of the grid follows
https://github.com/tomgoldstein/loss-landscape
"""

from collections.abc import Iterator, Mapping
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Augment,
  Batch,
  Model,
  Network,
  PyTree,
  Task,
  Variables,
)
from jaxdistill.networks import graph

if TYPE_CHECKING:
  from matplotlib import figure


class Surface(NamedTuple):
  """Losses on a grid.

  Attributes:
    steps: the positions along either direction, `[P]`.
    loss: the losses, `[P, P]`. Rows belong to the first direction.
  """

  steps: np.ndarray
  loss: np.ndarray


def directions(params: PyTree, rng: Array) -> tuple[PyTree, PyTree]:
  """Draws two random directions, normalised filter by filter.

  Each filter of a kernel (counted by its last axis) has the norm of the
  network's filter. The directions are zero for biases and for the parameters of
  norms.

  Args:
    params: the network's parameters.
    rng: a random key. The same key gives networks of the same shapes the same
      directions, apart from the norms.
  """

  def direction(rng: Array) -> PyTree:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(rng, len(leaves))
    steps = [_filterwise(key, leaf) for key, leaf in zip(keys, leaves)]
    return jax.tree.unflatten(structure, steps)

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
  """Computes the mean loss at params + x * first + y * second on a grid.

  The network is in inference mode, with the running statistics of the model.

  Args:
    model: the model, which is the centre of the grid.
    split: {'image': uint8 `[N, H, W, C]`, and the targets}. The paper uses
      training images without augmentation.
    task: the task, whose loss is computed.
    preprocess: the preprocessing for evaluation (standardisation).
    seed: the seed of the directions.
    points: the number of grid points along each direction; an odd number.
    span: x and y go from -span to span.
    batch_size: the number of images that are evaluated at once.
    chunk: the number of grid points that one program evaluates at once. None
      means 1 on a CPU, which is slow at convolutions with many kernels, and 17
      elsewhere.

  Raises:
    UsageError: a number is out of its range.
  """
  points = checks.integer('points', points)
  if points % 2 == 0:
    raise UsageError(
      'points: expected an odd number, so that the model is one of the points, '
      f'got {points}'
    )
  checks.number('span', span, above=0)
  batch_size = checks.integer('batch_size', batch_size)
  default_chunk = 1 if jax.default_backend() == 'cpu' else 17
  chunk = checks.integer('chunk', default_chunk if chunk is None else chunk)
  axes = directions(model.variables['params'], jax.random.key(seed))
  steps = np.linspace(-span, span, points)
  steps[points // 2] = 0.0
  grid = np.stack(np.meshgrid(steps, steps, indexing='ij'), -1).reshape(-1, 2)
  # Padding the last chunk to the length of the others avoids a second program.
  padded = np.concatenate([grid, grid[-1:].repeat(-len(grid) % chunk, 0)])
  total = np.zeros(len(padded))
  for batch in _batches(split, batch_size):
    for start in range(0, len(padded), chunk):
      rows = slice(start, start + chunk)
      positions = jnp.asarray(padded[rows], jnp.float32)
      total[rows] += _losses(
        model.network,
        task,
        preprocess,
        model.variables,
        axes,
        positions,
        batch,
      )
  mean = total[: len(grid)] / len(split['image'])
  return Surface(steps, mean.reshape(points, points))


def draw(
  surfaces: Mapping[str, Surface],
  *,
  columns: int = 3,
  kind: str = 'contour',
  highest: float | None = None,
) -> 'figure.Figure':
  """Draws surfaces in rows of panels, as contours or in three dimensions.

  Args:
    surfaces: title -> surface.
    columns: the number of panels in a row.
    kind: 'contour' or '3d'.
    highest: the loss at which surfaces are cut off; None means that they are
      not.

  Raises:
    UsageError: the kind does not exist.
  """
  checks.choice('kind of figure', kind, ('contour', '3d'))
  columns = min(checks.integer('columns', columns), len(surfaces))
  rows = -(-len(surfaces) // columns)
  drawing = figures.empty(3 * columns, 3 * rows)
  for i, (title, surface) in enumerate(surfaces.items(), 1):
    loss = np.minimum(surface.loss, np.inf if highest is None else highest)
    if kind == '3d':
      axes: Any = drawing.add_subplot(rows, columns, i, projection='3d')
      x, y = np.meshgrid(surface.steps, surface.steps, indexing='ij')
      axes.plot_surface(x, y, loss, cmap='viridis')
    else:
      axes = drawing.add_subplot(rows, columns, i)
      lines = axes.contour(surface.steps, surface.steps, loss.T, levels=15)
      axes.clabel(lines, fontsize=6)
    axes.set(title=title)
  return drawing


def _filterwise(rng: Array, kernel: Array) -> Array:
  """Draws a Gaussian with the shape and the filter norms of a kernel."""
  if kernel.ndim < 2:
    return jnp.zeros_like(kernel)
  axes = tuple(range(kernel.ndim - 1))

  def norms(x: Array) -> Array:
    return jnp.sqrt((x**2).sum(axes, keepdims=True))

  gaussian = jax.random.normal(rng, kernel.shape, kernel.dtype)
  return gaussian * norms(kernel) / (norms(gaussian) + 1e-10)


def _batches(split: Mapping[str, Any], size: int) -> Iterator[Batch]:
  """Yields the rows of a split, `size` at a time."""
  for start in range(0, len(split['image']), size):
    rows = slice(start, start + size)
    yield {k: jnp.asarray(column[rows]) for k, column in split.items()}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  axes: tuple[PyTree, PyTree],
  positions: Array,
  batch: Batch,
) -> Array:
  """Returns the sum of a batch's losses at the positions `[P, 2]`, `[P]`."""
  batch = preprocess(jax.random.key(0), batch)

  def loss(position: Array) -> Array:
    params = jax.tree.map(
      lambda x, a, b: x + position[0] * a + position[1] * b,
      variables['params'],
      *axes,
    )
    outputs = graph.apply(
      network, {**variables, 'params': params}, batch['image']
    )
    return task.loss(outputs, batch).sum()

  return jax.vmap(loss)(positions)
