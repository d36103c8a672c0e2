"""The candidates of a student search: what may replace a block.

A candidate changes the module of every stage in the neighbourhoods of the
student. The module that replaces another one must give a feature of the same
shape.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.surgery import narrowing


class Candidate(NamedTuple):
  """A choice that a search makes for each neighbourhood.

  Attributes:
    change: the module of a stage -> the module that replaces it.
    applies: module -> whether it is one that the candidate can change.
    sparsity: the fraction of zeros that its training ends with; such a
      candidate starts with the teacher's weights. None: it is dense, and
      starts with new weights.
  """

  change: Callable[[Any], Any] = lambda module: module
  applies: Callable[[Any], bool] = lambda module: True
  sparsity: float | None = None


def narrow(*, multiplier: float) -> Candidate:
  """Returns the candidate with fewer channels inside, as `narrowed` has them.

  Args:
    multiplier: the factor on the inner widths, in (0, 1].
  """
  checks.number('multiplier', multiplier, above=0, at_most=1)

  def change(module: Any) -> Any:
    widths = narrowing.inner_widths(module)
    name = type(module).__name__
    return narrowing.narrow_module(module, widths, multiplier, name)

  return Candidate(change, lambda x: bool(narrowing.inner_widths(x)))


def sparsified(*, sparsity: float) -> Candidate:
  """Returns the candidate that loses weights while it trains.

  Args:
    sparsity: the fraction of zeros that it ends with, in [0, 1); it rises by
      the cubic schedule over half of the steps.
  """
  checks.number('sparsity', sparsity, at_least=0, below=1)
  return Candidate(sparsity=sparsity)


def fields(*, values: Mapping[str, Any]) -> Candidate:
  """Returns the candidate whose modules have other values in some fields.

  Args:
    values: field -> value, such as {'kernel': 5, 'activation': 'swish'}; only
      modules that have all of these fields change.
  """
  if not values:
    raise UsageError('values: expected at least one field of a module, got {}')

  def has_fields(module: Any) -> bool:
    return set(values) <= set(getattr(module, '__dataclass_fields__', ()))

  def change(module: Any) -> Any:
    network = Network((Stage('module', module),), ('module',))
    described: Any = description.to_description(network)
    described['stages'][0]['fields'] |= values
    changed = description.from_description(described, (type(module),))
    return changed.stages[0].module

  return Candidate(change, has_fields)


def block(
  *,
  depth: int = 2,
  kernel: int = 3,
  activation: str = 'relu',
  multiplier: float = 1.0,
  rank: float | None = None,
) -> Candidate:
  """Returns the candidate with a `ResidualUnit` in the place of each block.

  Blocks are modules that have inner widths, a `width` and a `stride`.

  Args:
    depth: the number of convolutions in the unit.
    kernel: the size of their kernels, an odd number.
    activation: the activation between them, a key of `layers.ACTIVATIONS`.
    multiplier: the channels between them as a fraction of the block's width, in
      (0, 1].
    rank: the rank of the kernels as a fraction of the block's width, in (0, 1];
      None: the full rank.
  """
  checks.integer('depth', depth, at_most=100)
  if checks.integer('kernel', kernel, at_most=99) % 2 == 0:
    raise UsageError(f'kernel: expected an odd number, got {kernel}')
  checks.choice('activation', activation, layers.ACTIVATIONS)
  checks.number('multiplier', multiplier, above=0, at_most=1)
  if rank is not None:
    checks.number('rank', rank, above=0, at_most=1)

  def is_block(module: Any) -> bool:
    has_shape = hasattr(module, 'width') and hasattr(module, 'stride')
    return has_shape and bool(narrowing.inner_widths(module))

  def change(module: Any) -> Any:
    return layers.ResidualUnit(
      module.width,
      max(1, math.floor(multiplier * module.width + 1e-9)),
      depth,
      kernel,
      0 if rank is None else max(1, math.floor(rank * module.width + 1e-9)),
      activation,
      stride=module.stride,
      dtype=getattr(module, 'dtype', 'float32'),
    )

  return Candidate(change, is_block)


def changed(
  label: str, candidate: Candidate, network: Network, names: Sequence[str]
) -> Network:
  """Returns a network whose stages are those of a candidate.

  Args:
    label: the name of the candidate, for the message.
    candidate: the candidate.
    network: the student.
    names: the stages in its neighbourhoods.

  Raises:
    UsageError: it cannot change any of them.
  """
  inside = {s.name: s.module for s in network.stages if s.name in names}
  changes = {
    name: candidate.change(module)
    for name, module in inside.items()
    if candidate.applies(module)
  }
  if not changes:
    kinds = dict.fromkeys(type(module).__name__ for module in inside.values())
    raise UsageError(
      f'candidates.{label}: expected a candidate that suits one of the modules '
      f'{", ".join(kinds)}, got one that suits none'
    )
  return Network(
    tuple(
      stage._replace(module=changes.get(stage.name, stage.module))
      for stage in network.stages
    )
  )
