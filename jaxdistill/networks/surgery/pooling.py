"""Networks whose output is a vector that describes the image."""

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import graph


def pooled(network: Network, *, feature: str | None = None) -> Network:
  """Returns the network with another feature as its output.

  All stages stay, and so do the variables. A classifier thus gives the pooled
  feature that its last layer reads.

  Args:
    network: the network.
    feature: the output of a stage or group; None means what the last stage
      reads, usually the pooled map.

  Raises:
    UsageError: there is no such feature, or the network has a single stage.
  """
  names = graph.stage_names(network)
  if feature is None:
    if len(names) < 2:
      raise UsageError(
        'pooled: expected a network with several stages, got the only stage '
        f'{names[0]!r}'
      )
    feature = (network.stages[-1].inputs or names[-2:-1])[0]
  checks.choice('feature', feature, (*names, *graph.groups(network)))
  return network._replace(outputs=(feature,))


def without_head(model: Model) -> Model:
  """Returns a model without its last stage, whose input becomes the output.

  Args:
    model: a model whose last stage reads the stage before it.

  Raises:
    UsageError: the network has a single stage or names its outputs, or its last
      stage reads something else.
  """
  network = model.network
  names = graph.stage_names(network)
  last = network.stages[-1]
  if len(names) < 2 or network.outputs or last.inputs not in ((), names[-2:-1]):
    raise UsageError(
      'expected a network whose last stage reads the stage before it and gives '
      f'the output, got the stages {", ".join(names)}'
    )
  variables = graph.select(model.variables, names[:-1])
  return Model(Network(network.stages[:-1]), variables)
