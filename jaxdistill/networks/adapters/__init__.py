"""Adopts a user's own models: Flax Linen, Flax NNX, or plain functions."""

from typing import TYPE_CHECKING

from jaxdistill.core import lazy
from jaxdistill.networks.adapters.functions import from_functions
from jaxdistill.networks.adapters.linen import from_linen

if TYPE_CHECKING:
  from jaxdistill.networks.adapters.nnx import from_nnx, to_nnx

__all__ = ['from_functions', 'from_linen', 'from_nnx', 'to_nnx']

# Importing Flax NNX takes half a second.
_HOMES = dict.fromkeys(
  ('from_nnx', 'to_nnx'), 'jaxdistill.networks.adapters.nnx'
)

if not TYPE_CHECKING:  # else type checkers would accept every name
  __getattr__, __dir__ = lazy.attributes(__name__, __all__, _HOMES)
