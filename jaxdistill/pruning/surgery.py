"""Takes channels out of a network, or masks them.

The block classes list in `CHANNELS` which of their channels can be removed; see
`networks.layers.Channels`. These are the channels inside a block and, for
blocks that begin with a norm, the input channels that the block selects. The
output channels of a block always stay, so that shortcuts and neighbouring
blocks still fit.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from flax import traverse_util
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Model, Network, Variables
from jaxdistill.networks import layers
from jaxdistill.networks.models import vgg

# (stage, field) -> indices of the channels that stay, in ascending order.
KeptChannels = Mapping[tuple[str, str], np.ndarray]
# Modules that may stand between a stage and the stage that reads its channels.
_BETWEEN = (layers.Pool, vgg.PoolFlatten)
_READERS = (vgg.VGGUnit, layers.ConvUnit, layers.Classifier, layers.Hidden)


class ChannelSet(NamedTuple):
  """A set of channels of a network, some of which can be taken out.

  Paths are (stage, name of the layer in the stage's module).

  Attributes:
    stage: the stage that holds them.
    field: the field of the stage's module that gives their number; see
      `networks.layers.Channels`.
    norm: the path of the batch norm that they pass.
    readers: the paths of the layers that read them.
    writer: the path of the convolution whose filters compute them, or ().
    size: the number of channels.
    passed: the paths of other layers that have one filter or one number for
      each channel.
  """

  stage: str
  field: str
  norm: tuple[str, str]
  readers: tuple[tuple[str, str], ...]
  writer: tuple[str, ...]
  size: int
  passed: tuple[tuple[str, str], ...] = ()


def channel_sets(model: Model) -> tuple[ChannelSet, ...]:
  """Returns all channels that can be taken out, in the order of the stages.

  Args:
    model: the model. Its variables may be shapes instead of arrays.

  Raises:
    UsageError: there are no such channels.
  """
  sets = tuple(_sets(model))
  if not sets:
    raise UsageError(
      'pruning: expected a network with channels that can be taken out, but '
      'none of its stages has any'
    )
  return sets


def keep_channels(model: Model, kept: KeptChannels) -> Model:
  """Returns a smaller model, without the channels that are not kept.

  The remaining channels keep their parameters and batch statistics.

  Args:
    model: the model.
    kept: (stage, field) of a set in `channel_sets(model)` -> the indices of the
      channels that stay. A set that is not named keeps all its channels.

  Raises:
    UsageError: the model has no such set, or a set would lose all its channels.
  """
  _check_kept(model, kept)
  flat = traverse_util.flatten_dict(model.variables)
  fields: dict[str, dict[str, object]] = {}
  modules = {stage.name: stage.module for stage in model.network.stages}
  for channels in channel_sets(model):
    whole = np.arange(channels.size)
    indices = np.asarray(kept.get((channels.stage, channels.field), whole))
    value: object = len(indices)
    if channels.field == 'selected':
      before = modules[channels.stage].selected
      names = np.array(before or whole)[indices]
      value = tuple(names.tolist()) if len(indices) < channels.size else before
    fields.setdefault(channels.stage, {})[channels.field] = value
    if len(indices) < channels.size:
      flat |= _smaller_leaves(flat, channels, indices)
  stages = tuple(
    s._replace(module=s.module.clone(**fields[s.name]))
    if s.name in fields
    else s
    for s in model.network.stages
  )
  network = model.network._replace(stages=stages)
  return Model(network, traverse_util.unflatten_dict(flat))


def mask_channels(model: Model, kept: KeptChannels) -> Model:
  """Returns a model of the same size, in which the other channels are zero.

  The scales and biases of their norms become zero. The outputs equal those of
  the model that `keep_channels` returns.

  Args:
    model: the model.
    kept: see `keep_channels`.
  """
  flat = traverse_util.flatten_dict(model.variables)
  for channels in channel_sets(model):
    whole = np.arange(channels.size)
    indices = kept.get((channels.stage, channels.field), whole)
    stays = jnp.asarray(np.isin(whole, indices))
    for leaf in ('scale', 'bias'):
      path = ('params', *channels.norm, leaf)
      flat[path] = jnp.where(stays, flat[path], 0)
  return Model(model.network, traverse_util.unflatten_dict(flat))


def largest(scores: Array | np.ndarray, count: int) -> np.ndarray:
  """Returns the indices of the largest scores, in ascending order.

  Args:
    scores: one score for each channel, `[N]`.
    count: how many indices are returned.
  """
  order = np.argsort(-np.asarray(scores), kind='stable')
  return np.sort(order[:count])


def _check_kept(model: Model, kept: KeptChannels) -> None:
  """Raises UsageError if the model cannot keep just these channels."""
  valid = sorted({f'{s.stage} {s.field}' for s in channel_sets(model)})
  for (stage, field), indices in kept.items():
    checks.choice('set of channels', f'{stage} {field}', valid)
    if not len(indices):
      raise UsageError(
        f'pruning: expected at least one channel of {stage!r} ({field}) to '
        'stay, got none'
      )


def _sets(model: Model) -> Iterator[ChannelSet]:
  """Yields the channels that the blocks list and that this model has."""
  params = model.variables['params']
  for i, stage in enumerate(model.network.stages):
    layers_of_stage = params.get(stage.name, {})
    for listed in getattr(stage.module, 'CHANNELS', ()):
      if listed.norm not in layers_of_stage or (
        listed.writer and listed.writer not in layers_of_stage
      ):
        continue
      readers = tuple(
        (stage.name, r) for r in listed.readers if r in layers_of_stage
      )
      if not listed.readers:
        readers = _next_reader(model.network, params, i)
      if readers:
        yield ChannelSet(
          stage.name,
          listed.field,
          (stage.name, listed.norm),
          readers,
          (stage.name, listed.writer) if listed.writer else (),
          layers_of_stage[listed.norm]['scale'].shape[-1],
          tuple((stage.name, p) for p in listed.passed if p in layers_of_stage),
        )


def _next_reader(
  network: Network, params: Variables, i: int
) -> tuple[tuple[str, str], ...]:
  """Returns the one layer that reads the output of stage i.

  Returns () if the network is not a plain chain, or if other modules come
  before the next reader: then it is unclear what reads the output.
  """
  for stage in network.stages[i + 1 :]:
    named = any(s.inputs for s in network.stages)
    if named or not isinstance(stage.module, (*_BETWEEN, *_READERS)):
      return ()
    if isinstance(stage.module, _READERS):
      return tuple(
        (stage.name, layer)
        for layer in params[stage.name]
        if layer in ('conv', 'linear')
      )
  return ()


def _smaller_leaves(
  flat: Mapping[tuple[str, ...], Array],
  channels: ChannelSet,
  indices: np.ndarray,
) -> dict[tuple[str, ...], Array]:
  """Returns the leaves that lose channels, by path, without these channels."""
  smaller = {}

  def take(
    layer: tuple[str, ...], axis: int, affects: Callable[[str], bool]
  ) -> None:
    for path, x in flat.items():
      if path[1:-1] == layer and affects(path[-1]):
        # After a flattened map, each channel has several rows, one per pixel.
        each = x.shape[axis] // channels.size
        rows = indices[:, None] * each + np.arange(each)[None]
        smaller[path] = jnp.take(x, rows.reshape(-1), axis)

  writers = (channels.writer,) if channels.writer else ()
  for whole in (channels.norm, *writers, *channels.passed):
    take(whole, -1, lambda leaf: True)
  for reader in channels.readers:
    take(reader, -2, lambda leaf: leaf == 'kernel')
  return smaller
