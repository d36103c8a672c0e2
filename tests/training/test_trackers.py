"""Trackers: what they are sent, and that a missing one is refused."""

import re
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
  if name == 'wandb':  # without it, a second run would be the first one
    assert first[2]['reinit'] == 'create_new'
  values = {'joint/validation/top1': 0.75, 'joint/validation/loss': 0.25}
  assert rest == [
    ('log', ({'joint/train/loss': 0.5},), {'step': 35}),
    ('log', (values,), {'step': 40}),
    ('finish', (), {}),
  ]


class Mlflow(types.ModuleType):
  """A module whose client keeps what each run is sent."""

  def __init__(self):
    super().__init__('mlflow')
    self.places, self.runs, self.ended = [], {}, []

  def set_tracking_uri(self, uri):
    self.places.append(uri)

  def set_experiment(self, name):
    self.places.append(name)
    return types.SimpleNamespace(experiment_id='7')

  def MlflowClient(self):
    return self

  def create_run(self, experiment_id, *, run_name):
    assert experiment_id == '7'
    self.runs[run_name] = {}
    info = types.SimpleNamespace(run_id=run_name)
    return types.SimpleNamespace(info=info)

  def log_param(self, run_id, key, value):
    self.log_metric(run_id, key, value)

  def log_metric(self, run_id, key, value, *, step=None):
    assert re.fullmatch(r'[\w./ -]+', key)  # MLflow refuses other names
    self.runs[run_id][key] = value if step is None else (step, value)

  def set_terminated(self, run_id):
    self.ended.append(run_id)


def test_mlflow_gets_flat_parameters_and_its_own_place(monkeypatch):
  service = Mlflow()
  monkeypatch.setitem(sys.modules, 'mlflow', service)
  recorded(trackers.mlflow(experiment='vision', uri='runs/mlflow'))
  assert service.places == ['runs/mlflow', 'vision']
  assert service.runs['digits/kd/0'] == {
    **{'method.name': 'kd', 'method.temperature': 4.0, 'epochs': 2},
    'joint/train/loss': (35, 0.5),
    'joint/validation/top1': (40, 0.75),
    'joint/validation/loss': (40, 0.25),
  }
  assert service.ended == ['digits/kd/0']


def test_mlflow_keeps_several_runs_apart_and_gets_names_that_it_allows(
  monkeypatch,
):
  service = Mlflow()
  monkeypatch.setitem(sys.modules, 'mlflow', service)
  tracker = trackers.mlflow()
  runs = [tracker.start(f'faces/kd/{seed}', {}) for seed in range(2)]
  for seed, run in enumerate(runs):
    run.log(5, {'kd/validation/tar@0.01': float(seed)})
  runs[0].finish()
  assert service.runs == {
    'faces/kd/0': {'kd/validation/tar_0.01': (5, 0.0)},
    'faces/kd/1': {'kd/validation/tar_0.01': (5, 1.0)},
  }
  assert service.ended == ['faces/kd/0']


@pytest.mark.parametrize('name', ['wandb', 'mlflow', 'trackio'])
def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
  name, monkeypatch
):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UsageError, match=rf"jaxdistill\[{name}\]'") as error:
    trackers.check(getattr(trackers, name)())
  assert '\n' not in str(error.value)
