"""Makes networks narrower inside, where the rest of them does not see it."""

from collections.abc import Mapping, Sequence
import math
from typing import Any, Protocol

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import graph


class Narrowable(Protocol):
  """A Linen module that says which of its fields `narrowed` may reduce.

  A module may have `inner_widths`, or `output_widths` with the same form. The
  latter names the channels of the module's output. They are reduced only where
  the next stage of the same group reads them, and reads any number of them.
  """

  def inner_widths(self) -> Mapping[str, int]:
    """Returns field -> the number of channels inside the module.

    Other numbers in these fields must not change the shape of its output.
    """


def narrowed(
  network: Network, *, multiplier: float, inner_after: bool = True
) -> Network:
  """Returns the network with fewer channels inside its blocks.

  The input and output of each block keep their shapes; a VGG keeps those of
  each group. This is the student of Neighbourhood Distillation, whose inner
  widths are floor(multiplier * width).

  Modules say which widths are inner ones, see `Narrowable`: the blocks of
  ResNets, pyramid networks and DenseNets with bottlenecks, inverted residuals,
  the units of ShuffleNetV2, the convolutions of a VGG, and any module of your
  own with the method `inner_widths`.

  Args:
    network: a network with such modules. Its other stages stay as they are.
    multiplier: the factor on the inner widths, in (0, 1].
    inner_after: whether the second inner width of a bottleneck shrinks too,
      which the paper marks by '-3' instead of '-2'.

  Raises:
    UsageError: the multiplier is not in (0, 1] or leaves a block without
      channels, or no stage of the network has inner widths.
  """
  checks.number('multiplier', multiplier, above=0, at_most=1)
  chained = _read_in_their_group(network)
  stages, is_narrowable = [], False
  for stage in network.stages:
    widths = inner_widths(stage.module)
    if stage.name in chained:
      widths |= _widths(stage.module, 'output_widths')
    is_narrowable |= bool(widths)
    narrow = narrow_module(
      stage.module,
      widths,
      multiplier,
      stage.name,
      kept=() if inner_after else ('inner_after',),
    )
    stages.append(stage._replace(module=narrow))
  if not is_narrowable:
    raise UsageError(
      'network: expected a stage whose module says what is inside of it (the '
      'blocks of ResNets, inverted residuals, a VGG with several convolutions '
      'in a group, or a module with the method inner_widths), got '
      f'{_described(network)}'
    )
  return network._replace(stages=tuple(stages))


def inner_widths(module: Any) -> dict[str, int]:
  """Returns field -> channels inside a module; {} if it does not say."""
  return _widths(module, 'inner_widths')


def narrow_module(
  module: Any,
  widths: Mapping[str, int],
  multiplier: float,
  name: str,
  kept: Sequence[str] = (),
) -> Any:
  """Returns a module with floor(multiplier * width) channels in some fields.

  Args:
    module: the module.
    widths: field -> its present number of channels.
    multiplier: the factor, in (0, 1].
    name: the name of the module, for the message.
    kept: the fields that keep their number, even if it depends on another one.

  Raises:
    UsageError: a field would become 0.
  """
  if multiplier == 1 or not widths:
    return module
  narrow = {
    field: width if field in kept else math.floor(multiplier * width + 1e-9)
    for field, width in widths.items()
  }
  for field, width in widths.items():
    if narrow[field] < 1:
      raise UsageError(
        f'multiplier: {multiplier} leaves {name!r} none of its {width} channels'
      )
  return module.clone(**narrow)


def _widths(module: Any, method: str) -> dict[str, int]:
  """Calls a method of `Narrowable`, if the module has it."""
  return dict(getattr(module, method, dict)())


def _read_in_their_group(network: Network) -> set[str]:
  """Returns the stages whose output only the next one of their group reads.

  The next one, too, must be of the kind that has `output_widths`, because it
  has to read any number of channels.
  """
  read_by_name = {name for stage in network.stages for name in stage.inputs}

  def group(stage: Stage) -> str:
    return stage.name.partition('.')[0]

  return {
    stage.name
    for stage, after in zip(network.stages, network.stages[1:])
    if group(stage) == group(after)
    and not after.inputs
    and stage.name not in read_by_name
    and _widths(after.module, 'output_widths')
  }


def _described(network: Network) -> str:
  """Returns the stages of a network and the kinds of their modules."""
  kinds = [
    f'{name} ({type(stage.module).__name__})'
    for name, stage in zip(graph.stage_names(network), network.stages)
  ]
  return ', '.join(kinds)
