"""Methods of one phase: a loss on labels and any number of terms beside it.

    label_weight * loss(labels) + sum_i weight_i * term_i

The loss on labels alone is ordinary training; with one term of soft targets it
is knowledge distillation (Hinton et al., Distilling the Knowledge in a Neural
Network, 2015, https://arxiv.org/abs/1503.02531).
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
import typing
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill import steps
from jaxdistill import terms as terms_lib
from jaxdistill.networks import staged
from jaxdistill.types import (
  Array,
  Batch,
  Carry,
  Features,
  Method,
  Metrics,
  Model,
  Network,
  Phase,
  Recipe,
  UsageError,
  Variables,
)


def supervised(
  recipe: Recipe,
  *,
  student: str = 'student',
  trainable: Callable[[Carry], Sequence[str]] | None = None,
  name: str = 'supervised',
) -> Method:
  """Trains on labels alone.

  Args:
    recipe: how.
    student: the role that trains.
    trainable: carry -> its stages that train, the others are in inference mode;
      None: all.
    name: of the phase.
  """

  def phase(carry: Carry) -> Phase:
    network = model_in(carry, student).network
    names = (
      staged.stage_names(network) if trainable is None else trainable(carry)
    )

    def loss_fn(variables, batches, rng, progress):
      del progress
      features, updates = staged.run(
        network,
        variables[student],
        {'image': batches['train']['image']},
        train=names,
        rngs={'dropout': rng},
      )
      answer = features[staged.output(network)]
      loss = recipe.task.loss(answer, batches['train']).mean()
      return loss, (
        {student: updates},
        score(recipe, answer, batches['train']),
      )

    return steps.gradient_phase(
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
  terms: Mapping[str, terms_lib.TermFactory],
  label_weight: float = 1.0,
  student: str = 'student',
  teacher: str = 'teacher',
  constant: Sequence[str] = (),
  trainable: Callable[[terms_lib.Pair], Sequence[str]] | None = None,
  frozen_statistics: bool = False,
  name: str = 'joint',
) -> Method:
  """Trains a student on labels and on what a teacher says of the same images.

  Args:
    recipe: how.
    terms: name -> what is added to the loss.
    label_weight: factor on the loss of the labels.
    student: the role that trains.
    teacher: the role it learns from, in inference mode.
    constant: other roles whose models terms read.
    trainable: pair -> the student's stages that train; None: all.
    frozen_statistics: whether the student's batch statistics stay as they are
      and are used in training too.
    name: of the phase.
  """

  def phase(carry: Carry) -> Phase:
    roles = (student, teacher, *constant)
    networks = {role: model_in(carry, role).network for role in roles}
    check_answers(networks[student], networks[teacher], recipe)
    pair = terms_lib.pair_of(networks[student], networks[teacher], recipe)
    made = {k: factory(pair) for k, factory in terms.items()}
    helpers = _helpers(made)
    names = (
      staged.stage_names(networks[student])
      if trainable is None
      else tuple(trainable(pair))
    )

    def loss_fn(variables, batches, rng, progress):
      batch = batches['train']
      models = {k: Model(networks[k], variables[k]) for k in roles}
      models |= {'student': models[student], 'teacher': models[teacher]}
      features, updates = _forward(
        models, batch, rng, () if frozen_statistics else names
      )
      features, helper_updates = staged.run(
        helpers,
        variables.get('helpers', {}),
        features,
        train=True,
        rngs={'dropout': jax.random.fold_in(rng, 1)},
      )
      answer = features[f'student/{staged.output(networks[student])}']
      total = label_weight * recipe.task.loss(answer, batch).mean()
      metrics = score(recipe, answer, batch)
      for key, term in made.items():
        value = term.loss(features, batch, models).mean()
        metrics[key] = value
        total += term.weight * _ramp(term, progress) * value
      return total, ({student: updates, 'helpers': helper_updates}, metrics)

    return steps.gradient_phase(
      name,
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks=networks,
      trainable={student: names},
      helpers=(helpers, terms_lib.inputs(pair)) if helpers.stages else None,
    )

  return (phase,)


def single(
  name: str,
  factory: Callable[..., terms_lib.TermFactory],
  *,
  label_weight: float = 1.0,
) -> Callable[..., Method]:
  """`joint` with one term, as a method whose arguments are the term's.

  Args:
    name: of the method, its phase and its term.
    factory: makes the term from keyword arguments.
    label_weight: the method's default.

  Returns:
    (recipe, *, label_weight, student, teacher, ...the term's) -> method.
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
      terms={name: factory(**arguments)},
      label_weight=label_weight,
      student=student,
      teacher=teacher,
      name=name,
    )

  # The command line checks keys and types against the signature.
  own = inspect.signature(method).parameters
  of_term = inspect.signature(factory).parameters
  merged = [p for p in own.values() if p.kind is not p.VAR_KEYWORD]
  method.__signature__ = inspect.Signature([*merged, *of_term.values()])  # type: ignore[attr-defined]
  method.__annotations__ |= typing.get_type_hints(factory)
  method.__name__ = name
  method.__doc__ = (
    f'{factory.__doc__}\n\nThe other arguments are those of `joint`.'
  )
  return method


