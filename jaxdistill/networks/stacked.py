"""Variables of narrow networks inside those of a wide one, in one stack.

A network of convolutions, batch norms and ReLUs that lacks channels computes
the same as one that has them with zeros: zero kernels, scales and biases have
zero gradients, so the zeros also stay. Networks that differ in width alone can
so run as one under `jax.vmap`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxdistill.types import PyTree, UsageError


def widest(trees: Sequence[PyTree]) -> int:
  """Index of the tree whose leaves are nowhere smaller than those of another.

  Raises:
    UsageError: there is none, or the trees differ in form.
  """
  forms = {str(jax.tree.structure(tree)) for tree in trees}
  if len(forms) > 1:
    raise UsageError(
      "form: 'stack' needs candidates that differ in width alone; valid for "
      "others: 'unroll'"
    )
  shapes = [[x.shape for x in jax.tree.leaves(tree)] for tree in trees]
  for i, own in enumerate(shapes):
    if all(
      len(a) == len(b) and all(m >= n for m, n in zip(a, b))
      for other in shapes
      for a, b in zip(own, other)
    ):
      return i
  raise UsageError(
    "form: 'stack' needs a candidate that is nowhere narrower than another; "
    "valid for others: 'unroll'"
  )


def stack(
  trees: Sequence[PyTree], like: PyTree, multiple_of: int = 1
) -> PyTree:
  """Trees of leaves `[...]`, padded with zeros, as one of `[N, ...]`.

  Args:
    trees: of one form.
    like: the widest.
    multiple_of: entries of zeros come behind those of the trees, until their
      number N is a multiple of this.
  """

  def pad(x: jax.Array, wide: jax.Array) -> jax.Array:
    return jnp.pad(x, [(0, w - n) for n, w in zip(x.shape, wide.shape)])

  padded = [jax.tree.map(pad, tree, like) for tree in trees]
  zeros = jax.tree.map(jnp.zeros_like, like)
  padded += [zeros] * (-len(padded) % multiple_of)
  return jax.tree.map(lambda *x: jnp.stack(x), *padded)


def devices() -> int:
  """Over how many devices `spread` spreads: the mesh's axis 'model'."""
  return jax.sharding.get_abstract_mesh().shape.get('model', 1)


def spread(tree: PyTree) -> PyTree:
  """A stack whose entries lie on different devices, where there are some.

  That is where a program is compiled for a mesh whose axis 'model' divides the
  first dimension of the leaves; elsewhere nothing is done.
  """
  count = devices()

  def put(x: jax.Array) -> jax.Array:
    if count == 1 or x.shape[0] % count:
      return x
    rest = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec('model', *rest))

  return jax.tree.map(put, tree)


def unstack(tree: PyTree, likes: Sequence[PyTree]) -> list[PyTree]:
  """The reverse of `stack`; `likes` give the shapes."""

  def cut(i: int, x: jax.Array, like: jax.Array) -> jax.Array:
    return x[(i, *(slice(n) for n in like.shape))]

  return [
    jax.tree.map(lambda x, y, i=i: cut(i, x, y), tree, like)
    for i, like in enumerate(likes)
  ]
