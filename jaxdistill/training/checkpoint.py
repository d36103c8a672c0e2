"""What a run leaves on disk so that it can go on where it stopped.

A run's directory holds one file per finished phase, the carry it handed on, and
the checkpoints of the phase under way. Several processes share the directory:
all write and read checkpoints, each its part; the first one writes the rest.
"""

from collections.abc import Iterable, Mapping
import json
import logging
import os
import pathlib
import shutil
from typing import Any
import zlib

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxdistill.networks import files
from jaxdistill.training import hosts, sharding
from jaxdistill.types import Carry, Model, PyTree, UsageError

_training = ocp.training
KEPT = 2  # checkpoints of a phase
SEEN = KEPT + 2  # there may be more while old ones are removed


class Checkpoints:
  """The newest checkpoints of one phase; the last two are kept."""

  def __init__(self, directory: str | os.PathLike):
    self._directory = pathlib.Path(directory).absolute()
    logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax narrates
    policies = _training.preservation_policies
    self._checkpointer = _training.Checkpointer(
      self._directory,
      cleanup_tmp_directories=True,
      # The default policy skips saves that come while one is in flight.
      save_decision_policy=_training.save_decision_policies.FixedIntervalPolicy(
        1
      ),
      preservation_policy=policies.LatestN(KEPT),
    )

  def save(self, step: int, tree: PyTree, meta: Mapping[str, Any]) -> None:
    """Writes a checkpoint; returns when it is safe on disk."""
    self._checkpointer.save_checkpointables(
      step,
      {'tree': tree, 'meta': {**meta, 'checksum': _checksum(tree)}},
      overwrite=True,
    )

  def load(self, like: PyTree) -> tuple[int, PyTree, dict[str, Any], list[str]]:
    """The newest checkpoint that is whole, to every process.

    Args:
      like: arrays or shapes of the tree that was saved, with shardings.

    Returns:
      (step, tree, meta, what was wrong with newer ones); step 0 and no meta
      where there is no checkpoint.

    Raises:
      UsageError: there are checkpoints, and none is whole.
    """
    problems: list[str] = []
    steps = _common(c.step for c in self._checkpointer.checkpoints)
    abstract = jax.tree.map(_abstract, like)
    for step in steps:
      checksum, reason = None, 'another process cannot read it'
      try:
        found = self._checkpointer.load_checkpointables(
          step, {'tree': abstract, 'meta': None}
        )
        checksum = found['meta']['checksum']
      except Exception as error:  # whatever a damaged file makes a reader raise
        reason = str(error).partition('\n')[0][:200]
      if not hosts.any_of(checksum is None)[0]:
        # All have read it: they can put their parts together.
        reason = 'its checksum differs'
        if not hosts.any_of(_checksum(found['tree']) != checksum)[0]:
          return step, found['tree'], found['meta'], problems
      problems.append(f'checkpoint {self._directory}/{step}: {reason}')
    if steps:
      raise UsageError(
        f'no readable checkpoint in {self._directory} (delete it to begin the '
        f'phase again): {"; ".join(problems)}'
      )
    return 0, like, {}, problems

  def close(self) -> None:
    self._checkpointer.close()


def delete(directory: str | os.PathLike) -> None:
  """Removes the checkpoints of a phase that is over."""
  shutil.rmtree(directory, ignore_errors=True)


def save_carry(
  path: str | os.PathLike, carry: Carry, before: Carry, meta: Mapping[str, Any]
) -> None:
  """Writes the entries of `carry` that are not those of `before`."""
  changed = {k: v for k, v in carry.items() if before.get(k) is not v}
  removed = [k for k in before if k not in carry]
  networks = {}
  tree = {}
  for key, value in changed.items():
    if isinstance(value, Model):
      tree[key] = value.variables
      networks[key] = _spec(value, key, before)
    else:
      tree[key] = value
  files.save_tree(
    path, tree, {'networks': networks, 'removed': removed, 'meta': dict(meta)}
  )


def load_carry(
  path: str | os.PathLike, before: Carry
) -> tuple[Carry, dict[str, Any]]:
  """What `save_carry` wrote, over the entries of `before`, and its meta."""
  tree, metadata = files.load_tree(path)
  carry = {k: v for k, v in before.items() if k not in metadata['removed']}
  for key, value in tree.items():
    if key in metadata['networks']:
      spec = metadata['networks'][key]
      network = (
        before[spec].network if isinstance(spec, str) else files.from_spec(spec)
      )
      value = Model(network, value)
    carry[key] = value
  return carry, metadata['meta']


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a JSON file whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  partial.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n')
  os.replace(partial, path)


def _spec(model: Model, key: str, before: Carry) -> Any:
  """The network's spec, or the role of the carry before that has the same.

  So networks made of functions, which have no spec, can be saved as well.
  """
  for role in (key.partition('@')[0], *before):
    known = before.get(role)
    if isinstance(known, Model) and known.network == model.network:
      return role
  return files.to_spec(model.network)


def _common(steps: Iterable[int]) -> list[int]:
  """The steps that every process sees, the newest first."""
  newest = sorted(steps, reverse=True)[:SEEN]
  seen = hosts.gather(*newest, *[-1] * (SEEN - len(newest)))
  common = set.intersection(*(set(own.tolist()) for own in seen)) - {-1}
  if not common and seen.max() >= 0:
    raise UsageError(
      'the processes see no checkpoint that all of them see; do they share '
      'the work directory?'
    )
  return sorted(common, reverse=True)


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(x, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _checksum(tree: PyTree) -> int:
  """CRC-32 over the bytes of all leaves, however they lie."""
  total = 0
  for leaf in jax.tree.leaves(sharding.fetch(tree)):
    total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
  return total
