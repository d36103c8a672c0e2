"""Surgery: channels that are really taken out of a network, or only masked.

Which channels can go is listed by the block classes as `CHANNELS`, see
`networks.layers.Channels`: those inside a block, and for blocks that begin with
a norm those of the input that the block selects. What a block puts out stays,
so that shortcuts and neighbours fit.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from flax import traverse_util
import jax.numpy as jnp
import numpy as np

from jaxdistill.networks import layers, staged, vgg
from jaxdistill.types import Array, Model, Network, Stage, UsageError, Variables

# (stage, field) -> the channels that stay, in ascending order.
Kept = Mapping[tuple[str, str], np.ndarray]
# What may stand between a stage and the one that reads its channels.
_BETWEEN = (layers.Pool, vgg.PoolFlatten)
_READERS = (vgg.VGGUnit, layers.ConvUnit, layers.Classifier, layers.Hidden)


class ChannelSet(NamedTuple):
  """Channels of a network of which some can be taken out.

  Attributes:
    stage: where they are.
    field: of its module, see `networks.layers.Channels`.
    norm: path of the batch norm that they pass: (stage, module).
    readers: paths of the layers that read them.
    writer: path of the convolution whose filters they are, or empty.
    size: how many there are.
    passed: paths of other layers with one filter or number for each.
  """

  stage: str
  field: str
  norm: tuple[str, str]
  readers: tuple[tuple[str, str], ...]
  writer: tuple[str, ...]
  size: int
  passed: tuple[tuple[str, str], ...] = ()


def channel_sets(model: Model) -> tuple[ChannelSet, ...]:
  """All channels that can be taken out, in order.

  Args:
    model: shapes suffice in place of its variables.

  Raises:
    UsageError: there are none.
  """
  found = tuple(_sets(model))
  if not found:
    raise UsageError(
      'pruning: no stage of the network has channels that can be taken out'
    )
  return found


def keep_channels(model: Model, kept: Kept) -> Model:
  """The smaller model in which some channels are gone.

  Its batch statistics are those of the channels that stay.

  Args:
    model: the model.
    kept: of sets of `channel_sets(model)`; those not named stay whole.

  Raises:
    UsageError: a set is none of the model's, or would lose all its channels.
  """
  _check_kept(model, kept)
  flat = traverse_util.flatten_dict(model.variables)
  fields: dict[str, dict[str, object]] = {}
  modules = {stage.name: stage.module for stage in model.network.stages}
  for channels in channel_sets(model):
    whole = np.arange(channels.size)
    own = np.asarray(kept.get((channels.stage, channels.field), whole))
    value: object = len(own)
    if channels.field == 'selected':
      before = modules[channels.stage].selected
      names = np.array(before or whole)[own]
      value = tuple(names.tolist()) if len(own) < channels.size else before
    fields.setdefault(channels.stage, {})[channels.field] = value
    if len(own) < channels.size:
      flat |= _taken(flat, channels, own)
  stages = tuple(
    Stage(s.name, s.module.clone(**fields[s.name]), s.inputs)
    if s.name in fields
    else s
    for s in model.network.stages
  )
  return Model(Network(stages), traverse_util.unflatten_dict(flat))


def mask_channels(model: Model, kept: Kept) -> Model:
  """The model of the same size in which the other channels are zero.

  Scale and bias of their norms become zero; it answers as `keep_channels`.
  """
  flat = traverse_util.flatten_dict(model.variables)
  for channels in channel_sets(model):
    whole = np.arange(channels.size)
    own = kept.get((channels.stage, channels.field), whole)
    stays = jnp.asarray(np.isin(whole, own))
    for leaf in ('scale', 'bias'):
      path = ('params', *channels.norm, leaf)
      flat[path] = jnp.where(stays, flat[path], 0)
  return Model(model.network, traverse_util.unflatten_dict(flat))


def largest(scores: Array | np.ndarray, count: int) -> np.ndarray:
  """The places of the largest scores `[N]`, in ascending order."""
  order = np.argsort(-np.asarray(scores), kind='stable')
  return np.sort(order[:count])


def _check_kept(model: Model, kept: Kept) -> None:
  valid = {f'{s.stage} {s.field}' for s in channel_sets(model)}
  for (stage, field), own in kept.items():
    if f'{stage} {field}' not in valid:
      raise staged.unknown('set of channels', f'{stage} {field}', sorted(valid))
    if not len(own):
      raise UsageError(
        f'pruning: no channel of {stage!r} ({field}) would be left; keep at '
        'least one'
      )


def _sets(model: Model) -> Iterator[ChannelSet]:
  params = model.variables['params']
  for i, stage in enumerate(model.network.stages):
    own = params.get(stage.name, {})
    for listed in getattr(stage.module, 'CHANNELS', ()):
      if listed.norm not in own or (listed.writer and listed.writer not in own):
        continue
      readers = tuple((stage.name, r) for r in listed.readers if r in own)
      if not listed.readers:
        readers = _behind(model.network, params, i)
      if readers:
        yield ChannelSet(
          stage.name,
          listed.field,
          (stage.name, listed.norm),
          readers,
          (stage.name, listed.writer) if listed.writer else (),
          own[listed.norm]['scale'].shape[-1],
          tuple((stage.name, p) for p in listed.passed if p in own),
        )


def _behind(
  network: Network, params: Variables, i: int
) -> tuple[tuple[str, str], ...]:
  """The one layer that reads the output of stage i; none where unclear."""
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


def _taken(
  flat: Mapping[tuple[str, ...], Array], channels: ChannelSet, own: np.ndarray
) -> dict[tuple[str, ...], Array]:
  """The leaves that lose channels, by path."""
  found = {}

  def take(where: tuple[str, ...], axis: int, leaves: Callable) -> None:
    for path, x in flat.items():
      if path[1:-1] == where and leaves(path[-1]):
        # Behind a flattened map each channel has several rows, one a pixel.
        each = x.shape[axis] // channels.size
        rows = own[:, None] * each + np.arange(each)[None]
        found[path] = jnp.take(x, rows.reshape(-1), axis)

  writers = (channels.writer,) if channels.writer else ()
  for whole in (channels.norm, *writers, *channels.passed):
    take(whole, -1, lambda leaf: True)
  for reader in channels.readers:
    take(reader, -2, lambda leaf: leaf == 'kernel')
  return found
