"""The phases of Masked Layer Distillation that learn masks and groups."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdistill import losses, phases
from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  Carry,
  Features,
  Model,
  Phase,
  PyTree,
  Recipe,
)
from jaxdistill.losses import numerics
from jaxdistill.methods.masked_layer import noise
from jaxdistill.networks import graph
from jaxdistill.objectives import cuts
from jaxdistill.phases import joint


def _masked_l1(student: Array, teacher: Array, mask: Array) -> Array:
  """Computes a weighted mean: any constant mask gives the plain L1 distance."""
  weight = 1 - jax.nn.relu(mask).mean()
  distance = losses.masked_l1_loss(student, teacher, mask)
  return distance / jnp.maximum(weight, 1e-6)


# Name -> (student feature, teacher feature, mask) -> distance `[B]`.
DISTANCES: dict[str, Callable[[Array, Array, Array], Array]] = {
  'masked_l1': _masked_l1,
  'l1': lambda z, a, mask: losses.masked_l1_loss(z, a, jnp.zeros_like(mask)),
  'l2': lambda z, a, mask: losses.squared_distance(z, a),
}


def mask_loss(
  label_loss: Array, masks: Sequence[Array], *, alpha: float
) -> Array:
  """Computes the loss of the labels under noise plus the norms of the masks.

    mean label_loss + alpha * sum_i ||M_i||_2

  Equation (5) of Masked Layer Distillation. Algorithm 1 there omits the second
  term, but without it masks of 1, which let no noise pass, are optimal.

  Args:
    label_loss: the loss of the teacher under noise, `[B]`.
    masks: one for each breakpoint, `[...]`.
    alpha: the factor on the norms, at least 0.

  Returns:
    The loss, `[]`.
  """
  norms = [numerics.norm(mask.reshape(-1), axis=0) for mask in masks]
  return label_loss.mean() + alpha * sum(norms)


def mask_phase(parts: noise.Parts, alpha: float, recipe: Recipe) -> Phase:
  """Builds the phase that trains the masks only.

  Args:
    parts: the networks and their groups.
    alpha: see `mask_loss`.
    recipe: how the masks are trained.
  """

  def loss_fn(variables, batches, rng, progress):
    del progress
    batch = batches['train']
    logits = noise.noised_teacher(parts, variables, batch['image'], rng)
    masks = noise.masks_of(variables['masks'])
    loss = mask_loss(
      recipe.task.loss(logits, batch), tuple(masks.values()), alpha=alpha
    )
    metrics = joint.score(recipe, logits, batch)
    for name, mask in masks.items():
      metrics[f'above_half/{name}'] = (mask > 0.5).mean()
    return loss, ({}, metrics)

  # All evaluations share one network, so that they are compiled once.
  network = noise.noised_network(parts)

  def noised(state: phases.GradientState, frozen: PyTree) -> Model:
    return Model(network, {'params': {'model': {**frozen, **state.variables}}})

  def clean(state: phases.GradientState, frozen: PyTree) -> Model:
    del state
    return Model(parts.teacher, frozen[parts.teacher_role])

  def report(state: phases.GradientState, carry: Carry) -> dict[str, Any]:
    del carry
    masks = noise.masks_of(state.variables['masks'])
    return {'masks.json': {k: noise.mask_summary(m) for k, m in masks.items()}}

  phase = phases.gradient_phase(
    'masks',
    loss_fn,
    optax.chain(recipe.optimizer(recipe.num_steps), _into_unit_interval()),
    num_steps=recipe.num_steps,
    streams={'train': recipe.stream},
    networks={
      'masks': parts.masks,
      parts.student_role: parts.student,
      parts.teacher_role: parts.teacher,
    },
    trainable={'masks': None},
  )
  return phase._replace(
    eval_models={'noised': noised, 'clean': clean}, report=report
  )


def local_phase(
  parts: noise.Parts,
  distance: Callable[[Array, Array, Array], Array],
  group_input: str,
  recipe: Recipe,
) -> Phase:
  """Builds the phase in which each group learns to match the teacher's group.

  Args:
    parts: the networks and their groups.
    distance: one of `DISTANCES`.
    group_input: 'teacher' or 'student': whose features each group reads.
    recipe: how the groups are trained.
  """
  student, teacher = parts.student_role, parts.teacher_role
  teacher_stages = graph.stages_between(
    parts.teacher, 'image', parts.groups[-1].stop[1]
  )

  def loss_fn(variables, batches, rng, progress):
    del progress
    image = {'image': batches['train']['image']}
    clean, _ = graph.run(
      parts.teacher, variables[teacher], image, only=teacher_stages
    )
    masks = noise.masks_of(variables['masks'])
    inputs: Features = image
    updates, metrics, total = {}, {}, 0.0
    for group in parts.groups:
      name, teacher_name = group.stop
      features, changed = graph.run(
        parts.student,
        variables[student],
        inputs,
        only=group.student,
        train=True,
        rngs={'dropout': random.step_key(rng, 'dropout')},
      )
      updates = graph.merge(updates, changed)
      output, target = features[name], clean[teacher_name]
      error = distance(output, target, masks[name]).mean()
      metrics[f'distance/{name}'] = error
      metrics[f'relative_l1/{name}'] = _relative(output, target)
      total += error
      # No gradient reaches an earlier group, whichever features are passed on.
      passed_on = target if group_input == 'teacher' else output
      passed_on = jax.lax.stop_gradient(passed_on)
      inputs = cuts.replace_output(parts.student, features, name, passed_on)
    return total, ({student: updates}, metrics)

  return phases.gradient_phase(
    'local',
    loss_fn,
    recipe.optimizer(recipe.num_steps),
    num_steps=recipe.num_steps,
    streams={'train': recipe.stream},
    networks={
      student: parts.student,
      teacher: parts.teacher,
      'masks': parts.masks,
    },
    trainable={student: parts.trained},
  )


def _relative(student: Array, teacher: Array) -> Array:
  """Computes mean |student - teacher| / mean |teacher|."""
  size = jnp.maximum(jnp.abs(teacher).mean(), 1e-12)
  return jnp.abs(student - teacher).mean() / size


def _into_unit_interval() -> optax.GradientTransformation:
  """Changes updates so that the parameters stay within [0, 1]."""
  return optax.stateless_with_tree_map(lambda u, p: jnp.clip(p + u, 0, 1) - p)
