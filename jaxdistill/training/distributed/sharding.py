"""How arrays are spread over devices: batches, and large parameters on request.

One program runs on all devices. Its batches are split over the axis 'data' of a
mesh. XLA inserts the communication, so everything that the program computes
from a batch (batch statistics, relations between examples, the gradient) is
computed from the whole batch, not from the part on one device.
"""

from collections.abc import Iterable, Sequence
import contextlib
import functools
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jaxdistill.core import cpu
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, PyTree
from jaxdistill.data.loading import batches

# The number of values from which on an array is split over the axis 'model'.
LARGE = 1 << 18


def make_mesh(
  model_parallel: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh of devices, with the axes 'data' and 'model'.

  Args:
    model_parallel: how many devices share large arrays; the size of 'model'.
    devices: the devices; None: all devices of all processes.

  Raises:
    UsageError: this number does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if model_parallel < 1 or count % model_parallel:
    valid = [n for n in range(1, count + 1) if count % n == 0]
    raise UsageError(
      f'model_parallel: expected a divisor of the {count} devices '
      f'({", ".join(map(str, valid))}), got {model_parallel}'
    )
  grid = np.array(devices).reshape(-1, model_parallel)
  # With explicit axes, losses that relate examples to each other raise errors.
  return Mesh(grid, ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def mesh_of_batches(
  batch_sizes: Iterable[int],
  model_parallel: int = 1,
  devices: Sequence[jax.Device] | None = None,
  *,
  on_one: bool = False,
) -> Mesh:
  """Returns a mesh whose devices get the same number of rows of each batch.

  The user has not asked for the two devices that `--fast_cpu` makes of a
  processor. Where they cannot be used, the first one takes whole batches.

  Args:
    batch_sizes: the numbers of examples per step.
    model_parallel: see `make_mesh`, like `devices`.
    devices: the devices.
    on_one: whether only one device can be used.

  Raises:
    UsageError: the devices cannot share a batch evenly; see `make_mesh`, too.
  """
  sizes, split = list(batch_sizes), parts_of_processor()
  if devices is None and split == jax.device_count():
    is_even = all(size % split == 0 for size in sizes)
    devices = jax.devices()[: split if is_even and not on_one else 1]
  mesh = make_mesh(model_parallel, devices)
  for size in sizes:
    check_batch_size(size, mesh)
  return mesh


def parts_of_processor() -> int:
  """Returns how many devices `--fast_cpu` has made of the processor.

  Where programs run on a GPU, there is nothing to divide, so it is 1.
  """
  return cpu.devices() if jax.default_backend() == 'cpu' else 1


def on_one_device() -> contextlib.AbstractContextManager[Any]:
  """Says that the first device alone computes what is traced inside it.

  Where there are several devices, the convolutions of `--fast_cpu` have to know
  over which of them to split a batch. Inside a mesh of the caller it changes
  nothing, because JAX does not replace a mesh by one of another size.
  """
  if not jax.sharding.get_abstract_mesh().empty:
    return contextlib.nullcontext()
  mesh = make_mesh(devices=jax.devices()[:1])
  return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


@functools.cache
def whole(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts a copy on each device."""
  return NamedSharding(mesh, PartitionSpec())


@functools.cache
def rows(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the first dimension over 'data'."""
  return NamedSharding(mesh, PartitionSpec('data'))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
  """Checks that every device gets the same number of rows of a batch.

  Args:
    batch_size: the number of examples per step, over all devices together.
    mesh: the devices.

  Raises:
    UsageError: the devices cannot share the batch evenly; the message names the
      nearest valid sizes.
  """
  count = mesh.shape['data']
  if batch_size % count:
    below = batch_size // count * count
    nearest = [str(n) for n in (below, below + count) if n]
    raise UsageError(
      f'batch_size: expected a multiple of the {count} devices that share it '
      f'(nearest: {" and ".join(nearest)}), got {batch_size}'
    )


def layout(tree: PyTree, mesh: Mesh) -> PyTree:
  """Returns how the state of a phase is spread, as a tree of shardings.

  If the axis 'model' has more than one device, an array of at least `LARGE`
  values is split over it, along its largest dimension that the number of these
  devices divides. All other arrays are copied to each device. The rule depends
  only on shapes, so the moments of an optimizer are split like the parameters
  that they belong to.

  Args:
    tree: the state.
    mesh: the devices.
  """
  count = mesh.shape['model']

  def sharding(x: Any) -> NamedSharding:
    divisible = [i for i, n in enumerate(np.shape(x)) if n % count == 0]
    if count == 1 or np.size(x) < LARGE or not divisible:
      return whole(mesh)
    axis = max(divisible, key=lambda i: x.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'model'))

  return jax.tree.map(sharding, tree)


def place(tree: PyTree, mesh: Mesh) -> PyTree:
  """Spreads arrays that every process holds completely, as `layout` says."""
  return batches.place(tree, layout(tree, mesh))


def place_key(rng: Array, mesh: Mesh) -> Array:
  """Copies a random key to all devices."""
  data = batches.place(jax.random.key_data(rng), whole(mesh))
  return jax.random.wrap_key_data(data, impl=jax.random.key_impl(rng))


@jax.jit
def copied(tree: PyTree) -> PyTree:
  """Returns arrays with buffers of their own, which a program may overwrite.

  One program for the whole tree compiles faster than one for each shape.
  """
  return jax.tree.map(jnp.copy, tree)


def fetch(tree: PyTree) -> PyTree:
  """Returns the complete arrays of a tree on the host, in every process.

  All processes must call this function.
  """

  def get(x: Any) -> np.ndarray:
    if getattr(x, 'is_fully_addressable', True) or x.is_fully_replicated:
      return jax.device_get(x)
    return multihost_utils.process_allgather(x, tiled=True)

  return jax.tree.map(get, tree)
