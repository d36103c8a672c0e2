"""Student search: chooses among candidates for every neighbourhood.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, Section 5, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Carry,
  FeaturePairs,
  Method,
  Model,
  Network,
  Phase,
  PhaseBuilder,
  Recipe,
)
from jaxdistill.methods.neighbourhood import forward, piece_phases
from jaxdistill.methods.neighbourhood.layouts import Layout
from jaxdistill.methods.neighbourhood.plan import Plan, train_recipe
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import narrowing
from jaxdistill.pruning import masks

MULTIPLIERS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def student_search(
  recipe: Recipe,
  *,
  multipliers: Sequence[float] = MULTIPLIERS,
  sparsities: Sequence[float] | None = None,
  drops: Sequence[float] = (0.01,),
  cut: FeaturePairs | None = None,
  by_layers: bool = False,
  look_ahead: Sequence[float] = (),
  form: str = 'unroll',
  neighbourhood_epochs: float | None = None,
  neighbourhood_optimizer: optimizers.Optimizer | None = None,
  statistics_steps: int = 100,
  fine_tune: Method = (),
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Builds students from the smallest candidates that cost little accuracy.

  All candidates for all neighbourhoods are distilled at once, as in
  `neighbourhood`. The quality of a candidate is the accuracy of the teacher
  with only this neighbourhood replaced, on the validation split. For each entry
  of `drops`, the student consists of the smallest candidate of each
  neighbourhood that loses at most this much, or of the best one if all lose
  more.

  It takes one phase for all candidates, whose steps cost about as much as one
  step of each candidate, one pass over the validation split, and for each drop
  the phases of `fine_tune`.

  The students with one multiplier throughout are kept as 'k 0.5' and so on, the
  chosen ones as 'drop 0.01', and after fine-tuning as 'drop 0.01, fine-tuned'.
  The method ends with the student of the last drop. Quality is measured on
  whole batches, so that up to one batch of images is left out.

  Args:
    recipe: how the candidates are trained. Its optimizer is used only by
      `fine_tune`.
    multipliers: the factors on the widths inside the student's blocks, one for
      each candidate; see `narrowing.narrowed`.
    sparsities: instead of multipliers, fractions of zeros in [0, 1). The
      candidates then start as the teacher and lose weights by the cubic
      schedule over half of the steps; they are kept as 'sparsity 0.5' and so
      on.
    drops: the largest loss of accuracy that a chosen candidate may cause, in
      (0, 1); one student is built for each entry.
    cut: the boundaries of neighbourhoods, see `layouts.layout`.
    by_layers: see `neighbourhood`.
    look_ahead: see `neighbourhood`.
    form: 'unroll' runs all candidates in one program, one after the other;
      'stack' pads them with zeros to the widest and vectorises over them. They
      agree up to rounding. The first is faster on a CPU; with the second,
      `--model_parallel` devices share the candidates.
    neighbourhood_epochs: see `neighbourhood`.
    neighbourhood_optimizer: see `neighbourhood`.
    statistics_steps: the number of batches from which the batch statistics of
      each kept student are re-estimated; 0 keeps the running ones.
    fine_tune: the method that trains each chosen student; a section in a
      config. With `sparsities` its optimizer should be wrapped in `sparse`,
      which keeps zeros.
    student: the role of the network that candidates are derived from.
    teacher: the role of the network that they learn from.

  Raises:
    UsageError: there are no candidates or drops, a number is out of its range,
      or there is no validation split. When the first phase begins:
      `layouts.layout` or `narrowing.narrowed` rejects the networks.
  """
  sparse = sparsities is not None
  levels = multipliers if sparsities is None else sparsities
  _check(recipe, 'sparsities' if sparse else 'multipliers', levels, drops)
  roles = tuple(f'{"sparsity" if sparse else "k"} {x:g}' for x in levels)
  piece_recipe = train_recipe(
    recipe, neighbourhood_epochs, neighbourhood_optimizer
  )
  plan = Plan(
    recipe=piece_recipe,
    cut=cut,
    look_ahead=tuple(look_ahead),
    form=form,
    teacher=teacher,
    optimizer_of={
      role: masks.gradual(optimizer=piece_recipe.optimizer, final=sparsity)
      for role, sparsity in zip(roles, levels)
    }
    if sparse
    else {},
  )

  def candidates(rng: Array, carry: Carry) -> dict[str, Model]:
    base = phases.model_in(carry, student).network
    image = {'image': recipe.example['image']}
    models = {}
    for i, (role, level) in enumerate(zip(roles, levels)):
      network = base
      if not sparse:
        network = narrowing.narrowed(base, multiplier=level)
      variables = graph.init(network, jax.random.fold_in(rng, i), image)
      models[role] = Model(network, variables)
    return models

  def compose(carry: Carry) -> Phase:
    return piece_phases.compose_phase(
      plan,
      carry,
      candidates,
      by_layers=by_layers,
      initial='teacher' if sparse else 'random',
    )

  def train(carry: Carry) -> Phase:
    return piece_phases.train_phase(plan, carry, roles)._replace(eval_models={})

  method: Method = (
    compose,
    train,
    lambda carry: _quality_phase(plan, carry, roles, drops),
  )
  for drop in drops:
    name = f'drop {drop:g}'
    method += (_select(plan, roles, drop, name, student),)
    if statistics_steps:
      method += (
        _statistics(plan, student, name, statistics_steps),
        phases.keep(name, student),
      )
    if fine_tune:
      fine_tuned = phases.keep(f'{name}, fine-tuned', student)
      method += (*fine_tune, fine_tuned)
  for role in roles if statistics_steps else ():
    method += (_statistics(plan, role, role, statistics_steps),)
  return method


