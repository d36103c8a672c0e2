"""The state of a Flax NNX module as collections of variables."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import re
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Variables

# Collections by the type of the variable; any other type gives its own name.
_COLLECTIONS: tuple[tuple[type, str], ...] = (
  (nnx.Param, 'params'),
  (nnx.BatchStat, 'batch_stats'),
)


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One array of a module's state.

  Attributes:
    path: its place in the module, such as ('blocks', '3', 'norm', 'scale').
    collection: where the library keeps it; '' for the state of a random stream.
    shape: its shape and dtype.
    stream: the name of the random stream whose key it is; '' if it is no key.
  """

  path: tuple[str, ...]
  collection: str
  shape: jax.ShapeDtypeStruct
  stream: str = ''


def leaves_of(state: Any) -> Iterator[tuple[Leaf, Any]]:
  """Yields the arrays of a module's state, in the order of its tree."""
  entries, _ = jax.tree_util.tree_flatten_with_path(
    state, is_leaf=lambda x: isinstance(x, nnx.Variable)
  )
  for keys, entry in entries:
    path = tuple(str(getattr(key, 'key', key)) for key in keys)
    stream = entry.tag if isinstance(entry, nnx.RngKey) else ''
    arrays = jax.tree.leaves(entry)
    for i, array in enumerate(arrays):
      place = path if len(arrays) == 1 else (*path, str(i))
      array = array if hasattr(array, 'dtype') else jnp.asarray(array)
      shape: Any = jax.eval_shape(lambda x: x, array)
      yield Leaf(place, _collection(entry), shape, stream), array


def nest(leaves: Sequence[Leaf], values: Sequence[Any]) -> Variables:
  """Returns the values of leaves as {collection: nested dicts}."""
  variables: Variables = {}
  for leaf, value in zip(leaves, values, strict=True):
    if not leaf.collection:
      continue
    tree = variables.setdefault(leaf.collection, {})
    for key in leaf.path[:-1]:
      tree = tree.setdefault(key, {})
    tree[leaf.path[-1]] = value
  return variables


def value(
  index: int,
  leaf: Leaf,
  variables: Variables,
  rngs: Mapping[str, Array],
) -> Array:
  """Returns the value of one leaf for a call with these variables."""
  if leaf.stream:
    rng = rngs.get(leaf.stream, rngs.get('dropout', jax.random.key(0)))
    rng = jax.random.fold_in(rng, index)
    shape = leaf.shape.shape
    return jax.random.split(rng, shape) if shape else rng
  if not leaf.collection:
    return jnp.zeros(leaf.shape.shape, leaf.shape.dtype)
  found: Any = variables.get(leaf.collection, {})
  for key in leaf.path:
    if key not in found:
      raise UsageError(
        f'variables: expected {leaf.collection!r} to hold '
        f'{".".join(leaf.path)!r}, which is missing'
      )
    found = found[key]
  array: Array = found
  return array


def _collection(entry: Any) -> str:
  """Returns the collection of a variable; '' for those of random streams."""
  if isinstance(entry, nnx.RngState):
    return ''
  for kind, collection in _COLLECTIONS:
    if isinstance(entry, kind):
      return collection
  if isinstance(entry, nnx.Variable):
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', type(entry).__name__).lower()
  return 'arrays'
