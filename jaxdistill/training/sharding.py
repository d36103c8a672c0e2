"""Where arrays lie: batches spread over devices, large parameters if wanted.

One program runs on all devices. Its batches are split over the axis 'data' of a
mesh, and XLA makes whatever the program says of a batch true of all devices
together: batch statistics, relations between examples, the gradient.
"""

import functools
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jaxdistill.data import batches
from jaxdistill.types import Array, PyTree, UsageError

# Values in the smallest array that is split over the axis 'model'.
LARGE = 1 << 18


def make_mesh(model_parallel: int = 1) -> Mesh:
  """All devices of all processes, with the axes 'data' and 'model'.

  Args:
    model_parallel: devices that share large arrays; the size of 'model'.

  Raises:
    UsageError: it does not divide the number of devices.
  """
  count = jax.device_count()
  if model_parallel < 1 or count % model_parallel:
    valid = [n for n in range(1, count + 1) if count % n == 0]
    raise UsageError(
      f'model_parallel is {model_parallel}; {count} devices allow: '
      f'{", ".join(map(str, valid))}'
    )
  devices = np.array(jax.devices()).reshape(-1, model_parallel)
  # With explicit axes, losses that relate examples raise errors.
  return Mesh(devices, ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


@functools.cache
def whole(mesh: Mesh) -> NamedSharding:
  """A copy on each device."""
  return NamedSharding(mesh, PartitionSpec())


@functools.cache
def rows(mesh: Mesh) -> NamedSharding:
  """The first dimension split over 'data'."""
  return NamedSharding(mesh, PartitionSpec('data'))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
  """Raises UsageError where devices would get different numbers of rows."""
  count = mesh.shape['data']
  if batch_size % count:
    below = batch_size // count * count
    nearest = [str(n) for n in (below, below + count) if n]
    raise UsageError(
      f'batch_size is {batch_size}, which {count} devices cannot share evenly; '
      f'nearest valid: {" and ".join(nearest)}'
    )


def layout(tree: PyTree, mesh: Mesh) -> PyTree:
  """How to lay out the state of a phase, a tree of shardings.

  Where the mesh has an axis 'model', an array of at least `LARGE` values is
  split over it along its largest dimension that it divides. The rule looks at
  shapes alone, so moments lie as their parameters do. All else is copied.
  """
  count = mesh.shape['model']

  def sharding(x: Any) -> NamedSharding:
    fitting = [i for i, n in enumerate(np.shape(x)) if n % count == 0]
    if count == 1 or np.size(x) < LARGE or not fitting:
      return whole(mesh)
    axis = max(fitting, key=lambda i: x.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'model'))

  return jax.tree.map(sharding, tree)


def place(tree: PyTree, mesh: Mesh) -> PyTree:
  """Arrays that every process holds whole, as `layout` says."""
  return batches.place(tree, layout(tree, mesh))


def place_key(rng: Array, mesh: Mesh) -> Array:
  """A random key on all devices."""
  data = batches.place(jax.random.key_data(rng), whole(mesh))
  return jax.random.wrap_key_data(data, impl=jax.random.key_impl(rng))


def fetch(tree: PyTree) -> PyTree:
  """The tree on the host, whole in every process; all must ask for it."""

  def get(x: Any) -> np.ndarray:
    if getattr(x, 'is_fully_addressable', True) or x.is_fully_replicated:
      return jax.device_get(x)
    return multihost_utils.process_allgather(x, tiled=True)

  return jax.tree.map(get, tree)
