"""Labels are learned by a classifier that is removed in the end."""

import jax
import numpy as np
import pytest

from jaxdistill import methods, tasks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.supervised_vectors import with_classes
from jaxdistill.networks import graph, layers
from jaxdistill.phases import joint
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))


def test_the_vectors_are_those_of_a_network_that_learned_the_labels(
  recipe, student, dataset, batch
):
  wide = (*student.network.stages[:-1], Stage('head', layers.Classifier(5)))
  image = {'image': recipe.example['image']}
  network = Network(wide)
  model = Model(network, graph.init(network, jax.random.key(3), image))
  method = methods.supervised_vectors(recipe._replace(task=tasks.embedding()))
  (phase_of,) = method
  phase = phase_of({'student': model})
  assert not phase.eval_models
  carry = {'student': model}
  vectors = loop.fit(method, carry, dataset, options=SILENT).carry['student']
  assert graph.stage_names(vectors.network)[-1] == 'pool'

  # The same training with the classifier as the last stage of the network.
  starts = []

  def init(rng, carry):
    state, frozen = phase.init(rng, carry)
    starts.append(state.variables['student'])
    return state, frozen

  loop.fit(
    (lambda carry: phase._replace(init=init, num_steps=0),),
    carry,
    dataset,
    options=SILENT,
  )
  labelled = {'student': Model(with_classes(network, 3), starts[0])}
  expected = loop.fit(
    joint.supervised(recipe), labelled, dataset, options=SILENT
  ).carry['student']
  features, _ = graph.run(*expected, {'image': batch['image']})
  outputs = graph.apply(*vectors, batch['image'])
  np.testing.assert_allclose(outputs, features['pool'], rtol=1e-6)
  untrained, _ = graph.run(*model, {'image': batch['image']})
  assert np.abs(outputs - untrained['pool']).max() > 1e-3


def test_images_and_networks_without_classes_are_refused(recipe, student):
  recipe = recipe._replace(task=tasks.embedding())
  unlabelled = recipe._replace(examples={'index': np.arange(24)})
  with pytest.raises(UsageError, match='expected images with labels'):
    methods.supervised_vectors(unlabelled)
  pooled = Model(Network(student.network.stages[:-1]), student.variables)
  with pytest.raises(UsageError, match='ends with a linear layer, got Pool'):
    methods.supervised_vectors(recipe)[0]({'student': pooled})


def test_a_task_of_classes_is_refused(recipe):
  with pytest.raises(UsageError, match=r"of vectors, .* got 'classification'"):
    methods.supervised_vectors(recipe)
