"""What the table shows of a finished run."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdistill import evaluation, experiment, recipes
from jaxdistill.networks import files, staged
from jaxdistill.training import loop, sharding
from jaxdistill.types import DIFFERENCES, Model, UsageError


def measure(
  plan: experiment.Plan,
  row: experiment.Row,
  fitted: loop.Fitted,
  taught: Callable[[], Any] | None,
  mesh: Mesh,
) -> dict[str, Any]:
  """What the table shows of one run, and of models that it left beside."""
  models, agreement = last_and_best(fitted, row.role), None
  if row.role == 'student' and taught is not None:
    answers = predictions(plan, models['last'], mesh)
    agreement = plan.task.agreement(answers, taught())
  beside = {
    name: _tested(plan, last_and_best(fitted, name), mesh)
    for name, model in fitted.carry.items()
    if isinstance(model, Model)
    and name not in ('student', 'teacher')
    and answer_shape(plan, model) == answer_shape(plan, models['last'])
  }
  wanted = fitted.reports.get(DIFFERENCES, {})
  return {
    **_tested(plan, models, mesh),
    'agreement': agreement,
    'beside': beside,
    'differences': {k: _difference(beside, v) for k, v in wanted.items()},
  }


def last_and_best(fitted: loop.Fitted, role: str) -> dict[str, Model]:
  """The models of a role: 'last', and 'best' where one was chosen."""
  best = {'best': fitted.best[role]} if role in fitted.best else {}
  return {'last': fitted.carry[role], **best}


def answer_shape(plan: experiment.Plan, model: Model) -> tuple[int, ...] | None:
  """Shape of a model's answer to an image; None of what reads other things."""
  image = {'image': recipes.example(plan.dataset, plan.preprocess, 1)['image']}
  try:
    variables = staged.variable_shapes(model.network, image)
    wanted = jax.tree.map(lambda x: x.shape, variables['params'])
    found = jax.tree.map(lambda x: x.shape, model.variables['params'])
    if wanted != found:
      return None
    return staged.shapes(model.network, image)[
      staged.output(model.network)
    ].shape
  except (UsageError, ValueError, TypeError):
    return None


def predictions(plan: experiment.Plan, model: Model, mesh: Mesh) -> Any:
  """Of a model on the test split."""
  return evaluation.predict(
    _placed(model, mesh),
    plan.dataset.splits['test'],
    plan.task,
    plan.preprocess,
    sharding=sharding.rows(mesh),
  )


def asked_once(
  plan: experiment.Plan, teacher: Model | None, mesh: Mesh
) -> Callable[[], Any] | None:
  """The teacher's predictions on the test split, made when first wanted."""
  if teacher is None:
    return None
  return functools.cache(lambda: predictions(plan, teacher, mesh))


def evaluate_on(
  plan: experiment.Plan, model: Model, split: str, mesh: Mesh
) -> dict[str, float]:
  """The metrics of a model on a split."""
  return evaluation.evaluate(
    _placed(model, mesh),
    plan.dataset.splits[split],
    plan.task,
    plan.preprocess,
    sharding=sharding.rows(mesh),
  )


def _difference(
  beside: Mapping[str, Any], factors: Mapping[str, float]
) -> dict[str, Any]:
  """A sum of test metrics, of the last epoch and of the best ones."""
  tests = [beside[role]['test'] for role in factors]

  def total(when: str, metric: str) -> float:
    return sum(f * t[when][metric] for f, t in zip(factors.values(), tests))

  shared = set.intersection(*map(set, tests))
  return {
    'test': {
      when: {m: total(when, m) for m in tests[0][when]} for when in shared
    }
  }


def _tested(
  plan: experiment.Plan, models: Mapping[str, Model], mesh: Mesh
) -> dict[str, Any]:
  """Size and test metrics of a model, last and best on validation."""
  return {
    'parameters': files.count_parameters(models['last'].variables),
    'nonzero': files.count_nonzero(models['last'].variables),
    'test': {k: evaluate_on(plan, m, 'test', mesh) for k, m in models.items()},
  }


def _placed(model: Model, mesh: Mesh) -> Model:
  return model._replace(variables=sharding.place(model.variables, mesh))
