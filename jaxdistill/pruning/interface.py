"""The type `Pruning`, and the checks that all prunings share."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import graph


class Pruning(NamedTuple):
  """One way to make a trained network smaller or sparser.

  Attributes:
    check: raises UsageError if it cannot prune the model. The model's variables
      may be shapes instead of arrays.
    prune: model -> the pruned model.
  """

  check: Callable[[Model], object]
  prune: Callable[[Model], Model]


def check_skip(network: Network, skip: Sequence[str]) -> None:
  """Checks the names of what is not to be pruned.

  Args:
    network: the network to prune.
    skip: names of stages or groups.

  Raises:
    UsageError: a name is neither a stage nor a group of the network.
  """
  valid = [*graph.stage_names(network), *graph.groups(network)]
  for name in skip:
    checks.choice('stage or group to skip', name, dict.fromkeys(valid))


def skipped(stage: str, skip: Sequence[str]) -> bool:
  """Says whether a skip list names a stage or its group.

  Args:
    stage: the name of the stage.
    skip: names of stages or groups.
  """
  return stage in skip or stage.partition('.')[0] in skip
