"""Makes residual blocks narrower inside."""

import math

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network
from jaxdistill.networks import graph
from jaxdistill.networks.models import imagenet_resnet, resnet

# The blocks that `narrowed` knows.
NARROWED = (
  imagenet_resnet.Bottleneck,
  resnet.BasicBlock,
  resnet.PreactivationBlock,
)


def narrowed(
  network: Network, *, multiplier: float, inner_after: bool = True
) -> Network:
  """Returns the network with fewer channels inside its residual blocks.

  The input and output of each block keep their shapes. This is the student of
  Neighbourhood Distillation, whose inner widths are floor(multiplier * width).

  Args:
    network: a network with basic, pre-activation or bottleneck blocks.
    multiplier: the factor on the inner widths, in (0, 1].
    inner_after: whether the second inner width of a bottleneck shrinks too,
      which the paper marks by '-3' instead of '-2'.

  Raises:
    UsageError: the multiplier is not in (0, 1] or leaves a block without
      channels, or the network has no residual block.
  """
  checks.number('multiplier', multiplier, above=0, at_most=1)

  def shrunk(name: str, width: int) -> int:
    narrow = math.floor(multiplier * width + 1e-9)
    if narrow < 1:
      raise UsageError(
        f'multiplier: {multiplier} leaves {name!r} none of its {width} channels'
      )
    return narrow

  stages = []
  for stage in network.stages:
    module, widths = stage.module, {}
    if isinstance(module, imagenet_resnet.Bottleneck):
      inner = module.inner or module.width // 4
      after = module.inner_after or inner
      widths['inner'] = shrunk(stage.name, inner)
      widths['inner_after'] = (
        shrunk(stage.name, after) if inner_after else after
      )
    elif isinstance(module, (resnet.BasicBlock, resnet.PreactivationBlock)):
      widths['inner'] = shrunk(stage.name, module.inner or module.width)
    if multiplier < 1 and widths:
      stage = stage._replace(module=module.clone(**widths))
    stages.append(stage)
  if not any(isinstance(stage.module, NARROWED) for stage in stages):
    raise UsageError(
      'network: expected one with basic, bottleneck or pre-activation blocks '
      'of a ResNet, got one with the stages '
      f'{", ".join(graph.stage_names(network))}'
    )
  return Network(tuple(stages))
