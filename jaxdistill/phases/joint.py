"""Methods of one phase: a loss on the labels plus any number of loss terms.

    label_weight * loss(labels) + sum_i weight_i * term_i

Without terms this is ordinary supervised training. With one term of soft
targets it is knowledge distillation (Hinton et al., Distilling the Knowledge in
a Neural Network, 2015, https://arxiv.org/abs/1503.02531).
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
import typing
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxdistill import objectives, phases
from jaxdistill.core import checks, marks, random
from jaxdistill.core.types import (
  TEACHER_OUTPUTS,
  Array,
  Batch,
  Carry,
  Features,
  Method,
  Metrics,
  Model,
  Output,
  Phase,
  Recipe,
  Variables,
)
from jaxdistill.networks import graph
from jaxdistill.phases import terms as terms_lib
from jaxdistill.tasks import requirements


def supervised(
  recipe: Recipe,
  *,
  student: str = 'student',
  trainable: Callable[[Carry], Sequence[str]] | None = None,
  frozen_statistics: bool = False,
  name: str = 'supervised',
) -> Method:
  """Trains a network on the labels, without a teacher.

    min over theta of phi(y, yhat)

  Equation (1) of SSKD, with the loss of the task as phi. This is the baseline
  that every distillation method is compared with. It takes one phase of the
  recipe's length.

  Args:
    recipe: how the network is trained.
    student: the role of the network that trains.
    trainable: carry -> the stages that train, while all others stay in
      inference mode; None trains all of them.
    frozen_statistics: whether the network uses its running batch statistics,
      and keeps them unchanged, during training too.
    name: the name of the phase.
  """

  requirements.label_loss(name, recipe.task)

  @marks.any_classes
  def phase(carry: Carry) -> Phase:
    network = phases.model_in(carry, student).network
    names = (
      graph.stage_names(network) if trainable is None else trainable(carry)
    )

    def loss_fn(
      variables: dict[str, Variables],
      batches: dict[str, Batch],
      rng: Array,
      progress: Array,
    ) -> tuple[Array, tuple[dict[str, Variables], Metrics]]:
      del progress
      batch = batches['train']
      features, updates = graph.run(
        network,
        variables[student],
        recipe.task.inputs(batch),
        train=() if frozen_statistics else names,
        rngs={'dropout': random.step_key(rng, 'dropout')},
      )
      outputs = graph.output(network, features)
      loss = recipe.task.loss(outputs, batch).mean()
      metrics = recipe.task.progress(outputs, batch)
      return loss, ({student: updates}, metrics)

    return phases.gradient_phase(
      name,
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks={student: network},
      trainable={student: names},
    )

  return (phase,)


def joint(
  recipe: Recipe,
  *,
  terms: Mapping[str, objectives.Objective],
  label_weight: float = 1.0,
  student: str = 'student',
  teacher: str = 'teacher',
  constant: Sequence[str] = (),
  trainable: Callable[[objectives.Pair], Sequence[str]] | None = None,
  frozen_statistics: bool = False,
  name: str = 'joint',
) -> Method:
  """Trains a student on the labels and on any number of distillation terms.

    min over theta of phi(y, yhat) + sum_i lambda_i psi_i

  Equation (2) of SSKD, with one psi and the loss of the task as phi. With
  `label_weight=0` it is Equation (1) of Masked Layer Distillation, where the
  student learns from the teacher's outputs only.

  Student and teacher see the same augmented images; the teacher is in inference
  mode. It takes one phase of the recipe's length, and each step costs one
  forward pass of the teacher on top of ordinary training.

  Args:
    recipe: how the student is trained.
    terms: label -> objective. The value of each term is logged under its label.
    label_weight: the factor on the loss of the labels.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
    constant: further roles whose models the terms read.
    trainable: pair of networks -> the student's stages that train; None trains
      all of them.
    frozen_statistics: whether the student uses its running batch statistics,
      and keeps them unchanged, during training too.
    name: the name of the phase.

  Raises:
    UsageError: the labels have a weight, but the task has no loss on them; when
      the phase begins: a role is missing from the carry, two
      terms have adapters of the same name, or the outputs of the two networks
      differ in shape while a term takes the teacher's for scores of classes.
  """
  checks.weights(label_weight=label_weight)
  if label_weight:
    requirements.label_loss(name, recipe.task)

  def phase(carry: Carry) -> Phase:
    roles = (student, teacher, *constant)
    networks = {role: phases.model_in(carry, role).network for role in roles}
    if not marks.allows_any_classes(phase):
      phases.check_outputs(networks[student], networks[teacher], recipe)
    pair = objectives.pair_of(networks[student], networks[teacher], recipe)
    built = terms_lib.build(terms, pair)
    names = (
      graph.stage_names(networks[student])
      if trainable is None
      else tuple(trainable(pair))
    )

    def loss_fn(
      variables: dict[str, Variables],
      batches: dict[str, Batch],
      rng: Array,
      progress: Array,
    ) -> tuple[Array, tuple[dict[str, Variables], Metrics]]:
      batch = batches['train']
      models = {k: Model(networks[k], variables[k]) for k in roles}
      models |= {'student': models[student], 'teacher': models[teacher]}
      outputs, features, updates = _forward(
        models,
        batch,
        recipe.task.inputs(batch),
        rng,
        () if frozen_statistics else names,
      )
      features, adapter_updates = built.adapted(
        variables.get('adapters', {}), features, rng
      )
      total = jnp.zeros(())
      if recipe.task.targets:
        total = label_weight * recipe.task.loss(outputs, batch).mean()
      metrics = recipe.task.progress(outputs, batch)
      total, values = built.added(total, features, batch, models, progress)
      changed = {student: updates, 'adapters': adapter_updates}
      return total, (changed, metrics | values)

    return phases.gradient_phase(
      name,
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks=networks,
      trainable={student: names},
      adapters=(built.adapters, objectives.adapter_inputs(pair))
      if built.adapters.stages
      else None,
    )

  return (marks.any_classes_if_all(phase, terms.values()),)


class SingleTermMethod(Protocol):
  """A method that trains with one distillation term and the labels."""

  def __call__(
    self,
    recipe: Recipe,
    *,
    label_weight: float = ...,
    student: str = ...,
    teacher: str = ...,
    **arguments: Any,
  ) -> Method:
    """Returns the phases of the method.

    Args:
      recipe: how the student is trained.
      label_weight: the factor on the loss of the labels.
      student: the role of the model that trains.
      teacher: the role of the model that it learns from.
      **arguments: the arguments of the objective.
    """


def single(
  name: str,
  objective: Callable[..., objectives.Objective],
  *,
  label_weight: float = 1.0,
) -> SingleTermMethod:
  """Turns an objective into a method that trains with it and the labels.

  Args:
    name: the name of the method, of its phase and of its term.
    objective: makes the term from keyword arguments.
    label_weight: the method's default factor on the loss of the labels.

  Returns:
    A function with the signature and the documentation of both: the arguments
    of every `SingleTermMethod`, and those of the objective.
  """

  def method(
    recipe: Recipe,
    *,
    label_weight: float = label_weight,
    student: str = 'student',
    teacher: str = 'teacher',
    **arguments: Any,
  ) -> Method:
    return joint(
      recipe,
      terms={name: objective(**arguments)},
      label_weight=label_weight,
      student=student,
      teacher=teacher,
      name=name,
    )

  # Configs are checked against the signature, and help texts are made from it.
  method_parameters = inspect.signature(method).parameters
  objective_parameters = inspect.signature(objective).parameters
  signature = inspect.Signature(
    [
      *(p for p in method_parameters.values() if p.kind is not p.VAR_KEYWORD),
      *objective_parameters.values(),
    ]
  )
  method.__signature__ = signature  # type: ignore[attr-defined]
  hints = typing.get_type_hints(objective)
  method.__annotations__ |= {k: v for k, v in hints.items() if k != 'return'}
  method.__name__ = name
  method.__doc__ = _documented(inspect.getdoc(objective) or '')
  return method


def _documented(documentation: str) -> str:
  """Adds the arguments of a method to the documentation of its objective."""
  summary, _, arguments = documentation.partition('Args:\n')
  return f"""{summary.rstrip()}

