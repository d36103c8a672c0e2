"""The quality of candidates, and the choice among them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import Array, Carry, Model, Phase
from jaxdistill.methods.neighbourhood import forward, piece_phases
from jaxdistill.methods.neighbourhood.layouts import Layout
from jaxdistill.methods.neighbourhood.plan import Plan
from jaxdistill.networks import graph
from jaxdistill.tasks import requirements


def quality_phase(
  plan: Plan, carry: Carry, roles: Sequence[str], drops: Sequence[float]
) -> Phase:
  """Builds the phase that measures every candidate in its partial model.

  It puts {'candidates': `[neighbourhoods, candidates]`, 'teacher': `[]`} into
  the carry as 'quality': the means of the task's score over the batches of the
  validation split, with the other sign if lower scores are better.
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

    def score_of(outputs: Any) -> Array:
      metrics = recipe.task.progress(outputs, batch)
      return score.quality(
        requirements.batch_score('neighbourhood', recipe.task, metrics)
      )

    fraction = 1 / recipe.validation_steps
    scores = {
      'candidates': jax.vmap(jax.vmap(score_of))(outputs['candidates']),
      'teacher': score_of(outputs['teacher']),
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


def choices(
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


def _sizes(layout: Layout, carry: Carry, roles: Sequence[str]) -> np.ndarray:
  """Counts the non-zero parameters, `[neighbourhoods, candidates]`."""

  def size(role: str, stages: Sequence[str]) -> int:
    return graph.count_nonzero(graph.select(carry[role].variables, stages))

  return np.array(
    [[size(role, piece.student) for role in roles] for piece in layout.trained]
  )


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
      f'{drop:g}': choices(layout, carry, roles, drop) for drop in drops
    },
  }
