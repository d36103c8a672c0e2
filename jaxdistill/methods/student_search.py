"""Student search: candidates for every neighbourhood, chosen one by one.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, Section 5, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import optimizers, steps
from jaxdistill.methods import joint, pieces
from jaxdistill.networks import files, layerwise, staged
from jaxdistill.networks.neighbourhoods import Layout
from jaxdistill.pruning import weights
from jaxdistill.terms import pairs
from jaxdistill.types import (
  Array,
  Carry,
  Method,
  Model,
  Network,
  Phase,
  Recipe,
  UsageError,
)

MULTIPLIERS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def student_search(
  recipe: Recipe,
  *,
  multipliers: Sequence[float] = MULTIPLIERS,
  sparsities: Sequence[float] | None = None,
  drops: Sequence[float] = (0.01,),
  cut: pairs.Pairs = None,
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
  """The smallest candidate of each neighbourhood that costs little accuracy.

  All candidates of all neighbourhoods are distilled at once, as `neighbourhood`
  does it. The quality of one is the accuracy of the teacher with that
  neighbourhood alone replaced, on the validation split. For each drop, the
  smallest candidate of each neighbourhood that loses at most so much makes the
  student, and the best one where all lose more.

  Quality is measured on whole batches: fewer images than a batch are left out.

  The students of one multiplier throughout are kept as 'k 0.5' and so on; the
  chosen ones as 'drop 0.01', and fine-tuned as 'drop 0.01, fine-tuned'. The
  method ends with that of the last drop.

  Args:
    recipe: how; but its optimiser is used by `fine_tune` alone.
    multipliers: of the student's inner widths, see
      `networks.layerwise.narrowed`.
    sparsities: in their place, shares of zeros in [0, 1) of candidates that
      begin as the teacher and lose weights by the cubic schedule, over half of
      the steps; they are kept as 'sparsity 0.5' and so on.
    drops: of accuracy, in (0, 1), each for one student.
    cut: see `networks.neighbourhoods.layout`.
    by_layers: see `neighbourhood`.
    look_ahead: see `neighbourhood`.
    form: 'unroll': all candidates in one program, one after the other; 'stack':
      padded to the widest with zeros and vectorised. They agree up to rounding;
      the first is faster on a CPU, the second is what `--model_parallel`
      devices share, each some candidates of every neighbourhood.
    neighbourhood_epochs: see `neighbourhood`.
    neighbourhood_optimizer: see `neighbourhood`.
    statistics_steps: batches from which the batch statistics of each student
      that is kept are estimated anew; 0: they stay as they are.
    fine_tune: what each chosen student is trained by; a section in a config.
      With `sparsities` its optimiser should be `sparse`, which alone leaves
      zeros as they are.
    student: the role of the network that candidates are made of.
    teacher: the role it learns from.

  Raises:
    UsageError: there are no candidates or drops, or a number is none; there is
      no validation split; what `layout` and `narrowed` refuse.
  """
  sparse = sparsities is not None
  levels = multipliers if sparsities is None else sparsities
  _check(recipe, 'sparsities' if sparse else 'multipliers', levels, drops)
  roles = tuple(f'{"sparsity" if sparse else "k"} {x:g}' for x in levels)
  own = pieces.train_recipe(
    recipe, neighbourhood_epochs, neighbourhood_optimizer
  )
  plan = pieces.Plan(
    recipe=own,
    cut=cut,
    look_ahead=tuple(look_ahead),
    form=form,
    teacher=teacher,
    optimizer_of={
      role: weights.gradual(optimizer=own.optimizer, final=share)
      for role, share in zip(roles, levels)
    }
    if sparse
    else {},
  )

  def candidates(rng: Array, carry: Carry) -> dict[str, Model]:
    base = joint.model_in(carry, student).network
    image = {'image': recipe.example['image']}
    found = {}
    for i, (role, level) in enumerate(zip(roles, levels)):
      network = base
      if not sparse:
        network = layerwise.narrowed(base, multiplier=level)
      own = staged.init(network, jax.random.fold_in(rng, i), image)
      found[role] = Model(network, own)
    return found

  def train(carry: Carry) -> Phase:
    return pieces.train_phase(plan, carry, roles)._replace(views={})

  method: Method = (
    lambda carry: pieces.compose_phase(
      plan,
      carry,
      candidates,
      by_layers=by_layers,
      initial='teacher' if sparse else 'random',
    ),
    train,
    lambda carry: _quality_phase(plan, carry, roles, drops),
  )
  for drop in drops:
    name = f'drop {drop:g}'
    method += (_select(plan, roles, drop, name, student),)
    if statistics_steps:
      method += (
        _statistics(plan, student, name, statistics_steps),
        pieces.keep(name, student),
      )
    if fine_tune:
      tuned = pieces.keep(f'{name}, fine-tuned', student)
      method += (*fine_tune, tuned)
  for role in roles if statistics_steps else ():
    method += (_statistics(plan, role, role, statistics_steps),)
  return method


def _statistics(
  plan: pieces.Plan, role: str, about: str, num_steps: int
) -> Callable[[Carry], Phase]:
  def phase(carry: Carry) -> Phase:
    made = pieces.statistics_phase(plan, carry, role, num_steps)
    return made._replace(name=f'statistics of {about}')

  return phase


def _check(
  recipe: Recipe, key: str, levels: Sequence[float], drops: Sequence[float]
) -> None:
  for name, values in ((key, levels), ('drops', drops)):
    if not values:
      raise UsageError(f'{name}: wanted at least one, got none')
    if len({*values}) < len(values):
      raise UsageError(f'{name}: {tuple(values)} has one twice')
  for drop in drops:
    if not 0 < drop < 1:
      raise UsageError(f'drops: {drop} is no share in (0, 1)')
  if not recipe.validation_steps:
    raise UsageError(
      'student_search chooses on the validation split, and there is none; give '
      'data.validation'
    )


def _layout(plan: pieces.Plan, carry: Carry, role: str) -> Layout:
  return plan.layout(carry[role].network, carry[plan.teacher].network)


def _quality_phase(
  plan: pieces.Plan, carry: Carry, roles: Sequence[str], drops: Sequence[float]
) -> Phase:
  """Measures every candidate in its partial model.

  Puts {'candidates': `[neighbourhoods, candidates]`, 'teacher': `[]`}, the
  task's score on the validation split, into the carry as 'quality'.
  """
  made, recipe = _layout(plan, carry, roles[0]), plan.recipe
  networks = {role: carry[role].network for role in (*roles, plan.teacher)}
  score = recipe.task.score

  def init(rng: Array, carry: Carry) -> tuple[Any, Any]:
    del rng
    shape = (len(made.trained), len(roles))
    zeros = {'candidates': jnp.zeros(shape), 'teacher': jnp.zeros(())}
    return zeros, {role: carry[role].variables for role in networks}

  def step(state, frozen, batches, rng, static):
    del static
    models = {k: Model(networks[k], frozen[k]) for k in networks}
    found = pieces.partial_answers(plan, made, models, roles, batches, rng)
    batch = batches['train']

    def correct(answers: Array) -> Array:
      return recipe.task.statistics(answers, batch)[score].mean()

    share = 1 / recipe.validation_steps
    measured = {
      'candidates': jax.vmap(jax.vmap(correct))(found['candidates']),
      'teacher': correct(found['teacher']),
    }
    state = jax.tree.map(lambda x, y: x + share * y, state, measured)
    return state, {'loss': 1.0 - measured['candidates'].mean()}

  def finish(state, frozen, carry: Carry) -> Carry:
    del frozen
    return {**carry, 'quality': state}

  def report(state, carry: Carry) -> dict[str, Any]:
    return {'student_search.json': _report(made, state, carry, roles, drops)}

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
  """The candidate of each neighbourhood.

  Args:
    quality: score of the partial models `[neighbourhoods, candidates]`.
    sizes: parameters of the candidates, equally shaped.
    teacher: its score.
    drop: how much a partial model may lose.

  Returns:
    For each neighbourhood the smallest that loses no more, or else the best.
  """
  fine = quality >= teacher - drop - 1e-6  # less than one image
  smallest = np.where(fine, sizes, np.inf).argmin(1)
  return np.where(fine.any(1), smallest, quality.argmax(1)).tolist()


def _sizes(made: Layout, carry: Carry, roles: Sequence[str]) -> np.ndarray:
  """Parameters of each candidate that are not zero.

  `[neighbourhoods, candidates]`.
  """

  def size(role: str, stages: Sequence[str]) -> int:
    return files.count_nonzero(staged.select(carry[role].variables, stages))

  return np.array([[size(r, n.student) for r in roles] for n in made.trained])


def _choices(
  made: Layout, carry: Carry, roles: Sequence[str], drop: float
) -> dict[str, str]:
  """Neighbourhood -> the role of the candidate."""
  quality = jax.device_get(carry['quality'])
  chosen = choose(
    np.asarray(quality['candidates']),
    _sizes(made, carry, roles),
    float(quality['teacher']),
    drop,
  )
  return {n.name: roles[k] for n, k in zip(made.trained, chosen)}


def _select(
  plan: pieces.Plan,
  roles: Sequence[str],
  drop: float,
  name: str,
  student: str,
) -> Any:
  """Makes the student of the chosen candidates, and keeps it."""

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    del rng
    made = _layout(plan, carry, roles[0])
    choices = _choices(made, carry, roles, drop)
    model = _assembled(made, carry[roles[0]], carry, choices)
    return {student: model, name: model}

  return lambda carry: steps.setup_phase(f'select {drop:g}', models)


def _assembled(
  made: Layout, base: Model, carry: Carry, choices: Mapping[str, str]
) -> Model:
  """One candidate's neighbourhoods replaced by the chosen ones."""
  stages = {stage.name: stage for stage in base.network.stages}
  variables = base.variables
  for own in made.trained:
    model = carry[choices[own.name]]
    stages |= {s.name: s for s in model.network.stages if s.name in own.student}
    variables = staged.merge(
      variables, staged.select(model.variables, own.student)
    )
  return Model(Network(tuple(stages.values())), variables)


def _report(
  made: Layout,
  quality: Any,
  carry: Carry,
  roles: Sequence[str],
  drops: Sequence[float],
) -> dict[str, Any]:
  """The qualities, sizes and choices, as JSON."""
  found = np.asarray(quality['candidates'], np.float64)
  sizes = _sizes(made, carry, roles)
  names = [own.name for own in made.trained]

  def table(values: np.ndarray) -> dict[str, dict[str, Any]]:
    return {n: dict(zip(roles, row)) for n, row in zip(names, values.tolist())}

  return {
    'teacher': float(quality['teacher']),
    'quality': table(found),
    'parameters': table(sizes),
    'chosen': {
      f'{drop:g}': _choices(made, carry, roles, drop) for drop in drops
    },
  }
