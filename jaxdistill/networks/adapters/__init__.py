"""Adopts a user's own models: Flax Linen, Flax NNX, or plain functions."""

from jaxdistill.networks.adapters.functions import from_functions
from jaxdistill.networks.adapters.linen import from_linen
from jaxdistill.networks.adapters.nnx import from_nnx, to_nnx

__all__ = ['from_functions', 'from_linen', 'from_nnx', 'to_nnx']
