"""The search for the largest alpha whose noise the teacher can bear."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import optimizers
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Model,
  Phase,
  PyTree,
  Recipe,
  Static,
  Variables,
)
from jaxdistill.methods.masked_layer import mask_phases, noise
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.parts import Parts
from jaxdistill.networks import graph
from jaxdistill.tasks import requirements

# The interval that the search halves on a logarithmic scale, and how often: the
# result is within a factor of (1e-1 / 1e-5) ** (1 / 2**4) = 1.78 of the best.
ALPHAS = 1e-5, 1e-1
TRIALS = 4


class Trial(NamedTuple):
  """One alpha: masks that learn, and then the scores that are measured.

  Attributes:
    masks: the variables of the masks.
    optimizer: the state of their optimizer.
    steps: how many steps they have learned, int32.
    scores: the sums of the scores of the noised and the clean teacher, `[2]`.
    measured: how many batches are in these sums, int32.
  """

  masks: Variables
  optimizer: optax.OptState
  steps: Array
  scores: Array
  measured: Array


class SearchState(NamedTuple):
  """The state of the search.

  Attributes:
    trial: the alpha that is tried now.
    finished: the number of finished trials, int32.
    bounds: the largest alpha that cost little, and the smallest that cost too
      much, `[2]`.
    best: the masks of the largest alpha that cost little, or as long as there
      is none, those of the last trial.
    history: for each trial the alpha, the scores of the noised and the clean
      teacher, and whether the noise cost little (1 or 0), `[TRIALS, 4]`.
  """

  trial: Trial
  finished: Array
  bounds: Array
  best: Variables
  history: Array

  @property
  def alpha(self) -> Array:
    """The alpha of the trial, the geometric mean of the bounds."""
    return jnp.sqrt(self.bounds[0]) * jnp.sqrt(self.bounds[1])


def search_phase(parts: Parts, masks: Masks, recipe: Recipe) -> Phase:
  """Builds the phase that finds alpha by bisection, with the masks for it.

  Each trial begins with the masks of the largest alpha so far that cost little,
  because larger alphas only lower them further. It learns until the optimizer's
  plateau rule ends it, or for `masks.epochs`; then both teachers are scored on
  one pass over the validation split. If every alpha costs too much, the masks
  of the smallest one are kept. masks.json has the masks, and mask_search.json
  the trials.

  All trials are one phase with one program, and their whole state is that of
  the phase, so that it is resumed like any other.

  Args:
    parts: the networks and their groups.
    masks: how the masks are learned.
    recipe: the recipe of the method.
  """
  recipe = masks.recipe(recipe)
  steps = _Steps(parts, masks, recipe)
  stream = recipe.validation if recipe.validation_steps else recipe.stream

  def finish(state: SearchState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    return {**carry, 'masks': Model(parts.masks, state.best)}

  def report(state: SearchState, carry: Carry) -> dict[str, Any]:
    trials = {'mask_search.json': _report(state, recipe.task.score.name)}
    return {**mask_phases.report(carry), **trials}

  return Phase(
    'masks',
    TRIALS * (recipe.num_steps + steps.num_measured),
    {'train': recipe.stream, 'measure': stream},
    steps.init,
    steps.step,
    finish,
    eval_models=mask_phases.eval_models(parts, masks, lambda state: state.best),
    stop=lambda state: int(state.finished) >= TRIALS,
    stop_every=mask_phases.WINDOW,
    report=report,
  )


class _Steps:
  """The functions of the search."""

  def __init__(self, parts: Parts, masks: Masks, recipe: Recipe):
    self._parts, self._masks, self._recipe = parts, masks, recipe
    self._compute = mask_phases.objective(parts, masks, recipe)
    self._optimizer = optax.with_extra_args_support(
      optax.chain(
        recipe.optimizer(recipe.num_steps), mask_phases.into_unit_interval()
      )
    )
    self.num_measured = recipe.validation_steps or recipe.steps_per_epoch

  def init(self, rng: Array, carry: Carry) -> tuple[SearchState, PyTree]:
    """Begins with the masks in the carry."""
    del rng
    masks = carry['masks'].variables
    roles = self._parts.student_role, self._parts.teacher_role
    state = SearchState(
      self._new_trial(masks),
      jnp.zeros((), jnp.int32),
      jnp.array(ALPHAS),
      masks,
      jnp.zeros((TRIALS, 4)),
    )
    frozen = {role: carry[role].variables for role in roles}
    return state, {**frozen, 'initial': masks}

  def step(
    self,
    state: SearchState,
    frozen: dict[str, Variables],
    batches: dict[str, Batch],
    rng: Array,
    static: Static,
  ) -> tuple[SearchState, Metrics]:
    """Learns masks, or measures them once they have settled."""
    del static
    trial = state.trial
    settled = trial.steps >= self._recipe.num_steps
    for ended in optimizers.ends(trial.optimizer):
      settled |= ended
    trial, metrics = jax.lax.cond(
      settled,
      lambda: self._measure(state, frozen, batches['measure'], rng),
      lambda: self._learn(state, frozen, batches['train'], rng),
    )
    state = state._replace(trial=trial)
    is_complete = (trial.measured >= self.num_measured) & (
      state.finished < TRIALS
    )
    return jax.lax.cond(
      is_complete,
      lambda: self._concluded(state, frozen['initial']),
      lambda: state,
    ), {**metrics, 'alpha': state.alpha}

  def _new_trial(self, masks: Variables) -> Trial:
    zero = jnp.zeros((), jnp.int32)
    optimizer = self._optimizer.init(masks['params'])
    return Trial(masks, optimizer, zero, jnp.zeros(2), zero)

  def _learn(self, state, frozen, batch, rng) -> tuple[Trial, Metrics]:
    """Takes one step of the masks."""
    trial = state.trial

    def loss_of(params):
      variables = {**frozen, 'masks': {'params': params}}
      return self._compute(variables, batch, rng, state.alpha)

    params = trial.masks['params']
    (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
      params
    )
    change, optimizer = self._optimizer.update(
      gradient, trial.optimizer, params, value=loss
    )
    masks = {'params': optax.apply_updates(params, change)}
    trial = trial._replace(
      masks=masks, optimizer=optimizer, steps=trial.steps + 1
    )
    return trial, {**metrics, 'loss': loss}

  def _measure(self, state, frozen, batch, rng) -> tuple[Trial, Metrics]:
    """Adds the scores of both teachers on a batch."""
    trial, parts = state.trial, self._parts
    variables = {**frozen, 'masks': trial.masks}
    loss, metrics = self._compute(variables, batch, rng, state.alpha)
    noised = noise.noised_teacher(
      parts, variables, batch['image'], rng, source=self._masks.noise
    )
    clean = graph.apply(
      parts.teacher, frozen[parts.teacher_role], batch['image']
    )
    task = self._recipe.task
    scores = [
      requirements.batch_score(
        'masked_layer', task, task.progress(outputs, batch)
      )
      for outputs in (noised, clean)
    ]
    trial = trial._replace(
      scores=trial.scores + jnp.stack(scores), measured=trial.measured + 1
    )
    return trial, {**metrics, 'loss': loss}

  def _concluded(self, state: SearchState, initial: Variables) -> SearchState:
    """Decides about an alpha and begins the next trial."""
    trial, alpha = state.trial, state.alpha
    noised, clean = trial.scores / trial.measured
    score = self._recipe.task.score
    cost = score.shown(score.quality(clean - noised))
    costs_little = cost <= self._masks.max_drop
    any_before = state.history[:, 3].any()
    bounds = jnp.where(
      costs_little,
      jnp.stack([alpha, state.bounds[1]]),
      jnp.stack([state.bounds[0], alpha]),
    )

    def choose(condition, first, second):
      return jax.tree.map(
        lambda a, b: jnp.where(condition, a, b), first, second
      )

    best = choose(costs_little | ~any_before, trial.masks, state.best)
    start = choose(costs_little | any_before, best, initial)
    entry = jnp.stack([alpha, noised, clean, costs_little])
    return SearchState(
      self._new_trial(start),
      state.finished + 1,
      bounds,
      best,
      state.history.at[state.finished].set(entry),
    )


def _report(state: SearchState, score: str) -> dict[str, Any]:
  """Describes the trials as JSON, and which alpha was kept."""
  trials = [
    {
      'alpha': float(f'{alpha:.4g}'),
      f'noised {score}': round(float(noised), 5),
      f'clean {score}': round(float(clean), 5),
      'costs little': bool(costs_little),
    }
    for alpha, noised, clean, costs_little in state.history.tolist()
  ]
  kept = [t['alpha'] for t in trials if t['costs little']] or [
    trials[-1]['alpha']
  ]
  return {'alpha': max(kept), 'trials': trials}
