"""The layers that architectures are made of."""

from jaxdistill.networks.layers.basic import (
  ACTIVATIONS,
  KERNELS,
  Channels,
  Classifier,
  ConvUnit,
  Hidden,
  NormPool,
  Pool,
  append_zeros,
  batch_norm,
  conv,
  linear,
  pool_and_pad,
  select,
  torch_uniform,
)
from jaxdistill.networks.layers.convolutions import max_pool
from jaxdistill.networks.layers.cosine import CLASSIFIERS, CosineClassifier
from jaxdistill.networks.layers.residual_unit import ResidualUnit

__all__ = [
  'ACTIVATIONS',
  'CLASSIFIERS',
  'KERNELS',
  'Channels',
  'Classifier',
  'ConvUnit',
  'CosineClassifier',
  'Hidden',
  'NormPool',
  'Pool',
  'ResidualUnit',
  'append_zeros',
  'batch_norm',
  'conv',
  'linear',
  'max_pool',
  'pool_and_pad',
  'select',
  'torch_uniform',
]
