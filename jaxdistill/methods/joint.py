"""Methods of one phase: a loss on labels and any number of terms beside it.

    label_weight * loss(labels) + sum_i weight_i * term_i

The loss on labels alone is ordinary training; with one term of soft targets it
is knowledge distillation (Hinton et al., Distilling the Knowledge in a Neural
Network, 2015, https://arxiv.org/abs/1503.02531).
"""

from collections.abc import Mapping

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


def supervised(recipe: Recipe, *, student: str = 'student') -> Method:
  """Trains on labels alone.

  Args:
    recipe: how.
    student: the role that trains.
  """

  def phase(carry: Carry) -> Phase:
    network = carry[student].network

    def loss_fn(variables, batches, rng, progress):
      del progress
      features, updates = staged.run(
        network,
        variables[student],
        {'image': batches['train']['image']},
        train=True,
        rngs={'dropout': rng},
      )
      answer = features[staged.output(network)]
      loss = recipe.task.loss(answer, batches['train']).mean()
      return loss, (
        {student: updates},
        _score(recipe, answer, batches['train']),
      )

    return steps.gradient_phase(
      'supervised',
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks={student: network},
      trainable={student: None},
    )

  return (phase,)


def joint(
  recipe: Recipe,
  *,
  terms: Mapping[str, terms_lib.TermFactory],
  label_weight: float = 1.0,
  student: str = 'student',
  teacher: str = 'teacher',
  name: str = 'joint',
) -> Method:
  """Trains a student on labels and on what a teacher says of the same images.

  Args:
    recipe: how.
    terms: name -> what is added to the loss.
    label_weight: factor on the loss of the labels.
    student: the role that trains.
    teacher: the role it learns from, in inference mode.
    name: of the phase.
  """

  def phase(carry: Carry) -> Phase:
    networks = {
      student: carry[student].network,
      teacher: carry[teacher].network,
    }
    check_answers(networks[student], networks[teacher], recipe)
    pair = terms_lib.pair_of(
      networks[student], networks[teacher], recipe.example
    )
    made = {k: factory(pair) for k, factory in terms.items()}
    helpers = Network(tuple(s for term in made.values() for s in term.helpers))

    def loss_fn(variables, batches, rng, progress):
      batch = batches['train']
      features, updates = _forward(
        {'student': networks[student], 'teacher': networks[teacher]},
        {'student': variables[student], 'teacher': variables[teacher]},
        batch,
        rng,
      )
      features, helper_updates = staged.run(
        helpers,
        variables.get('helpers', {}),
        features,
        train=True,
        rngs={'dropout': jax.random.fold_in(rng, 1)},
      )
      models = {
        'student': Model(networks[student], variables[student]),
        'teacher': Model(networks[teacher], variables[teacher]),
      }
      answer = features[f'student/{staged.output(networks[student])}']
      total = label_weight * recipe.task.loss(answer, batch).mean()
      metrics = _score(recipe, answer, batch)
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
      trainable={student: None},
      helpers=(helpers, _helper_inputs(pair)) if helpers.stages else None,
    )

  return (phase,)


def kd(
  recipe: Recipe,
  *,
  weight: float = 0.9,
  temperature: float = 4.0,
  label_weight: float = 0.1,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Knowledge distillation by soft targets.

  Args:
    recipe: how.
    weight: factor on the soft targets.
    temperature: softens both networks' classes.
    label_weight: factor on the loss of the labels.
    student: the role that trains.
    teacher: the role it learns from.
  """
  return joint(
    recipe,
    terms={'kd': terms_lib.soft_target(weight=weight, temperature=temperature)},
    label_weight=label_weight,
    student=student,
    teacher=teacher,
    name='kd',
  )


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


def _forward(
  networks: dict[str, Network],
  variables: dict[str, Variables],
  batch: Batch,
  rng: Array,
) -> tuple[Features, Variables]:
  """Features of both on the same images; what the student's pass changed."""
  image = {'image': batch['image']}
  theirs, _ = staged.run(networks['teacher'], variables['teacher'], image)
  ours, updates = staged.run(
    networks['student'],
    variables['student'],
    image,
    train=True,
    rngs={'dropout': rng},
  )
  features = {f'student/{k}': v for k, v in ours.items()}
  for k, v in theirs.items():
    features[f'teacher/{k}'] = jax.lax.stop_gradient(v)
  return features, updates


def _helper_inputs(pair: terms_lib.Pair) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    **{f'student/{k}': v for k, v in pair.student_shapes.items()},
    **{f'teacher/{k}': v for k, v in pair.teacher_shapes.items()},
  }


def _ramp(term: terms_lib.Term, progress: Array) -> Array | float:
  """Rises from 0 to 1 in the first share `warmup` of the run."""
  return jnp.minimum(1.0, progress / term.warmup) if term.warmup else 1.0


def _score(recipe: Recipe, answer: Array, batch: Batch) -> Metrics:
  """The task's chief metric on the batch."""
  score = recipe.task.score
  return {score: recipe.task.statistics(answer, batch)[score].mean()}
