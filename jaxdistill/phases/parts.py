"""A phase whose parts train independently of each other.

Such parts can be trained together in one program, or each by a job of its own,
whose results are joined afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from jaxdistill.core.types import Carry, Method, Model, Phase
from jaxdistill.networks import graph

# Role -> the stages that a part trains.
Trained = Mapping[str, Sequence[str]]


class NameParts(Protocol):
  """Says what the parts of a phase are."""

  def __call__(self, carry: Carry, /) -> Mapping[str, Trained]:
    """Returns name of the part -> role -> the stages that it trains.

    Args:
      carry: what the phase before handed on.
    """


class BuildPhase(Protocol):
  """Builds the phase, or a part of it."""

  def __call__(self, carry: Carry, part: str | None, /) -> Phase:
    """Returns the phase that trains one part and nothing else.

    Args:
      carry: what the phase before handed on.
      part: the name of the part; None: all of them.
    """


class InParts(NamedTuple):
  """The builder of a phase whose parts are independent of each other.

  A part gives the same result (up to rounding) whichever others train beside
  it, because it shares neither its losses nor its state with them.

  Attributes:
    parts: carry -> name of the part -> role -> the stages that it trains.
    phase: (carry, name of a part) -> the phase that trains this part; with None
      in place of the name, the whole phase.
  """

  parts: NameParts
  phase: BuildPhase

  def __call__(self, carry: Carry) -> Phase:
    """Builds the phase that trains all parts; see `types.PhaseBuilder`."""
    return self.phase(carry, None)


def first_in_parts(method: Method) -> int | None:
  """Returns the position of the first phase in parts; None if there is none."""
  return next(
    (i for i, build in enumerate(method) if isinstance(build, InParts)), None
  )


def part_of(method: Method, order: int, part: str) -> Method:
  """Returns a method up to a phase in parts, of which it trains one alone.

  Args:
    method: the method.
    order: the position of the phase.
    part: the name of the part.
  """
  build = method[order]
  assert isinstance(build, InParts)
  return (*method[:order], lambda carry: build.phase(carry, part))


def joined(carry: Carry, trained: Carry, part: Trained) -> Carry:
  """Returns a carry in which one part is as another carry has it.

  Args:
    carry: the carry.
    trained: a carry with the same roles, in which the part has trained.
    part: role -> the stages of the part.
  """
  models = {}
  for role, stages in part.items():
    model = carry[role]
    new = graph.select(trained[role].variables, stages)
    models[role] = Model(model.network, graph.merge(model.variables, new))
  return {**carry, **models}
