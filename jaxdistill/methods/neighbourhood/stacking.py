"""Networks of different widths, padded with zeros to run as one.

A network of convolutions, batch norms and ReLUs computes the same if channels
are added whose kernels, scales and biases are zero. The gradients of these
zeros are zero too, so that they stay zero. Networks that differ only in width
can therefore run as one network under `jax.vmap`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import PyTree


def widest(trees: Sequence[PyTree]) -> int:
  """Returns the index of the tree that has the largest leaves everywhere.

  Args:
    trees: trees of arrays.

  Raises:
    UsageError: no tree is the largest everywhere, or their structures differ.
  """
  structures = {str(jax.tree.structure(tree)) for tree in trees}
  if len(structures) > 1:
    raise UsageError(
      "form: 'stack' needs candidates that differ only in width; use 'unroll' "
      'for others'
    )
  shapes = [[x.shape for x in jax.tree.leaves(tree)] for tree in trees]
  for i, largest in enumerate(shapes):
    if all(
      len(a) == len(b) and all(m >= n for m, n in zip(a, b))
      for other in shapes
      for a, b in zip(largest, other)
    ):
      return i
  raise UsageError(
    "form: 'stack' needs one candidate that is the widest everywhere; use "
    "'unroll' for others"
  )


def stack(
  trees: Sequence[PyTree], like: PyTree, multiple_of: int = 1
) -> PyTree:
  """Pads trees of leaves `[...]` with zeros and stacks them to `[N, ...]`.

  Args:
    trees: trees of one structure.
    like: the widest of them.
    multiple_of: entries of zeros are appended until their number N is a
      multiple of this.

  Returns:
    One tree of the same structure.
  """

  def pad(x: jax.Array, wide: jax.Array) -> jax.Array:
    return jnp.pad(x, [(0, w - n) for n, w in zip(x.shape, wide.shape)])

  padded = [jax.tree.map(pad, tree, like) for tree in trees]
  zeros = jax.tree.map(jnp.zeros_like, like)
  padded += [zeros] * (-len(padded) % multiple_of)
  return jax.tree.map(lambda *x: jnp.stack(x), *padded)


def devices() -> int:
  """Returns the number of devices that `spread` uses: the axis 'model'."""
  return jax.sharding.get_abstract_mesh().shape.get('model', 1)


def spread(tree: PyTree) -> PyTree:
  """Distributes the entries of a stack over devices.

  This happens if the program is compiled for a mesh whose axis 'model' divides
  the first dimension of the leaves; otherwise the stack is returned unchanged.

  Args:
    tree: a stack, leaves `[N, ...]`.
  """
  count = devices()

  def put(x: jax.Array) -> jax.Array:
    if count == 1 or x.shape[0] % count:
      return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec('model', *free))

  return jax.tree.map(put, tree)


def unstack(tree: PyTree, likes: Sequence[PyTree]) -> list[PyTree]:
  """Undoes `stack`.

  Args:
    tree: a stack, leaves `[N, ...]`.
    likes: trees that give the original shapes.

  Returns:
    The trees, without padding.
  """

  def entry(i: int, x: jax.Array, like: jax.Array) -> jax.Array:
    return x[(i, *(slice(n) for n in like.shape))]

  return [
    jax.tree.map(lambda x, y, i=i: entry(i, x, y), tree, like)
    for i, like in enumerate(likes)
  ]
