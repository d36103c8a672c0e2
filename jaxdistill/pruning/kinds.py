"""What a pruning is, and the checks that all of them share."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxdistill.networks import staged
from jaxdistill.types import Model, Network


class Pruning(NamedTuple):
  """One way to make a trained network smaller or sparser.

  Attributes:
    check: raises UsageError where the model cannot be pruned so; shapes in
      place of its variables suffice.
    prune: model -> the pruned model.
  """

  check: Callable[[Model], object]
  prune: Callable[[Model], Model]


def check_skip(network: Network, skip: Sequence[str]) -> None:
  """Raises UsageError at a name that is neither a stage nor a group."""
  valid = [*staged.stage_names(network), *staged.groups(network)]
  for name in skip:
    if name not in valid:
      raise staged.unknown('stage or group to skip', name, dict.fromkeys(valid))


def skipped(stage: str, skip: Sequence[str]) -> bool:
  """Whether a stage, or its group, is named in a skip list."""
  return stage in skip or stage.partition('.')[0] in skip
