"""Makes a network narrower everywhere."""

import math

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network
from jaxdistill.networks import graph
from jaxdistill.networks.models import shufflenet

# The fields of the library's blocks that count channels; 0 stands for a number
# that follows from another one.
WIDTHS = ('width', 'inner', 'inner_after', 'growth', 'squeeze')
# The fields by which the numbers of channels must be divisible.
PARTS = ('heads', 'groups', 'first_groups')


def scaled(network: Network, *, share: float) -> Network:
  """Returns the network with a share of its channels in every layer.

  The numbers of channels are rounded, and are at least 1. Where a layer divides
  its channels into groups or heads, they are rounded to a multiple of these,
  whose number does not change. The outputs keep their number. Parameters shrink
  with the square of the share.

  Args:
    network: a network of the library's blocks.
    share: the factor on all numbers of channels, in (0, 1].

  Raises:
    UsageError: the share is not in (0, 1], or the network has other blocks.
  """
  checks.number('share', share, above=0, at_most=1)
  multiple = _multiple(network)

  def fewer(width: int) -> int:
    return width and multiple * max(1, round(share * width / multiple))

  stages = []
  for stage in network.stages:
    module = stage.module
    widths: dict[str, object] = {
      name: fewer(getattr(module, name))
      for name in WIDTHS
      if type(getattr(module, name, None)) is int
    }
    if hasattr(module, 'selected'):  # the indices are those of wider inputs
      widths['selected'] = ()
    stages.append(
      stage._replace(module=module.clone(**widths)) if widths else stage
    )
  smaller = network._replace(stages=tuple(stages))
  if share < 1 and smaller == network:
    raise UsageError(
      "network: expected one of the library's blocks, whose widths are known, "
      f'got one with the stages {", ".join(graph.stage_names(network))}'
    )
  return smaller


def _multiple(network: Network) -> int:
  """Returns the number by which all widths of a network must be divisible."""
  modules = [stage.module for stage in network.stages]
  parts = [getattr(m, name, 1) for m in modules for name in PARTS]
  halves = any(isinstance(m, shufflenet.SplitUnit) for m in modules)
  return math.lcm(2 if halves else 1, *parts)
