"""Services that record a training: Weights & Biases, MLflow and trackio.

A tracker gets the same numbers as metrics.jsonl and TensorBoard. To use one of
your own, write a function that returns a `Tracker`; its keyword arguments are
keys of the config.
"""

from collections.abc import Iterator, Mapping
import os
import re
from typing import Any, NamedTuple, Protocol

from jaxdistill.core import optional


class LogMetrics(Protocol):
  """Sends numbers to a tracker."""

  def __call__(self, step: int, metrics: Mapping[str, float], /) -> None:
    """Sends the numbers of one step.

    Args:
      step: the number of training steps of the run so far, over all phases.
      metrics: 'PHASE/SPLIT/METRIC' -> value.
    """


class Finish(Protocol):
  """Ends a run in a tracker."""

  def __call__(self) -> None:
    """Ends the run; it is called whether the training succeeds or fails."""


class TrackedRun(NamedTuple):
  """One seed of a row, as a tracker records it.

  Attributes:
    log: (step, metrics) -> None.
    finish: () -> None.
  """

  log: LogMetrics
  finish: Finish


class Start(Protocol):
  """Begins to record a run."""

  def __call__(self, name: str, settings: Mapping[str, Any], /) -> TrackedRun:
    """Returns the run.

    Args:
      name: the work directory, the row and the seed, as in 'quickstart/kd/0'.
      settings: all keys on which the numbers of the row depend, as JSON.
    """


class Tracker(NamedTuple):
  """A service that records runs.

  Attributes:
    start: (name, settings) -> the run.
    packages: the modules that it needs; before the training, it is checked that
      they are installed.
  """

  start: Start
  packages: tuple[str, ...] = ()


def check(tracker: Tracker) -> None:
  """Checks that the packages of a tracker are installed.

  Raises:
    UsageError: one is missing.
  """
  for package in tracker.packages:
    optional.require(package, f'the tracker {package}')


def wandb(*, project: str = 'jaxdistill', entity: str | None = None) -> Tracker:
  """Records runs with Weights & Biases.

  Args:
    project: the name of the project.
    entity: the user or team; None: the default of the account.
  """

  def start(name: str, settings: Mapping[str, Any]) -> TrackedRun:
    module = optional.require('wandb', 'the tracker wandb')
    run = module.init(
      project=project,
      entity=entity,
      name=name,
      config=dict(settings),
      reinit='create_new',  # seeds that train together have a run each
    )
    return TrackedRun(
      lambda step, metrics: run.log(dict(metrics), step=step), run.finish
    )

  return Tracker(start, ('wandb',))


def mlflow(
  *, experiment: str = 'jaxdistill', uri: str | os.PathLike[str] | None = None
) -> Tracker:
  """Records runs with MLflow.

  Characters that its names may not have become '_', as in 'tar_0.01'.

  Args:
    experiment: the name of the experiment.
    uri: the server or the folder; None: what MLFLOW_TRACKING_URI says.
  """

  def start(name: str, settings: Mapping[str, Any]) -> TrackedRun:
    module = optional.require('mlflow', 'the tracker mlflow')
    if uri is not None:
      module.set_tracking_uri(os.fspath(uri))
    place = module.set_experiment(experiment)
    # The functions of the module itself know only one run at a time.
    client = module.MlflowClient()
    run = client.create_run(place.experiment_id, run_name=name).info.run_id
    for key, value in _flat(settings):
      client.log_param(run, _mlflow_name(key), value)

    def log(step: int, metrics: Mapping[str, float]) -> None:
      for key, value in metrics.items():
        client.log_metric(run, _mlflow_name(key), value, step=step)

    return TrackedRun(log, lambda: client.set_terminated(run))

  return Tracker(start, ('mlflow',))


def trackio(
  *, project: str = 'jaxdistill', space_id: str | None = None
) -> Tracker:
  """Records runs with trackio, on this machine or in a Hugging Face Space.

  Args:
    project: the name of the project.
    space_id: 'OWNER/NAME' of a Space; None: this machine.
  """

  def start(name: str, settings: Mapping[str, Any]) -> TrackedRun:
    module = optional.require('trackio', 'the tracker trackio')
    place = {} if space_id is None else {'space_id': space_id}
    run = module.init(
      project=project, name=name, config=dict(settings), **place
    )
    return TrackedRun(
      lambda step, metrics: run.log(dict(metrics), step=step), run.finish
    )

  return Tracker(start, ('trackio',))


def _mlflow_name(name: str) -> str:
  """Returns a name with the characters that MLflow allows in all versions."""
  return re.sub(r'[^\w./ -]', '_', name)


def _flat(tree: Any, name: str = '') -> Iterator[tuple[str, Any]]:
  """Yields ('section.key', value) of nested mappings."""
  if not isinstance(tree, Mapping):
    yield name, tree
    return
  for key, value in tree.items():
    yield from _flat(value, f'{name}.{key}' if name else key)
