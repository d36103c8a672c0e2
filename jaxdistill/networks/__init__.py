"""Networks: made by name, adopted, run, changed, described, saved and loaded.

A network is a tuple of named stages. It holds no weights: those are variables,
{collection: {stage: ...}}, and a `Model` is a network with its variables.

  Making: `create`, `names`, `from_linen`, `from_nnx`, `from_functions`.
  Running: `init`, `run`, `apply`; `to_nnx` gives a module back.
  Looking: `output`, `main_output`, `stage_names`, `groups`, `stages_between`,
    `shapes`, `variable_shapes`, `check_feature_pairs`, `summary`,
    `count_parameters`.
  Changing: `splice`.
  Files: `save`, `load`, `load_torch`, `to_torch`, `to_description`,
    `from_description`, `register`.
"""

from typing import TYPE_CHECKING

from jaxdistill.core import lazy
from jaxdistill.networks.adapters import from_functions, from_linen
from jaxdistill.networks.description import (
  from_description,
  register,
  to_description,
)
from jaxdistill.networks.graph import (
  apply,
  check_feature_pairs,
  count_parameters,
  groups,
  init,
  main_output,
  output,
  run,
  shapes,
  splice,
  stage_names,
  stages_between,
  variable_shapes,
)
from jaxdistill.networks.registry import (
  EDITS,
  FILES,
  NETWORKS,
  create,
  names,
)
from jaxdistill.networks.table import summary
from jaxdistill.networks.weights.files import load, save
from jaxdistill.networks.weights.huggingface import load as load_huggingface
from jaxdistill.networks.weights.pretrained import load as load_torch
from jaxdistill.networks.weights.pretrained import to_torch

if TYPE_CHECKING:
  from jaxdistill.networks.adapters import from_nnx, to_nnx

__all__ = [
  'EDITS',
  'FILES',
  'NETWORKS',
  'apply',
  'check_feature_pairs',
  'count_parameters',
  'create',
  'from_description',
  'from_functions',
  'from_linen',
  'from_nnx',
  'groups',
  'init',
  'load',
  'load_huggingface',
  'load_torch',
  'main_output',
  'names',
  'output',
  'register',
  'run',
  'save',
  'shapes',
  'splice',
  'stage_names',
  'stages_between',
  'summary',
  'to_description',
  'to_nnx',
  'to_torch',
  'variable_shapes',
]

# Importing Flax NNX takes half a second.
_HOMES = dict.fromkeys(('from_nnx', 'to_nnx'), 'jaxdistill.networks.adapters')

if not TYPE_CHECKING:  # else type checkers would accept every name
  __getattr__, __dir__ = lazy.attributes(__name__, __all__, _HOMES)
