"""What a run stores on disk so that it can resume where it stopped.

The directory of a run holds one file per finished phase, with the carry that
the phase handed on, and the checkpoints of the running phase. If there are
several processes, they share the directory: each of them writes and reads its
part of a checkpoint, and the first one writes everything else.
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

from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Model, PyTree
from jaxdistill.networks import description
from jaxdistill.networks.weights import files
from jaxdistill.training.distributed import hosts, sharding

KEPT = 2  # the number of checkpoints of a phase
OVERHEAD = 1 << 18  # bytes of a checkpoint besides its arrays, at most
SEEN = KEPT + 2  # there may be more while old ones are being removed


class Checkpoints:
  """The newest checkpoints of one phase; the last two are kept."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens a folder of checkpoints.

    Args:
      directory: the folder, which need not exist.

    Raises:
      UsageError: the folder cannot be written.
    """
    # Here, because runs without a directory do not need this slow import.
    from orbax.checkpoint import v1

    self._directory = pathlib.Path(directory).absolute()
    # Orbax would fill the screen: it logs every save, and with a traceback each
    # error that it raises as well.
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    saving = v1.training.save_decision_policies
    keeping = v1.training.preservation_policies
    with writing.reported(self._directory):
      self._checkpointer = v1.training.Checkpointer(
        self._directory,
        cleanup_tmp_directories=True,
        # The default policy skips a save while another one is in progress.
        save_decision_policy=saving.FixedIntervalPolicy(1),
        preservation_policy=keeping.LatestN(KEPT),
      )

  def save(self, step: int, tree: PyTree, meta: Mapping[str, Any]) -> None:
    """Writes a checkpoint, and returns when it is safe on disk.

    Args:
      step: the number of steps that the phase has taken.
      tree: the arrays.
      meta: further values that JSON can hold.

    Raises:
      UsageError: the folder cannot be written. The older checkpoints remain.
    """
    content = {'tree': tree, 'meta': {**meta, 'checksum': _checksum(tree)}}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    with writing.reported(self._directory):
      # On a full disk, TensorStore's threads would print their errors, too.
      writing.check_room(self._directory, size + OVERHEAD)
      self._checkpointer.save_checkpointables(step, content, overwrite=True)

  def load(self, like: PyTree) -> tuple[int, PyTree, dict[str, Any], list[str]]:
    """Returns the newest checkpoint that every process can read.

    Args:
      like: the arrays of the tree that was saved, or their shapes, with
        shardings.

    Returns:
      (step, tree, meta, descriptions of newer checkpoints that are damaged). If
      there is no checkpoint, the step is 0, the tree is `like`, and the meta is
      empty.

    Raises:
      UsageError: there are checkpoints, but none of them can be read.
    """
    problems: list[str] = []
    steps = _common(c.step for c in self._checkpointer.checkpoints)
    abstract = jax.tree.map(_abstract, like)
    for step in steps:
      checksum, reason = None, 'another process cannot read it'
      try:
        content = self._checkpointer.load_checkpointables(
          step, {'tree': abstract, 'meta': None}
        )
        checksum = content['meta']['checksum']
      except Exception as error:  # a damaged file may raise anything
        reason = str(error).partition('\n')[0][:200]
      if not hosts.any_of(checksum is None)[0]:
        # Computing the checksum needs the parts of all processes, so it has to
        # wait until all of them have read theirs.
        reason = 'its checksum differs'
        if not hosts.any_of(_checksum(content['tree']) != checksum)[0]:
          return step, content['tree'], content['meta'], problems
      problems.append(f'checkpoint {self._directory}/{step}: {reason}')
    if steps:
      raise UsageError(
        f'no readable checkpoint in {self._directory} (delete it to begin the '
        f'phase again): {"; ".join(problems)}'
      )
    return 0, like, {}, problems

  def close(self) -> None:
    """Closes the folder."""
    with writing.reported(self._directory):
      self._checkpointer.close()


def delete(directory: str | os.PathLike[str]) -> None:
  """Removes the checkpoints of a phase that has ended."""
  shutil.rmtree(directory, ignore_errors=True)


def save_carry(
  path: str | os.PathLike[str],
  carry: Carry,
  before: Carry,
  meta: Mapping[str, Any],
) -> None:
  """Writes the entries of a carry that differ from the carry before.

  Args:
    path: the file, in the safetensors format.
    carry: what the phase hands on.
    before: what the phase was handed.
    meta: further values that JSON can hold.
  """
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
  path: str | os.PathLike[str], before: Carry
) -> tuple[Carry, dict[str, Any]]:
  """Returns (carry, meta) from a file that `save_carry` wrote.

  Args:
    path: the file.
    before: the carry before; it provides the entries that did not change.
  """
  tree, metadata = files.load_tree(path)
  # The networks before come from the config, so their classes are trusted.
  classes = {
    type(stage.module)
    for model in before.values()
    if isinstance(model, Model)
    for stage in model.network.stages
  }
  carry = {k: v for k, v in before.items() if k not in metadata['removed']}
  for key, value in tree.items():
    if key in metadata['networks']:
      spec = metadata['networks'][key]
      network = (
        before[spec].network
        if isinstance(spec, str)
        else description.from_description(spec, classes)
      )
      value = Model(network, value)
    carry[key] = value
  return carry, metadata['meta']


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes a JSON file completely or not at all; see `core.writing.write`."""
  writing.write(path, json.dumps(value, indent=2, sort_keys=True) + '\n')


def _spec(model: Model, key: str, before: Carry) -> Any:
  """Returns a description of a network for `save_carry`.

  That is the name of a role in the carry before that has the same network, if
  there is one, and the network's JSON description otherwise. Thus networks that
  are made of functions, and have no JSON description, can be saved as well.
  """
  for role in (key.partition('@')[0], *before):
    earlier = before.get(role)
    if isinstance(earlier, Model) and earlier.network == model.network:
      return role
  return description.to_description(model.network)


def _common(steps: Iterable[int]) -> list[int]:
  """Returns the steps that every process sees, the newest first."""
  newest = sorted(steps, reverse=True)[:SEEN]
  seen = hosts.gather(*newest, *[-1] * (SEEN - len(newest)))
  common = set.intersection(*(set(row.tolist()) for row in seen)) - {-1}
  if not common and seen.max() >= 0:
    raise UsageError(
      'there are checkpoints, but none that all processes see; do they share '
      'the work directory?'
    )
  return sorted(common, reverse=True)


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(x, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _checksum(tree: PyTree) -> int:
  """Returns the CRC-32 of the bytes of all leaves, whatever their sharding."""
  total = 0
  for leaf in jax.tree.leaves(sharding.fetch(tree)):
    total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
  return total