def _statistics(
  plan: Plan, role: str, label: str, num_steps: int
) -> PhaseBuilder:
  """Re-estimates the statistics of a role; the label names the phase."""

  def phase(carry: Carry) -> Phase:
    statistics = piece_phases.statistics_phase(plan, carry, role, num_steps)
    return statistics._replace(name=f'statistics of {label}')

  return phase


def _check(
  recipe: Recipe, key: str, levels: Sequence[float], drops: Sequence[float]
) -> None:
  """Raises UsageError if a list is invalid or there is no validation split."""
  for name, values in ((key, levels), ('drops', drops)):
    if not values:
      raise UsageError(f'{name}: expected at least one number, got none')
    if len({*values}) < len(values):
      raise UsageError(
        f'{name}: expected different numbers, got {tuple(values)}'
      )
  for drop in drops:
    checks.number('drops', drop, above=0, below=1)
  if not recipe.validation_steps:
    raise UsageError(
      'data.validation: student_search needs a validation split to choose '
      'candidates, got none'
    )


def _quality_phase(
  plan: Plan, carry: Carry, roles: Sequence[str], drops: Sequence[float]
) -> Phase:
  """Builds the phase that measures every candidate in its partial model.

  It puts {'candidates': `[neighbourhoods, candidates]`, 'teacher': `[]`}, the
  task's scores on the validation split, into the carry as 'quality'.
  """
  layout = piece_phases.layout_of(plan, carry, roles[0])
  recipe = plan.recipe
  networks = {role: carry[role].network for role in (*roles, plan.teacher)}
  score = recipe.task.score

  def init(rng: Array, carry: Carry) -> tuple[Any, Any]:
    del rng
    shape = (len(layout.trained), len(roles))
    zeros = {'candidates': jnp.zeros(shape), 'teacher': jnp.zeros(())}
    return zeros, {role: carry[role].variables for role in networks}

  def step(state, frozen, batches, rng, static):
    del static
    models = {k: Model(networks[k], frozen[k]) for k in networks}
    outputs = forward.partial_outputs(plan, layout, models, roles, batches, rng)
    batch = batches['train']

    def mean_score(outputs: Array) -> Array:
      return recipe.task.statistics(outputs, batch)[score].mean()

    fraction = 1 / recipe.validation_steps
    scores = {
      'candidates': jax.vmap(jax.vmap(mean_score))(outputs['candidates']),
      'teacher': mean_score(outputs['teacher']),
    }
    state = jax.tree.map(lambda x, y: x + fraction * y, state, scores)
    return state, {'loss': 1.0 - scores['candidates'].mean()}

  def finish(state, frozen, carry: Carry) -> Carry:
    del frozen
    return {**carry, 'quality': state}

  def report(state, carry: Carry) -> dict[str, Any]:
    return {'student_search.json': _report(layout, state, carry, roles, drops)}

  return Phase(
    'quality',
    recipe.validation_steps,
    {'train': recipe.validation},
    init,
    step,
    finish,
    report=report,
  )


