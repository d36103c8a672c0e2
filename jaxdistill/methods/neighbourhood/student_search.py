"""Student search: chooses among candidates for every neighbourhood.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, Section 5, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Callable, Mapping, Sequence
import functools

import jax

from jaxdistill import optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Carry,
  FeaturePairs,
  Method,
  Model,
  Phase,
  PhaseBuilder,
  Recipe,
)
from jaxdistill.methods.neighbourhood import candidates as candidates_lib
from jaxdistill.methods.neighbourhood import piece_phases, quality
from jaxdistill.methods.neighbourhood.candidates import Candidate
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
  candidates: Mapping[str, Candidate] | None = None,
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
    candidates: instead of both, label -> candidate, of any kind: other widths,
      kernels, depths, non-linearities, ranks or sparsities; see
      `candidates.Candidate`. Sections in a config, named 'narrow',
      'sparsified', 'fields', 'block' or by a function of your own. Students
      with one candidate throughout are kept under its label.
    drops: the largest loss of accuracy that a chosen candidate may cause, in
      (0, 1); one student is built for each entry.
    cut: the boundaries of neighbourhoods, see `layouts.layout`.
    by_layers: see `neighbourhood`.
    look_ahead: see `neighbourhood`.
    form: 'unroll' runs all candidates in one program, one after the other.
      'stack' needs candidates that differ only in their widths; it pads them
      with zeros to the widest and vectorises over them. They agree up to
      rounding. The first is faster on a CPU; with the second,
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
  all_candidates = _candidates(multipliers, sparsities, candidates)
  _check(recipe, all_candidates, drops)
  roles = tuple(all_candidates)
  piece_recipe = train_recipe(
    recipe, neighbourhood_epochs, neighbourhood_optimizer
  )
  plan = Plan(
    recipe=piece_recipe,
    cut=cut,
    look_ahead=tuple(look_ahead),
    form=form,
    teacher=teacher,
    optimizer_of=_optimizers(piece_recipe, all_candidates),
  )

  def new_models(rng: Array, carry: Carry) -> dict[str, Model]:
    base, source = (
      phases.model_in(carry, role).network for role in (student, teacher)
    )
    image = {'image': recipe.example['image']}
    models = {}
    for i, (role, candidate) in enumerate(all_candidates.items()):
      if isinstance(candidate, Candidate):
        names = plan.layout(base, source).stages
        network = candidates_lib.changed(role, candidate, base, names)
      else:
        network = narrowing.narrowed(base, multiplier=candidate)
      variables = graph.init(network, jax.random.fold_in(rng, i), image)
      models[role] = Model(network, variables)
    return models

  def compose(carry: Carry) -> Phase:
    return piece_phases.compose_phase(
      plan,
      carry,
      new_models,
      by_layers=by_layers,
      from_teacher=[
        role
        for role, candidate in all_candidates.items()
        if _sparsity(candidate) is not None
      ],
    )

  shared = functools.cache(plan.shared)

  def plan_for(carry: Carry) -> Plan:
    networks = tuple(carry[role].network for role in roles)
    return shared(networks, carry[teacher].network)

  def train(carry: Carry) -> Phase:
    phase = piece_phases.train_phase(plan_for(carry), carry, roles)
    return phase._replace(eval_models={})

  method: Method = (
    compose,
    train,
    lambda carry: quality.quality_phase(plan_for(carry), carry, roles, drops),
  )
  for drop in drops:
    name = f'drop {drop:g}'
    method += (_select(plan_for, roles, drop, name, student),)
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


def _candidates(
  multipliers: Sequence[float],
  sparsities: Sequence[float] | None,
  candidates: Mapping[str, Candidate] | None,
) -> dict[str, Candidate | float]:
  """Returns role -> candidate, or a multiplier of the whole network.

  Raises:
    UsageError: two kinds of candidates are given, or a list is empty or holds a
      number twice.
  """
  if candidates is not None and sparsities is not None:
    raise UsageError(
      'sparsities: expected no other list beside candidates, which may hold '
      "{'name': 'sparsified', 'sparsity': ...}"
    )
  if candidates is not None:
    for label in candidates:
      if label in ('student', 'teacher') or label.startswith('drop '):
        raise UsageError(
          f'candidates: expected a label that is no role, got {label!r}'
        )
    if not candidates:
      raise UsageError('candidates: expected at least one, got none')
    return dict(candidates)
  if sparsities is not None:
    _check_different('sparsities', sparsities)
    return {f'sparsity {x:g}': Candidate(sparsity=x) for x in sparsities}
  _check_different('multipliers', multipliers)
  return {f'k {x:g}': x for x in multipliers}


def _check_different(name: str, numbers: Sequence[float]) -> None:
  """Raises UsageError if a list is empty or holds a number twice."""
  if not numbers:
    raise UsageError(f'{name}: expected at least one number, got none')
  if len({*numbers}) < len(numbers):
    raise UsageError(
      f'{name}: expected different numbers, got {tuple(numbers)}'
    )


def _sparsity(candidate: Candidate | float) -> float | None:
  """Returns the fraction of zeros of a candidate; None if it is dense."""
  return candidate.sparsity if isinstance(candidate, Candidate) else None


def _optimizers(
  recipe: Recipe, candidates: Mapping[str, Candidate | float]
) -> dict[str, optimizers.Optimizer]:
  """Returns role -> optimizer; {} if no candidate is sparse."""
  sparsities = {role: _sparsity(c) for role, c in candidates.items()}
  if all(sparsity is None for sparsity in sparsities.values()):
    return {}
  return {
    role: recipe.optimizer
    if sparsity is None
    else masks.gradual(optimizer=recipe.optimizer, final=sparsity)
    for role, sparsity in sparsities.items()
  }


def _check(
  recipe: Recipe,
  candidates: Mapping[str, Candidate | float],
  drops: Sequence[float],
) -> None:
  """Raises UsageError if a number is invalid or a split is missing."""
  if recipe.task.reads_teacher:
    raise UsageError(
      'student_search: expected a task with targets, by which candidates are '
      f'compared, got {recipe.task.name!r}'
    )
  for candidate in candidates.values():
    if not isinstance(candidate, Candidate):
      checks.number('multipliers', candidate, above=0, at_most=1)
  _check_different('drops', drops)
  for drop in drops:
    checks.number('drops', drop, above=0, below=1)
  if not recipe.validation_steps:
    raise UsageError(
      'data.validation: student_search needs a validation split to choose '
      'candidates, got none'
    )


def _select(
  plan_for: Callable[[Carry], Plan],
  roles: Sequence[str],
  drop: float,
  name: str,
  student: str,
) -> PhaseBuilder:
  """Builds the student from the chosen candidates and keeps it."""

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    del rng
    layout = piece_phases.layout_of(plan_for(carry), carry, roles[0])
    choices = quality.choices(layout, carry, roles, drop)
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
  network = base.network._replace(stages=tuple(stages.values()))
  return Model(network, variables)
