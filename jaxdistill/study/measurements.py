"""Measurements of finished runs: metrics, sizes, agreement with the teacher."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import DIFFERENCES, TEACHER, Model, Task
from jaxdistill.networks import graph
from jaxdistill.study import report
from jaxdistill.study.models import initial_model
from jaxdistill.study.plans import Plan, Row
from jaxdistill.tasks import evaluation
from jaxdistill.training import loop
from jaxdistill.training.distributed import sharding


class Answers(NamedTuple):
  """The predictions of a model for the test images.

  Attributes:
    predictions: what the task predicts `[N, ...]`.
    probabilities: the probabilities of the classes `[N, num_classes]`, or None.
  """

  predictions: Any
  probabilities: np.ndarray | None


class Measured(NamedTuple):
  """What was measured of a run.

  Attributes:
    result: what the table shows, as JSON.
    answers: the predictions of the last model for the test images; None if
      neither the agreement with a teacher nor the report needs them.
  """

  result: dict[str, Any]
  answers: Answers | None


def with_teacher(plan: Plan, mesh: Mesh) -> Plan:
  """Adds the teacher's predictions to the splits of evaluation.

  Returns the plan as it is if its task does not read them.
  """
  if not plan.task.reads_teacher or plan.teacher is None:
    return plan
  splits = dict(plan.dataset.splits)
  for name in ('validation', 'test'):
    if name not in splits:
      continue
    column = predictions(plan, plan.teacher, mesh, name)
    splits[name] = {**splits[name], TEACHER: column}
  return plan._replace(dataset=plan.dataset._replace(splits=splits))


def is_probed(plan: Plan) -> bool:
  """Returns whether the task probes predictions, and there are labels."""
  splits = plan.dataset.splits
  return plan.task.probes is not None and 'label' in splits['train']


def map_target(task: Task) -> str | None:
  """Returns the target of a task that predicts maps, or None for others."""
  return next((t for t in task.targets if t in ('mask', 'depth')), None)


def is_shown(task: Task) -> bool:
  """Returns whether the report shows predictions even of a single model."""
  return task.probabilities is not None or map_target(task) is not None


def has_score(plan: Plan, row: Row) -> bool:
  """Returns whether the models of a row have the score of the task.

  If the score compares vectors with the teacher's, a student that has learned
  the labels alone has none.
  """
  method = row.resolved['method']['name']
  return not plan.task.reads_teacher or method not in report.SUPERVISED


def measure(
  plan: Plan,
  row: Row,
  seed: int,
  fitted: loop.Fitted,
  teacher_answers: Callable[[], Answers] | None,
  mesh: Mesh,
) -> Measured:
  """Measures what the table shows of one run.

  Besides the student or the teacher, a method may leave other models for the
  task, such as assistants; their measurements are under 'beside'. If
  predictions are probed, the student before its training and the teacher are
  among them, unless the row has learned the labels alone.

  Args:
    plan: what was run.
    row: the row of the run.
    seed: the seed of the run.
    fitted: what the run ended with.
    teacher_answers: see `lazy_answers`; for the row of the teacher, the answers
      of the model that is measured.
    mesh: the devices.

  Returns:
    The result with the keys 'parameters', 'nonzero', 'test', 'agreement',
    'beside' and 'differences', and for a trial of a sweep also 'validation';
    and the answers.

  Raises:
    NonFiniteLossError: a measured loss is NaN or infinite.
  """
  models = last_and_best(fitted, row.role)
  is_scored = has_score(plan, row)
  measured = {
    **_size_and_test(plan, models, mesh, is_scored=is_scored),
    **({} if row.trial is None else _validation(plan, models, mesh)),
  }
  _check_losses(measured)
  is_compared = row.role == 'student' and teacher_answers is not None
  last, agreement = None, None
  if row.role == 'teacher' and teacher_answers is not None:
    last = teacher_answers()
  elif is_compared or is_shown(plan.task):
    last = answers(plan, models['last'], mesh)
  if is_compared and teacher_answers is not None and last is not None:
    expected = teacher_answers().predictions
    # Maps of another stride than the teacher's cannot be compared.
    is_comparable = np.shape(expected) == np.shape(last.predictions)
    # The score of a task that reads the teacher is the agreement already.
    if is_comparable and not plan.task.reads_teacher:
      agreement = plan.task.agreement(last.predictions, expected)
  beside = {
    name: _size_and_test(plan, last_and_best(fitted, name), mesh)
    for name, model in fitted.carry.items()
    if isinstance(model, Model)
    and name not in ('student', 'teacher')
    and output_shape(plan, model) == output_shape(plan, models['last'])
  }
  if is_probed(plan) and plan.teacher is not None and is_scored:
    initial = initial_model(plan, row.role, seed)
    for name, model in (
      ('untrained student', initial),
      ('teacher', plan.teacher),
    ):
      beside[name] = _size_and_test(plan, {'last': model}, mesh)
  differences = fitted.reports.get(DIFFERENCES, {})
  result = {
    **measured,
    'agreement': agreement,
    'beside': beside,
    'differences': {
      key: _weighted_sum(beside, factors)
      for key, factors in differences.items()
    },
  }
  return Measured(result, last)


def _check_losses(measured: Mapping[str, Any]) -> None:
  """Checks that every measured loss is finite.

  The last step of a training can make the weights so large that outputs
  overflow, although all losses before it were finite.

  Args:
    measured: 'test' and perhaps 'validation' -> when -> metrics.

  Raises:
    NonFiniteLossError: a loss is NaN or infinite.
  """
  for split in ('test', 'validation'):
    for when, metrics in measured.get(split, {}).items():
      if not math.isfinite(metrics.get('loss', 0.0)):
        raise loop.NonFiniteLossError(
          f'the training ended, but the {split} loss of the {when} model is '
          'not finite'
        )


def last_and_best(fitted: loop.Fitted, role: str) -> dict[str, Model]:
  """Returns the models of a role: 'last', and 'best' if one was chosen."""
  best = {'best': fitted.best[role]} if role in fitted.best else {}
  return {'last': fitted.carry[role], **best}


def output_shape(plan: Plan, model: Model) -> Any:
  """Returns the shapes of a model's outputs for one image, `[1, ...]`.

  Returns None for a model that does not read images, such as one that reads the
  features of another model.
  """
  image = {'image': plan.image}
  try:
    variables = graph.variable_shapes(model.network, image)
    expected_shapes = jax.tree.map(lambda x: x.shape, variables['params'])
    model_shapes = jax.tree.map(lambda x: x.shape, model.variables['params'])
    if expected_shapes != model_shapes:
      return None
    outputs = graph.output(model.network, graph.shapes(model.network, image))
    return jax.tree.map(lambda x: x.shape, outputs)
  except (UsageError, ValueError, TypeError):
    return None


def predictions(
  plan: Plan, model: Model, mesh: Mesh, split: str = 'test'
) -> Any:
  """Returns a model's predictions for a split."""
  return evaluation.predict(
    _placed(model, mesh),
    plan.dataset.splits[split],
    plan.task,
    plan.preprocess,
    sharding=sharding.rows(mesh),
  )