def choose(
  quality: np.ndarray, sizes: np.ndarray, teacher: float, drop: float
) -> list[int]:
  """Chooses the candidate of each neighbourhood.

  Args:
    quality: the scores of the partial models, `[neighbourhoods, candidates]`.
    sizes: the numbers of parameters of the candidates, of the same shape.
    teacher: the score of the teacher.
    drop: how much a partial model may lose.

  Returns:
    For each neighbourhood the index of the smallest candidate that loses at
    most `drop`, or of the best candidate if all lose more.
  """
  # The tolerance is for rounding; it is smaller than the share of one image.
  good = quality >= teacher - drop - 1e-6
  smallest = np.where(good, sizes, np.inf).argmin(1)
  return np.where(good.any(1), smallest, quality.argmax(1)).tolist()


def _sizes(layout: Layout, carry: Carry, roles: Sequence[str]) -> np.ndarray:
  """Counts the non-zero parameters, `[neighbourhoods, candidates]`."""

  def size(role: str, stages: Sequence[str]) -> int:
    return graph.count_nonzero(graph.select(carry[role].variables, stages))

  return np.array(
    [[size(role, piece.student) for role in roles] for piece in layout.trained]
  )


def _choices(
  layout: Layout, carry: Carry, roles: Sequence[str], drop: float
) -> dict[str, str]:
  """Returns neighbourhood -> the role of the chosen candidate."""
  quality = jax.device_get(carry['quality'])
  chosen = choose(
    np.asarray(quality['candidates']),
    _sizes(layout, carry, roles),
    float(quality['teacher']),
    drop,
  )
  return {piece.name: roles[k] for piece, k in zip(layout.trained, chosen)}


def _select(
  plan: Plan,
  roles: Sequence[str],
  drop: float,
  name: str,
  student: str,
) -> PhaseBuilder:
  """Builds the student from the chosen candidates and keeps it."""

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    del rng
    layout = piece_phases.layout_of(plan, carry, roles[0])
    choices = _choices(layout, carry, roles, drop)
    model = _assembled(layout, carry[roles[0]], carry, choices)
    return {student: model, name: model}

  return lambda carry: phases.setup_phase(f'select {drop:g}', models)


def _assembled(
  layout: Layout, base: Model, carry: Carry, choices: Mapping[str, str]
) -> Model:
  """Replaces the neighbourhoods of one candidate by the chosen ones."""
  stages = {stage.name: stage for stage in base.network.stages}
  variables = base.variables
  for piece in layout.trained:
    model = carry[choices[piece.name]]
    stages |= {
      stage.name: stage
      for stage in model.network.stages
      if stage.name in piece.student
    }
    variables = graph.merge(
      variables, graph.select(model.variables, piece.student)
    )
  return Model(Network(tuple(stages.values())), variables)


def _report(
  layout: Layout,
  quality: Any,
  carry: Carry,
  roles: Sequence[str],
  drops: Sequence[float],
) -> dict[str, Any]:
  """Reports the qualities, sizes and choices, as JSON."""
  scores = np.asarray(quality['candidates'], np.float64)
  sizes = _sizes(layout, carry, roles)
  names = [piece.name for piece in layout.trained]

  def table(values: np.ndarray) -> dict[str, dict[str, Any]]:
    return {n: dict(zip(roles, row)) for n, row in zip(names, values.tolist())}

  return {
    'teacher': float(quality['teacher']),
    'quality': table(scores),
    'parameters': table(sizes),
    'chosen': {
      f'{drop:g}': _choices(layout, carry, roles, drop) for drop in drops
    },
  }
