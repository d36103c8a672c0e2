"""Pruning: making a trained network smaller or sparser.

A `Pruning` is made by one of three functions. `filters` and `slimming` take
channels out of the network, which becomes smaller; `magnitude` only sets single
weights to zero. Three more functions wrap an optimizer: `slim` prepares a
network for `slimming`, `sparse` keeps zeros at zero, and `gradual` sets more
and more weights to zero during training.

  interface.py: the type `Pruning`, and checks that all prunings share.
  surgery.py: takes channels out of a network, or masks them.
  filter_pruning.py: removes the filters of small L1 norm.
  network_slimming.py: removes the channels with small batch norm scales.
  masks.py: sets single weights to zero and keeps them there.
  sparsity.py: the schedule of sparsity, and which weights are the smallest.
"""

from jaxdistill.pruning.filter_pruning import filters
from jaxdistill.pruning.interface import Pruning
from jaxdistill.pruning.masks import (
  gradual,
  gradual_magnitude,
  keep_zeros,
  magnitude,
  sparse,
)
from jaxdistill.pruning.network_slimming import slim, slimming, sparse_scales

__all__ = [
  'Pruning',
  'filters',
  'gradual',
  'gradual_magnitude',
  'keep_zeros',
  'magnitude',
  'slim',
  'slimming',
  'sparse',
  'sparse_scales',
]
