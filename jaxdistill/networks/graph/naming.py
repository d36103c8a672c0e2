"""Names of stages, groups of stages, and features."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Features, Network, Output


def output(network: Network, features: Mapping[str, Any]) -> Output:
  """Returns what a network gives a task, from the features of a pass.

  Args:
    network: the network.
    features: the features by name, `[B, ...]`, or their shapes.

  Returns:
    The main output, or a dict of all outputs by name if there are several.
  """
  if len(network.outputs) > 1:
    return {name: features[name] for name in network.outputs}
  main: Output = features[main_output(network)]
  return main


def main_output(network: Network) -> str:
  """Returns the name of the output that methods compare between networks.

  It is the first of the network's outputs, or that of the last stage.
  """
  return (*network.outputs, network.stages[-1].name)[0]


def stage_names(network: Network) -> tuple[str, ...]:
  """Returns the names of the stages, in order."""
  return tuple(stage.name for stage in network.stages)


def groups(network: Network) -> dict[str, tuple[str, ...]]:
  """Returns group -> its stages, in order.

  Stages whose names agree up to the first dot form a group. A stage without a
  dot is a group of its own.
  """
  members: dict[str, tuple[str, ...]] = {}
  for name in stage_names(network):
    group = name.partition('.')[0]
    members[group] = (*members.get(group, ()), name)
  return members


def check_stages(network: Network, names: Iterable[str]) -> None:
  """Raises a UsageError at the first name that is not a stage."""
  valid = stage_names(network)
  for name in names:
    checks.choice('stage', name, valid)


def stages_between(network: Network, start: str, stop: str) -> tuple[str, ...]:
  """Returns the stages that compute the feature `stop` from `start`.

  Such a part of a network is T_i or S_i in Equation (5) of SSKD, which divides
  a backbone into stages that each compute a feature from the one before.

  Args:
    network: the network.
    start: 'image', or the output of a stage or group.
    stop: the output of a later stage or group, whose last stage is included.

  Raises:
    UsageError: a name is not the output of a stage or group (a feature from
      within a stage is not: stages run as a whole), or `stop` does not come
      after `start`.
  """
  names = stage_names(network)
  first = 0 if start == 'image' else names.index(_writer(network, start)) + 1
  last = names.index(_writer(network, stop))
  if last < first:
    raise UsageError(f'feature {stop!r} is not computed after {start!r}')
  return names[first : last + 1]


def with_groups(network: Network, features: Features) -> Features:
  """Gives the feature of a group the name of its last stage, and vice versa.

  Args:
    network: the network.
    features: the features, to which the other names are added in place.
  """
  for group, members in groups(network).items():
    if group in features:
      features.setdefault(members[-1], features[group])
    elif members[-1] in features:
      features[group] = features[members[-1]]
  return features


def _writer(network: Network, feature: str) -> str:
  """Returns the stage whose output is `feature`."""
  members = groups(network)
  names = stage_names(network)
  if feature in names:
    return feature
  if feature in members:
    return members[feature][-1]
  ends = dict.fromkeys((*names, *members))
  error = checks.unknown('output of a stage or group', feature, ends)
  raise UsageError(f'{error}; stages run as a whole')