def answers(plan: Plan, model: Model, mesh: Mesh) -> Answers:
  """Returns the predictions of a model for the test images."""
  if plan.task.probabilities is None:
    return Answers(predictions(plan, model, mesh), None)
  return Answers(
    *evaluation.answer(
      _placed(model, mesh),
      plan.dataset.splits['test'],
      plan.task,
      plan.preprocess,
      sharding=sharding.rows(mesh),
    )
  )


def lazy_answers(
  plan: Plan, teacher: Model | None, mesh: Mesh
) -> Callable[[], Answers] | None:
  """Returns a function that computes the teacher's answers only once.

  Returns None if there is no teacher, or if its classes are not the data's, so
  that its predictions cannot be compared with the student's.
  """
  if teacher is None or plan.foreign_teacher:
    return None
  return functools.cache(lambda: answers(plan, teacher, mesh))


def evaluate_on(
  plan: Plan, model: Model, split: str, mesh: Mesh
) -> dict[str, float]:
  """Returns the metrics of a model on a split."""
  return evaluation.evaluate(
    _placed(model, mesh),
    plan.dataset.splits[split],
    plan.task,
    plan.preprocess,
    sharding=sharding.rows(mesh),
  )


def _weighted_sum(
  beside: Mapping[str, Any], factors: Mapping[str, float]
) -> dict[str, Any]:
  """Returns the sum of the models' test metrics, each times its factor."""
  tests = [beside[role]['test'] for role in factors]

  def total(when: str, metric: str) -> float:
    return sum(f * t[when][metric] for f, t in zip(factors.values(), tests))

  shared = set.intersection(*map(set, tests))
  return {
    'test': {
      when: {metric: total(when, metric) for metric in tests[0][when]}
      for when in shared
    }
  }


def _size_and_test(
  plan: Plan, models: Mapping[str, Model], mesh: Mesh, is_scored: bool = True
) -> dict[str, Any]:
  """Returns the size and the test metrics of a model's last and best state."""
  return {
    'parameters': graph.count_parameters(models['last'].variables),
    'nonzero': graph.count_nonzero(models['last'].variables),
    'test': {k: _tested(plan, m, mesh, is_scored) for k, m in models.items()},
  }


def _tested(
  plan: Plan, model: Model, mesh: Mesh, is_scored: bool = True
) -> dict[str, float]:
  """Returns the metrics of a model on the test split, and its probes."""
  metrics = evaluate_on(plan, model, 'test', mesh) if is_scored else {}
  if plan.task.probes is None or not is_probed(plan):
    return metrics
  train, test = (
    (
      predictions(plan, model, mesh, name),
      np.asarray(plan.dataset.splits[name]['label']),
    )
    for name in ('train', 'test')
  )
  return {**metrics, **plan.task.probes(*train, *test)}


def _validation(
  plan: Plan, models: Mapping[str, Model], mesh: Mesh
) -> dict[str, Any]:
  """Returns the metrics of the last state by which a sweep chooses."""
  metrics = evaluate_on(plan, models['last'], 'validation', mesh)
  return {'validation': {'last': metrics}}


def _placed(model: Model, mesh: Mesh) -> Model:
  """Returns the model with its variables on the devices."""
  return model._replace(variables=sharding.place(model.variables, mesh))
