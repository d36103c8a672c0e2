"""A new head learns before the layers below it."""

import jax
import numpy as np
import pytest

from jaxdistill import methods
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import embedding
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))


def changed(before, after, collection):
  """Returns the stages with variables that differ."""
  stages = before.variables[collection]
  return {
    name
    for name in stages
    if any(
      np.any(x != y)
      for x, y in zip(
        jax.tree.leaves(stages[name]),
        jax.tree.leaves(after.variables[collection][name]),
      )
    )
  }


def test_first_the_head_learns_and_then_all_stages_with_frozen_statistics(
  recipe, student, dataset
):
  def fit(method, carry):
    return loop.fit(method, carry, dataset, options=SILENT).carry

  head, whole = methods.head_first(recipe, first=1 / 3)
  carry = {'student': student}
  start, _ = head(carry).init(jax.random.key(0), carry)
  for leaf in jax.tree.leaves(start.variables['student']['params']['head']):
    assert not leaf.any()
  probed = fit((head,), {'student': student})
  assert changed(student, probed['student'], 'params') == {'head'}
  tuned = fit((whole,), probed)
  assert changed(student, tuned['student'], 'params') == {
    *student.variables['params']
  }
  assert not changed(student, tuned['student'], 'batch_stats')
  steps = [
    phase(probed).num_steps
    for phase in (head, whole, *methods.head_first(recipe, first=1.0))
  ]
  assert steps == [2, 4, 6, 0]


def test_the_embedding_of_a_network_learns_with_its_head(
  recipe, student, dataset
):
  network = embedding.embedded(student.network, size=4)._replace(outputs=())
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  start = Model(network, graph.init(network, jax.random.key(0), image))
  head, _ = methods.head_first(recipe, first=1 / 3)
  probed = loop.fit((head,), {'student': start}, dataset, options=SILENT).carry
  trained = changed(start, probed['student'], 'params')
  assert trained == {'embedding', 'head'}


def test_a_fraction_of_the_epochs_is_at_most_1(recipe):
  with pytest.raises(UsageError, match='first'):
    methods.head_first(recipe, first=1.5)


def test_a_network_without_a_linear_head_is_refused(recipe, student):
  pooled = Model(Network(student.network.stages[:-1]), student.variables)
  with pytest.raises(UsageError, match='ends with a classifier, got Pool'):
    methods.head_first(recipe)[0]({'student': pooled})
