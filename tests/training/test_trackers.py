"""Trackers: what they are sent, and that a missing one is refused."""

import sys
import types

import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.training import log, trackers

SETTINGS = {'method': {'name': 'kd', 'temperature': 4.0}, 'epochs': 2}


class Service(types.ModuleType):
  """A module that notes every call of its functions, and is its own run."""

  def __init__(self, name):
    super().__init__(name)
    self.calls = []

  def __getattr__(self, name):
    if name.startswith('__'):
      raise AttributeError(name)

    def call(*arguments, **keywords):
      self.calls.append((name, arguments, keywords))
      return self

    return call


@pytest.fixture
def service(request, monkeypatch):
  module = Service(request.param)
  monkeypatch.setitem(sys.modules, request.param, module)
  return module


def recorded(tracker, name='digits/kd/0'):
  """Sends two records of a run to a tracker."""
  trackers.check(tracker)
  run = tracker.start(name, SETTINGS)
  writer = log.Log(show=False, tracked=[run])
  writer.begin(1, 'joint', 0, 10, 30)
  writer.write(5, 'train', {'loss': 0.5})
  writer.write(10, 'validation', {'top1': 0.75, 'loss': 0.25})
  run.finish()


@pytest.mark.parametrize('service', ['wandb', 'trackio'], indirect=True)
def test_a_run_of_its_own_gets_the_numbers_with_the_steps_of_all_phases(
  service,
):
  name = service.__name__
  recorded(getattr(trackers, name)(project='vision'))
  (first, *rest) = service.calls
  assert first[0] == 'init'
  assert first[2]['project'] == 'vision' and first[2]['config'] == SETTINGS
  assert first[2]['name'] == 'digits/kd/0'
  values = {'joint/validation/top1': 0.75, 'joint/validation/loss': 0.25}
  assert rest == [
    ('log', ({'joint/train/loss': 0.5},), {'step': 35}),
    ('log', (values,), {'step': 40}),
    ('finish', (), {}),
  ]


@pytest.mark.parametrize('service', ['mlflow'], indirect=True)
def test_mlflow_gets_flat_parameters_and_its_own_place(service):
  recorded(trackers.mlflow(experiment='vision', uri='runs/mlflow'))
  assert [call[0] for call in service.calls] == [
    *('set_tracking_uri', 'set_experiment', 'start_run', 'log_params'),
    *('log_metrics', 'log_metrics', 'end_run'),
  ]
  assert service.calls[3][1] == (
    {'method.name': 'kd', 'method.temperature': 4.0, 'epochs': 2},
  )
  assert service.calls[4][1:] == (({'joint/train/loss': 0.5},), {'step': 35})


@pytest.mark.parametrize('name', ['wandb', 'mlflow', 'trackio'])
def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
  name, monkeypatch
):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UsageError, match=rf"jaxdistill\[{name}\]'") as error:
    trackers.check(getattr(trackers, name)())
  assert '\n' not in str(error.value)
