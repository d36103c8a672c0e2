"""Measurements of the models that a run leaves."""

import jax.numpy as jnp
import pytest

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import layers
from jaxdistill.study import measurements


@pytest.fixture(scope='module')
def plan():
  return study.plan(
    {
      'data': {'name': 'digits'},
      'student': {'name': 'resnet8', 'stem_width': 2, 'widths': (2, 2, 2)},
      'method': {'name': 'supervised'},
      'epochs': 1,
    }
  )


def test_a_config_names_trackers_and_their_arguments(plan):
  sections = [{'name': 'wandb', 'project': 'x'}, {'name': 'trackio'}]
  named = study.plan({**plan.config, 'trackers': sections}, plan.dataset)
  packages = [tracker.packages for tracker in named.trackers]
  assert packages == [('wandb',), ('trackio',)]
  assert named.rows[0].resolved == plan.rows[0].resolved
  for section, words in (
    ({'name': 'wandbb'}, "did you mean 'wandb'"),
    ({'name': 'mlflow', 'project': 'x'}, 'experiment'),
    ('wandb', 'trackers.0'),
  ):
    with pytest.raises(UsageError, match=words) as error:
      study.plan({**plan.config, 'trackers': [section]}, plan.dataset)
    assert '\n' not in str(error.value)


def test_models_that_read_images_are_told_from_those_that_read_features(plan):
  model = study.initial_model(plan, 'student', 0)
  assert measurements.output_shape(plan, model) == (1, 10)
  # A paraphraser, for example, reads feature maps of 16 channels.
  unit = Network((Stage('encoder', layers.ConvUnit(2)),))
  kernel = {'kernel': jnp.zeros((3, 3, 16, 2))}
  norm = {k: jnp.zeros(2) for k in ('scale', 'bias')}
  params = {'encoder': {'conv': kernel, 'norm': norm}}
  assert (
    measurements.output_shape(plan, Model(unit, {'params': params})) is None
  )
