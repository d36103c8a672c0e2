"""The forward pass of both phases of DistPro, with everything but weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill import objectives
from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Model,
  Network,
  Recipe,
  Variables,
)
from jaxdistill.methods.distpro import pathways
from jaxdistill.networks import graph
from jaxdistill.phases import terms as terms_lib


class Forward(NamedTuple):
  """The forward pass of a student and a teacher with pathways between them.

  Attributes:
    pair: the networks.
    paths: the pathways.
    terms: further terms of the training loss.
    recipe: how the phase trains.
    student: the role of the student.
    teacher: the role of the teacher.
    label_weight: the factor on the loss of the labels in training.
  """

  pair: objectives.Pair
  paths: pathways.Pathways
  terms: terms_lib.Terms
  recipe: Recipe
  student: str
  teacher: str
  label_weight: float = 1.0

  @property
  def networks(self) -> dict[str, Network]:
    """The networks by role."""
    return {self.student: self.pair.student, self.teacher: self.pair.teacher}

  @property
  def adapters(self) -> tuple[Network, Mapping[str, Any]]:
    """The transforms, the terms' adapters, and the shapes that they read."""
    stages = self.paths.adapters.stages + self.terms.adapters.stages
    return Network(stages), objectives.adapter_inputs(self.pair)

  def train(
    self,
    variables: Mapping[str, Variables],
    batch: Batch,
    rng: Array,
    progress: Array,
    active: Sequence[int] | None = None,
  ) -> tuple[tuple[Array, Array], tuple[dict[str, Variables], Metrics]]:
    """Runs both networks on a training batch.

    Args:
      variables: role -> variables, of both networks and of 'adapters'.
      batch: the batch.
      rng: the random key of the step.
      progress: the fraction of the phase's steps taken so far, in [0, 1).
      active: the indices of the pathways that are computed; None means all.

    Returns:
      ((loss of the labels and the terms `[]`, losses of the pathways `[L]`),
      (role -> the collections that changed, metrics)).
    """
    teacher_features, _ = graph.run(
      self.pair.teacher, variables[self.teacher], {'image': batch['image']}
    )
    student_features, updates = graph.run(
      self.pair.student,
      variables[self.student],
      self.recipe.task.inputs(batch),
      train=True,
      rngs={'dropout': random.step_key(rng, 'dropout')},
    )
    features = {f'student/{k}': v for k, v in student_features.items()}
    for k, v in teacher_features.items():
      features[f'teacher/{k}'] = jax.lax.stop_gradient(v)
    adapters = variables.get('adapters', {})
    summands, adapter_updates = pathways.losses(
      self.paths, adapters, features, active=active
    )
    features |= {f'batch/{k}': v for k, v in batch.items()}
    features, term_updates = self.terms.adapted(adapters, features, rng)
    outputs = graph.output(self.pair.student, student_features)
    label = jnp.zeros(())
    if self.recipe.task.targets:  # without targets, its weight is 0
      label = self.recipe.task.loss(outputs, batch).mean()
    models = {
      'student': Model(self.pair.student, variables[self.student]),
      'teacher': Model(self.pair.teacher, variables[self.teacher]),
    }
    loss, values = self.terms.added(
      self.label_weight * label, features, batch, models, progress
    )
    changed = {
      self.student: updates,
      'adapters': graph.merge(adapter_updates, term_updates),
    }
    metrics = self.recipe.task.progress(outputs, batch) | values
    return (loss, summands), (changed, metrics)

  def validate(
    self, variables: Mapping[str, Variables], batch: Batch, rng: Array
  ) -> Array:
    """Computes the loss of the labels on a validation batch.

    Batch norm uses the statistics of the batch and changes no running ones.

    Args:
      variables: role -> variables, among them the student's.
      batch: the batch.
      rng: a random key.

    Returns:
      The loss, `[]`.
    """
    features, _ = graph.run(
      self.pair.student,
      variables[self.student],
      self.recipe.task.inputs(batch),
      train=True,
      rngs={'dropout': random.step_key(rng, 'dropout')},
    )
    outputs = graph.output(self.pair.student, features)
    return self.recipe.task.loss(outputs, batch).mean()

  def about(self, carry: Carry) -> dict[str, Any]:
    """Describes the networks and the data, for a process file.

    Args:
      carry: holds the models.

    Returns:
      JSON.
    """

    def feature_shapes(side: str, shapes: Any) -> dict[str, list[int]]:
      names = [getattr(path, side) for path in self.paths.paths]
      return {name: list(shapes[name].shape[1:]) for name in names}

    description: dict[str, Any] = {
      'data': {
        'image': list(self.recipe.example['image'].shape[1:]),
        'examples': len(self.recipe.examples['index']),
      }
    }
    for side, role, shapes in (
      ('student', self.student, self.pair.student_shapes),
      ('teacher', self.teacher, self.pair.teacher_shapes),
    ):
      description[side] = {
        'parameters': graph.count_parameters(carry[role].variables),
        'features': feature_shapes(side, shapes),
      }
    return description
