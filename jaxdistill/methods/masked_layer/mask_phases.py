"""The phases of Masked Layer Distillation that learn the masks."""

from collections.abc import Sequence
import dataclasses
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdistill import optimizers, phases
from jaxdistill.core import checks, random
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  EvalModel,
  Metrics,
  Model,
  Phase,
  PyTree,
  Recipe,
  Variables,
)
from jaxdistill.losses import numerics
from jaxdistill.methods.masked_layer import noise
from jaxdistill.methods.masked_layer.parts import Parts

# The number of steps over which the loss of the masks is averaged. After each
# such window the phase may end.
WINDOW = 20
# With plain SGD, the right learning rate would depend on the size of the mask.
# An entry moves by at most the rate in each step.
OPTIMIZER = optimizers.adamw(
  optimizers.plateau(
    rate=0.02, final=0.002, patience=2, threshold=0.01, window=WINDOW
  ),
  weight_decay=0.0,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masks:
  """How the masks of Masked Layer Distillation are learned.

  The learning ends when the loss no longer falls, if `optimizer` has the
  schedule 'plateau', as the default does.

  Attributes:
    alpha: the factor on the norms of the masks. A larger value lets more noise
      pass. 'auto' searches for the largest value whose noise costs at most
      `max_drop`; see `mask_search.search_phase`.
    max_drop: what the noise may cost with alpha 'auto', in percentage points of
      the task's score, or in its unit if it is not a fraction. The score is the
      mean over the batches of the validation split, or of the training images
      if there is none.
    value: the initial value of all masks, in [0, 1]. With lower values it takes
      longer until the noised teacher can be learned from.
    noise: what the student's groups read while they make noise: the 'noised'
      features of the teacher; its 'clean' features, as in Algorithm 1; or the
      output of the 'student' group before, as in equation 4.
    one_at_a_time: whether each mask learns while noise is added at its own
      breakpoint only, as in Algorithm 1. A step then costs one pass for each
      breakpoint.
    redrawn: whether the kernels of the student are shuffled in each step, while
      the masks learn. The masks are then those of a student with random weights
      in general, and not of this one.
    epochs: the largest number of epochs, for each alpha that is tried. 0 keeps
      the initial values.
    optimizer: the optimizer of the masks; None means Adam at rate 0.02, then
      0.002, each until the mean loss of 20 steps has not fallen by 1 % for two
      such windows. The paper has SGD, without giving a rate. Weight decay would
      add to `alpha`.

  Raises:
    UsageError: a number or name is out of its range.
  """

  alpha: float | Literal['auto'] = 'auto'
  max_drop: float = 2.0
  value: float = 0.9
  noise: str = 'noised'
  one_at_a_time: bool = False
  redrawn: bool = False
  epochs: float = 20.0
  optimizer: optimizers.Optimizer | None = None

  def __post_init__(self) -> None:
    if isinstance(self.alpha, str):
      checks.choice('masks.alpha', self.alpha, ('auto',))
    else:
      checks.weights(**{'masks.alpha': self.alpha})
    checks.number('masks.max_drop', self.max_drop, at_least=0, at_most=100)
    checks.number('masks.value', self.value, at_least=0, at_most=1)
    checks.number('masks.epochs', self.epochs, at_least=0)
    checks.choice('masks.noise', self.noise, noise.SOURCES)

  def recipe(self, recipe: Recipe) -> Recipe:
    """Returns a recipe with the epochs and the optimizer of the masks."""
    optimizer = self.optimizer or OPTIMIZER
    return recipe._replace(epochs=self.epochs, optimizer=optimizer)


def mask_loss(
  label_loss: Array, masks: Sequence[Array], *, alpha: float | Array
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


class Objective(Protocol):
  """The loss of the masks on a batch."""

  def __call__(
    self,
    variables: dict[str, Variables],
    batch: Batch,
    rng: Array,
    alpha: float | Array,
    /,
  ) -> tuple[Array, Metrics]:
    """Computes the loss.

    Args:
      variables: role -> variables, of both networks and of 'masks'.
      batch: the batch.
      rng: the random key of the step.
      alpha: see `mask_loss`.

    Returns:
      (loss `[]`, the progress of the noised teacher and the fraction of the
      entries of each mask that are above a half).
    """


def objective(parts: Parts, masks: Masks, recipe: Recipe) -> Objective:
  """Builds the loss of the masks.

  Args:
    parts: the networks and their groups.
    masks: how the masks are learned.
    recipe: gives the task.
  """
  names = tuple(stage.name for stage in parts.masks.stages)
  # Each entry holds the breakpoints at which one pass adds noise.
  passes = [(name,) for name in names] if masks.one_at_a_time else [names]

  def compute(variables, batch, rng, alpha):
    values = noise.masks_of(variables['masks'])
    if masks.redrawn:
      role = parts.student_role
      student = noise.redrawn(variables[role], random.step_key(rng, 'noise'))
      variables = {**variables, role: student}
    label_losses, progress = [], []
    for at in passes:
      outputs = noise.noised_teacher(
        parts, variables, batch['image'], rng, source=masks.noise, at=at
      )
      label_losses.append(recipe.task.loss(outputs, batch))
      progress.append(recipe.task.progress(outputs, batch))
    loss = mask_loss(sum(label_losses), tuple(values.values()), alpha=alpha)
    metrics = jax.tree.map(lambda *x: sum(x) / len(x), *progress)
    for name, mask in values.items():
      metrics[f'above_half/{name}'] = (mask > 0.5).mean()
    return loss, metrics

  return compute


def into_unit_interval() -> optax.GradientTransformation:
  """Changes updates so that the parameters stay within [0, 1]."""
  return optax.stateless_with_tree_map(lambda u, p: jnp.clip(p + u, 0, 1) - p)


def mask_phase(parts: Parts, masks: Masks, recipe: Recipe) -> Phase:
  """Builds the phase that trains the masks with a given alpha.

  Args:
    parts: the networks and their groups.
    masks: how they are learned.
    recipe: the recipe of the method.
  """
  recipe = masks.recipe(recipe)
  compute = objective(parts, masks, recipe)

  def loss_fn(variables, batches, rng, progress):
    del progress
    loss, metrics = compute(variables, batches['train'], rng, masks.alpha)
    return loss, ({}, metrics)

  phase = phases.gradient_phase(
    'masks',
    loss_fn,
    optax.chain(recipe.optimizer(recipe.num_steps), into_unit_interval()),
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
    eval_models=eval_models(
      parts, masks, lambda state: state.variables['masks']
    ),
    report=lambda state, carry: report(carry),
    stop_every=WINDOW,
  )


def eval_models(
  parts: Parts, masks: Masks, masks_of_state: Any
) -> dict[str, EvalModel]:
  """Returns the teacher with noise, 'noised', and without it, 'clean'.

  Args:
    parts: the networks and their groups.
    masks: says what makes the noise.
    masks_of_state: state -> the variables of the masks.
  """
  # All evaluations share one network, so that they are compiled once.
  network = noise.noised_network(parts, masks.noise)

  def noised(state: PyTree, frozen: PyTree) -> Model:
    tree = {**frozen, 'masks': masks_of_state(state)}
    return Model(network, {'params': {'model': tree}})

  def clean(state: PyTree, frozen: PyTree) -> Model:
    del state
    return Model(parts.teacher, frozen[parts.teacher_role])

  return {'noised': noised, 'clean': clean}


def report(carry: Carry) -> dict[str, Any]:
  """Returns the summaries of the masks as the file masks.json.

  Args:
    carry: what the phase hands on.
  """
  masks = noise.masks_of(carry['masks'].variables)
  return {'masks.json': {k: noise.mask_summary(m) for k, m in masks.items()}}
