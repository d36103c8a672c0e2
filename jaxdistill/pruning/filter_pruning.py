"""Removes the filters of small L1 norm from each layer.

Li et al., Pruning Filters for Efficient ConvNets, 2016,
https://arxiv.org/abs/1608.08710. The layers in `SENSITIVE` are those that
https://github.com/Eric-mingjie/rethinking-network-pruning does not prune.
"""

from collections.abc import Sequence
import math

import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.pruning import interface, surgery

# Depth of a small-image ResNet -> the blocks that suffer most from pruning.
SENSITIVE = {
  56: (
    *('group1.block8', 'group1.block9', 'group2.block1', 'group2.block8'),
    *('group3.block1', 'group3.block9'),
  ),
  110: ('group1.block18', 'group2.block1', 'group3.block1'),
}


def filters(
  *, keep: float | Sequence[float], skip: Sequence[str] = ()
) -> interface.Pruning:
  """Keeps the filters of the largest L1 norm in each layer.

    ||filter||_1 = sum over height, width and input channels of |weight|

  The last convolution of a block keeps all its filters, because the shortcut is
  added to its output.

  Args:
    keep: the fraction of each layer's filters that stay, in (0, 1]; the number
      of filters is rounded down. One number applies to all layers; a sequence
      has one number for each group that has layers to prune.
    skip: stages or groups that are not pruned.

  Raises:
    UsageError: a fraction is not in (0, 1].
  """
  one = isinstance(keep, int | float)
  fractions = (keep,) if isinstance(keep, int | float) else tuple(keep)
  for fraction in fractions:
    checks.number('keep', fraction, above=0, at_most=1)

  def counts(model: Model) -> dict[surgery.ChannelSet, int]:
    """Returns how many channels of each set stay.

    Raises:
      UsageError: the network has no layers to prune, a layer would lose all its
        filters, the number of groups and of fractions differ, or a name in
        `skip` does not exist.
    """
    interface.check_skip(model.network, skip)
    sets = [s for s in surgery.channel_sets(model) if s.writer]
    if not sets:
      raise UsageError(
        "pruning.name: 'filters' finds no layer in the network whose filters "
        "can be removed; 'slimming' and 'magnitude' can prune it"
      )
    groups = list(dict.fromkeys(_group(s) for s in sets))
    fraction_of = dict(
      zip(
        groups,
        checks.length(
          'pruning.keep',
          fractions * len(groups) if one else fractions,
          len(groups),
          f'groups with such layers ({", ".join(groups)})',
        ),
      )
    )
    return {
      channels: _count(
        channels,
        1.0
        if interface.skipped(channels.stage, skip)
        else fraction_of[_group(channels)],
      )
      for channels in sets
    }

  def prune(model: Model) -> Model:
    kept = {}
    for channels, count in counts(model).items():
      stage, layer = channels.writer
      kernel = model.variables['params'][stage][layer]['kernel']
      norms = jnp.abs(kernel).sum((0, 1, 2))
      kept[channels.stage, channels.field] = surgery.largest(norms, count)
    return surgery.keep_channels(model, kept)

  return interface.Pruning(counts, prune)


def _count(channels: surgery.ChannelSet, fraction: float) -> int:
  """Returns how many channels of a set stay.

  Raises:
    UsageError: not a single one would stay.
  """
  # 0.29 * 100 is slightly below 29 in floating point.
  count = math.floor(channels.size * fraction + 1e-9)
  if not count:
    least = math.ceil(1e4 / channels.size) / 1e4
    raise UsageError(
      f'pruning.keep: expected at least {least}, which keeps one of the '
      f'{channels.size} filters of {channels.stage!r}, got {fraction}'
    )
  return count


def _group(channels: surgery.ChannelSet) -> str:
  """Returns the name of the group that holds a set of channels."""
  return channels.stage.partition('.')[0]
