"""Networks as tuples of named stages: run, split and splice them."""

from jaxdistill.networks.graph.naming import (
  check_stages,
  groups,
  main_output,
  output,
  stage_names,
  stages_between,
  with_groups,
)
from jaxdistill.networks.graph.running import (
  apply,
  check_feature_pairs,
  init,
  run,
  shapes,
  variable_shapes,
)
from jaxdistill.networks.graph.splicing import (
  count_nonzero,
  count_parameters,
  merge,
  same_modules,
  select,
  splice,
)

__all__ = [
  'apply',
  'check_feature_pairs',
  'check_stages',
  'count_nonzero',
  'count_parameters',
  'groups',
  'init',
  'main_output',
  'merge',
  'output',
  'run',
  'same_modules',
  'select',
  'shapes',
  'splice',
  'stage_names',
  'stages_between',
  'variable_shapes',
  'with_groups',
]