kd = single('kd', terms_lib.soft_target, label_weight=0.1)


def model_in(carry: Carry, role: str) -> Model:
  """The model of a role.

  Raises:
    UsageError: there is none.
  """
  if role not in carry:
    raise UsageError(
      f'the method needs a model in the role {role!r}; there are '
      f'{", ".join(carry)}'
    )
  return carry[role]


def check_answers(student: Network, teacher: Network, recipe: Recipe) -> None:
  """Raises UsageError where the two answers have different shapes."""
  image = {'image': recipe.example['image']}
  ours = staged.shapes(student, image)[staged.output(student)].shape
  theirs = staged.shapes(teacher, image)[staged.output(teacher)].shape
  if ours != theirs:
    raise UsageError(
      f'the student answers {ours[1:]} and the teacher {theirs[1:]} for each '
      'image: they must have the same number of classes'
    )


def _helpers(made: Mapping[str, terms_lib.Term]) -> Network:
  """The helpers of all terms, whose names must differ."""
  owners: dict[str, str] = {}
  for key, term in made.items():
    for stage in term.helpers:
      if stage.name in owners:
        raise UsageError(
          f'the terms {owners[stage.name]!r} and {key!r} have a helper of the '
          f'same name, {stage.name!r}'
        )
      owners[stage.name] = key
  return Network(tuple(s for term in made.values() for s in term.helpers))


def _forward(
  models: Mapping[str, Model],
  batch: Batch,
  rng: Array,
  trainable: Sequence[str],
) -> tuple[Features, Variables]:
  """Features of both, and what the pass of the student changed.

  Only the stages that train use the statistics of the batch.
  """
  image = {'image': batch['image']}
  theirs, _ = staged.run(*models['teacher'], image)
  ours, updates = staged.run(
    *models['student'], image, train=trainable, rngs={'dropout': rng}
  )
  features = {f'student/{k}': v for k, v in ours.items()}
  for k, v in theirs.items():
    features[f'teacher/{k}'] = jax.lax.stop_gradient(v)
  return features | {f'batch/{k}': v for k, v in batch.items()}, updates


def _ramp(term: terms_lib.Term, progress: Array) -> Array | float:
  """Rises from 0 to 1 in the first share `warmup` of the run."""
  return jnp.minimum(1.0, progress / term.warmup) if term.warmup else 1.0


def score(recipe: Recipe, answer: Array, batch: Batch) -> Metrics:
  """The task's chief metric on the batch."""
  name = recipe.task.score
  return {name: recipe.task.statistics(answer, batch)[name].mean()}
