"""The distillation terms of a training loss, built for a pair of networks."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from jaxdistill import objectives
from jaxdistill.core import checks, random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Batch,
  Features,
  Metrics,
  Model,
  Network,
  Variables,
)
from jaxdistill.networks import graph


class Terms(NamedTuple):
  """Terms that are added to a loss, and the adapters that they need.

  Attributes:
    by_label: label -> term.
    adapters: the adapters of all terms, as one network.
  """

  by_label: Mapping[str, objectives.Term]
  adapters: Network

  def adapted(
    self, variables: Variables, features: Features, rng: Array
  ) -> tuple[Features, Variables]:
    """Runs the adapters in training mode.

    Args:
      variables: the variables of the adapters.
      features: 'student/...', 'teacher/...' and 'batch/...', `[B, ...]`.
      rng: the random key of the step.

    Returns:
      (the features with those of the adapters, the collections that changed).
    """
    return graph.run(
      self.adapters,
      variables,
      features,
      train=True,
      rngs={'dropout': random.step_key(rng, 'adapters')},
    )

  def added(
    self,
    loss: Array,
    features: Features,
    batch: Batch,
    models: Mapping[str, Model],
    progress: Array,
  ) -> tuple[Array, Metrics]:
    """Adds every term, times its weight, to a loss.

    Args:
      loss: the loss so far, `[]`.
      features: the features, those of the adapters included.
      batch: the augmented batch.
      models: role -> model, with 'student' and 'teacher' among the roles.
      progress: the fraction of the phase's steps taken so far, in [0, 1).

    Returns:
      (the sum, label -> the mean of the term without its weight).
    """
    metrics = {}
    for label, term in self.by_label.items():
      metrics[label] = term.loss(features, batch, models).mean()
      loss += term.weight * _ramp(term, progress) * metrics[label]
    return loss, metrics


def build(
  terms: Mapping[str, objectives.Objective], pair: objectives.Pair
) -> Terms:
  """Builds the terms of a loss for a pair of networks.

  Args:
    terms: label -> objective.
    pair: the networks.

  Raises:
    UsageError: an objective does not fit the networks, a warm-up is not in
      [0, 1], or two terms have adapters of the same name.
  """
  built = {label: objective(pair) for label, objective in terms.items()}
  for term in built.values():
    checks.number('warmup', term.warmup, at_least=0, at_most=1)
  owners: dict[str, str] = {}
  for label, term in built.items():
    for stage in term.adapters:
      if stage.name in owners:
        raise UsageError(
          f'the terms {owners[stage.name]!r} and {label!r} have an adapter of '
          f'the same name, {stage.name!r}'
        )
      owners[stage.name] = label
  stages = tuple(s for term in built.values() for s in term.adapters)
  return Terms(built, Network(stages))


def _ramp(term: objectives.Term, progress: Array) -> Array | float:
  """Rises from 0 to 1 over the first fraction `warmup` of the phase."""
  return jnp.minimum(1.0, progress / term.warmup) if term.warmup else 1.0
