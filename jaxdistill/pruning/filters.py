"""Filters of small L1 norm taken out of each layer.

Li et al., Pruning Filters for Efficient ConvNets, 2016,
https://arxiv.org/abs/1608.08710; the layers that may be left alone are those of
https://github.com/Eric-mingjie/rethinking-network-pruning.
"""

from collections.abc import Sequence
import math

import jax.numpy as jnp

from jaxdistill.networks import arguments
from jaxdistill.pruning import channels as surgery
from jaxdistill.pruning import kinds, sparsity
from jaxdistill.types import Model, UsageError

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
) -> kinds.Pruning:
  """Each layer keeps a share of its filters, those of the largest L1 norm.

    ||filter||_1 = sum over height, width and input channels of |weight|

  The filters of a block's last convolution stay, since the shortcut is added
  to what they make.

  Args:
    keep: share of the filters that stays, in (0, 1], rounded down; one for
      all, or one for each group that has such layers.
    skip: stages or groups that stay as they are.

  Raises:
    UsageError: a share is not in (0, 1].
  """
  one = isinstance(keep, int | float)
  shares = (keep,) if isinstance(keep, int | float) else tuple(keep)
  for share in shares:
    sparsity.check_keep('pruning.keep', share)

  def counts(model: Model) -> dict[surgery.ChannelSet, int]:
    """Set of channels -> how many stay.

    Raises:
      UsageError: there is none, or it would lose all; there are not as many
        groups as shares; a name in `skip` is none.
    """
    kinds.check_skip(model.network, skip)
    found = [s for s in surgery.channel_sets(model) if s.writer]
    if not found:
      raise UsageError(
        "pruning.name: 'filters' finds no layer in the network whose filters "
        "can go; 'slimming' and 'magnitude' can prune it"
      )
    groups = list(dict.fromkeys(_group(s) for s in found))
    what = f'groups with such layers: {", ".join(groups)}'
    every = shares * len(groups) if one else shares
    of_group = dict(
      zip(
        groups,
        arguments.check_length('pruning.keep', every, len(groups), what),
      )
    )
    kept = {}
    for own in found:
      share = 1.0 if kinds.skipped(own.stage, skip) else of_group[_group(own)]
      # 0.29 * 100 is a little below 29.
      kept[own] = math.floor(own.size * share + 1e-9)
      if not kept[own]:
        raise UsageError(
          f'pruning.keep: {share} of the {own.size} filters of {own.stage!r} '
          f'are none; at least {math.ceil(1e4 / own.size) / 1e4} leaves one'
        )
    return kept

  def prune(model: Model) -> Model:
    kept = {}
    for own, count in counts(model).items():
      stage, layer = own.writer
      kernel = model.variables['params'][stage][layer]['kernel']
      norms = jnp.abs(kernel).sum((0, 1, 2))
      kept[own.stage, own.field] = surgery.largest(norms, count)
    return surgery.keep_channels(model, kept)

  return kinds.Pruning(counts, prune)


def _group(channels: surgery.ChannelSet) -> str:
  return channels.stage.partition('.')[0]