The term is added to the loss of the labels.

Args:
  recipe: how the student is trained.
  label_weight: the factor on the loss of the labels.
  student: the role of the model that trains.
  teacher: the role of the model that it learns from.
{arguments.rstrip()}
"""


kd = single('kd', objectives.kd, label_weight=0.1)


def _forward(
  models: Mapping[str, Model],
  batch: Batch,
  inputs: Features,
  rng: Array,
  trainable: Sequence[str],
) -> tuple[Output, Features, Variables]:
  """Runs both networks on a batch.

  The student reads `inputs`, see `Task.inputs`, and the teacher the images.
  Only the student's stages that train use the statistics of the batch. No
  gradient flows through the teacher's features.

  Returns:
    (the student's output; features named 'student/...', 'teacher/...' and
    'batch/...'; the collections that the student's pass changed).
  """
  teacher_features = _teacher_features(models['teacher'], batch)
  student_features, updates = graph.run(
    *models['student'],
    inputs,
    train=trainable,
    rngs={'dropout': random.step_key(rng, 'dropout')},
  )
  features = {f'student/{k}': v for k, v in student_features.items()}
  for k, v in teacher_features.items():
    features[f'teacher/{k}'] = jax.lax.stop_gradient(v)
  features |= {f'batch/{k}': v for k, v in batch.items()}
  output = graph.output(models['student'].network, student_features)
  return output, features, updates


def _teacher_features(teacher: Model, batch: Batch) -> Features:
  """Returns the teacher's features; only its main output if that is stored.

  If the teacher has no variables, the batch holds its outputs.
  """
  if TEACHER_OUTPUTS in batch and not teacher.variables:
    return {graph.main_output(teacher.network): batch[TEACHER_OUTPUTS]}
  return graph.run(*teacher, {'image': batch['image']})[0]
