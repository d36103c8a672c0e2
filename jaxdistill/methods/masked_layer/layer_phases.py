"""The phase of Masked Layer Distillation that trains the groups of layers."""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from jaxdistill import losses, optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Features, Phase, Recipe
from jaxdistill.methods.masked_layer import noise
from jaxdistill.methods.masked_layer.parts import Parts
from jaxdistill.networks import graph
from jaxdistill.objectives import cuts

# With plain SGD, kernels before a norm that start large would hardly change. At
# higher rates the norms push ReLUs to zero, and an L1 distance leaves them
# there.
OPTIMIZER = optimizers.lars(optimizers.cosine(rate=0.2))


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
# What a group reads while it trains.
INPUTS = ('teacher', 'student', 'chain')
# The masks of the distance, for controls.
MASKS = ('learned', 'shuffled', 'inverted')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
  """How the groups of Masked Layer Distillation are trained.

  Attributes:
    distance: 'masked_l1', or for ablations 'l1' or 'l2', which use no masks.
    masks: 'learned', or as a control 'shuffled', the same values in random
      places of the same breakpoint, or 'inverted', 1 - M in place of M.
    inputs: what a group reads while it trains: the 'teacher' feature before it,
      as in equation 3; the 'student' one, through which no gradient flows; or
      the student's 'chain' of groups, as in Algorithm 1, through which the
      gradients of later groups reach earlier ones.
    epochs: the epochs of the groups; 0 omits this phase.
    optimizer: the optimizer of the groups; None means LARS with a cosine from
      0.2, see `optimizers.lars`. The paper has SGD.
    statistics_steps: the number of batches from which the groups' statistics
      are re-estimated; 0 keeps the running ones.

  Raises:
    UsageError: a number or name is out of its range.
  """

  distance: str = 'masked_l1'
  masks: str = 'learned'
  inputs: str = 'teacher'
  epochs: float = 12.0
  optimizer: optimizers.Optimizer | None = None
  statistics_steps: int = 200

  def __post_init__(self) -> None:
    checks.choice('layers.distance', self.distance, DISTANCES)
    checks.choice('layers.masks', self.masks, MASKS)
    checks.choice('layers.inputs', self.inputs, INPUTS)
    if self.masks != 'learned' and self.distance != 'masked_l1':
      raise UsageError(
        "layers.masks: expected 'learned' with a distance that uses no masks, "
        f'{self.distance!r}, got {self.masks!r}'
      )
    checks.number('layers.epochs', self.epochs, at_least=0)
    checks.integer('layers.statistics_steps', self.statistics_steps, at_least=0)

  def recipe(self, recipe: Recipe) -> Recipe:
    """Returns a recipe with the epochs and the optimizer of the groups."""
    optimizer = self.optimizer or OPTIMIZER
    return recipe._replace(epochs=self.epochs, optimizer=optimizer)


def local_phase(parts: Parts, layers: Layers, recipe: Recipe) -> Phase:
  """Builds the phase in which each group learns to match the teacher's group.

  It has no steps if all groups are copies of the teacher's.

  Args:
    parts: the networks and their groups.
    layers: how the groups are trained.
    recipe: the recipe of the method.
  """
  student, teacher = parts.student_role, parts.teacher_role
  recipe = layers.recipe(recipe)
  distance = DISTANCES[layers.distance]
  teacher_stages = graph.stages_between(
    parts.teacher, 'image', parts.groups[-1].stop[1]
  )

  def loss_fn(variables, batches, rng, progress):
    del progress
    inputs: Features = {'image': batches['train']['image']}
    clean, _ = graph.run(
      parts.teacher, variables[teacher], inputs, only=teacher_stages
    )
    masks = noise.masks_of(variables['masks'])
    updates, metrics, total = {}, {}, 0.0
    for group in parts.groups:
      name, teacher_name = group.stop
      features, changed = parts.run_student(
        variables[student], inputs, group, train=parts.trained, rng=rng
      )
      updates = graph.merge(updates, changed)
      output, target = features[name], clean[teacher_name]
      error = distance(output, target, masks[name]).mean()
      metrics[f'distance/{name}'] = error
      metrics[f'relative_l1/{name}'] = _relative(output, target)
      total += error
      passed_on = target if layers.inputs == 'teacher' else output
      if layers.inputs != 'chain':
        passed_on = jax.lax.stop_gradient(passed_on)
      inputs = cuts.replace_output(parts.student, features, name, passed_on)
    return total, ({student: updates}, metrics)

  return phases.gradient_phase(
    'local',
    loss_fn,
    recipe.optimizer(recipe.num_steps),
    num_steps=recipe.num_steps if parts.trained else 0,
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
