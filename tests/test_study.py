"""What is measured of the models that a run leaves."""

import jax.numpy as jnp
import pytest

from jaxdistill import experiment
from jaxdistill.networks import layers
from jaxdistill.study import measuring
from jaxdistill.types import Model, Network, Stage


@pytest.fixture(scope='module')
def plan():
  return experiment.plan(
    {
      'data': {'name': 'digits'},
      'student': {'name': 'resnet8', 'stem_width': 2, 'widths': (2, 2, 2)},
      'method': {'name': 'supervised'},
      'epochs': 1,
    }
  )


def test_models_that_answer_images_are_told_from_those_that_read_features(plan):
  model = experiment.initial_model(plan, 'student', 0)
  assert measuring.answer_shape(plan, model) == (1, 10)
  # Such as a paraphraser: of maps of 16 channels, not of images.
  unit = Network((Stage('encoder', layers.ConvUnit(2)),))
  kernel = {'kernel': jnp.zeros((3, 3, 16, 2))}
  norm = {k: jnp.zeros(2) for k in ('scale', 'bias')}
  params = {'encoder': {'conv': kernel, 'norm': norm}}
  assert measuring.answer_shape(plan, Model(unit, {'params': params})) is None
