"""Masked Layer Distillation: masks, then groups of stages, then the whole.

Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021,
https://www2.eecs.berkeley.edu/Pubs/TechRpts/2021/EECS-2021-243.html

Eq. 3 -> `masked_layer`, eq. 4 -> `terms.helpers.NoiseMask`, eq. 5 ->
`mask_loss`, eq. 6 -> `losses.masked_l1_loss`.

The paper's eq. 4 to 6 swap the letters of its eq. 2 and 3; here `a` is the
teacher's feature, `z` the student's. A breakpoint is a pair (student feature,
teacher feature) of one shape; a group lies between two of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdistill import losses, optimizers, steps
from jaxdistill import terms as terms_lib
from jaxdistill.losses import numerics
from jaxdistill.methods import joint, pieces
from jaxdistill.networks import arguments, edits, layerwise, staged
from jaxdistill.terms import cuts, noise, pairs
from jaxdistill.types import (
  Array,
  Carry,
  Features,
  Method,
  Model,
  Phase,
  PyTree,
  Recipe,
  UsageError,
)


def _masked_l1(student: Array, teacher: Array, mask: Array) -> Array:
  """A weighted mean: masks of one value, whichever it is, make it plain L1."""
  weight = 1 - jax.nn.relu(mask).mean()
  distance = losses.masked_l1_loss(student, teacher, mask)
  return distance / jnp.maximum(weight, 1e-6)


DISTANCES: dict[str, Callable[[Array, Array, Array], Array]] = {
  'masked_l1': _masked_l1,
  'l1': lambda z, a, mask: losses.masked_l1_loss(z, a, jnp.zeros_like(mask)),
  'l2': lambda z, a, mask: losses.squared_distance(z, a),
}
INPUTS = ('teacher', 'student')
# What rate moves a mask by plain SGD depends on its size.
MASK_OPTIMIZER = optimizers.adamw(
  optimizers.constant(rate=0.02), weight_decay=0.0
)
# By plain SGD kernels that begin large, before a norm, stay as they are.
# Higher rates of norms push ReLUs to zero, where an L1 distance leaves them.
LOCAL_OPTIMIZER = optimizers.lars(optimizers.cosine(rate=0.2))


def masked_layer(
  recipe: Recipe,
  *,
  method: Method | None = None,
  cut: pairs.Pairs = None,
  breakpoints: str = 'groups',
  alpha: float = 3e-3,
  mask_value: float = 0.9,
  distance: str = 'masked_l1',
  group_input: str = 'teacher',
  copy_head: bool = True,
  inherit: bool = False,
  mask_epochs: float = 1.0,
  local_epochs: float = 12.0,
  label_epochs: float = 0.0,
  mask_optimizer: optimizers.Optimizer | None = None,
  local_optimizer: optimizers.Optimizer | None = None,
  label_optimizer: optimizers.Optimizer | None = None,
  statistics_steps: int = 200,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Each group of stages learns its teacher's, then the student the whole.

    masks:  min over M of CE(teacher + noise) + alpha * sum_i ||M_i||_2
    local:  min over G of sum_i mean |w_i * (a_i - G_i(a_{i-1}))|,
            w_i = (1 - relu(M_i)) / mean(1 - relu(M_i))
    then `method`, and labels

  Equation (3) of Masked Layer Distillation for the groups `G_i`, whose
  distance is that of its equation 6. The noise is what the untrained student's
  groups make of the teacher's features, with the statistics of the batch.
  While masks are learned, the teacher is evaluated under noise as 'noised' and
  without as 'clean'; what the masks have become is reported in masks.json. The
  student before `method` is kept as 'layers' and measured beside the one that
  ends.

  Our choices where the paper is silent: masks are kept within [0, 1], where
  its equations 4 and 6 agree; no gradient flows through the noise; a weighted
  mean over each breakpoint in place of the sum, so that the rate does not
  depend on the masks' mean; the student's running statistics are estimated anew
  before `method`. Unlike the paper, which has SGD for all, masks learn by Adam
  and groups by LARS, to whose updates of kernels the scale of a group's loss is
  indifferent.

  Args:
    recipe: how; its epochs are those of `method`, the others come on top. Its
      optimiser is that of the labels too.
    method: trains the whole student; None: Label Refinery. A section in a
      config.
    cut: the breakpoints, from the image to the head; None: see `breakpoints`.
    breakpoints: 'groups': the ends of all groups that give maps; 'blocks':
      also the blocks in between, as the paper has it for ResNets; 'layers':
      also the convolutions in residual blocks, which are taken apart and
      stay so in the student that ends; kernels that begin alike stay so in
      between.
    alpha: factor on the masks' norms, how much noise is wanted: the largest
      with which the noised teacher is still about as good as the clean one.
    mask_value: of all masks at first; the lower, the longer it takes until
      the noised teacher has anything to learn from.
    distance: 'masked_l1'; for ablations 'l1' or 'l2', which have no masks.
    group_input: what a group reads while it learns: the 'teacher' feature
      before it, or the 'student' one, through which no gradient flows.
    copy_head: the student begins with the teacher's stages behind the last
      breakpoint, where they are alike.
    inherit: behind the masks, also with those stages of the teacher that
      survive in the student, see `edits.inherit`.
    mask_epochs: of the masks; 0: they stay as they are at first.
    local_epochs: of the groups; 0: none.
    label_epochs: of the labels at the end, for a student that is larger than
      its teacher; 0: none.
    mask_optimizer: None: Adam at 0.02; the paper has SGD at a rate that it
      does not give. Weight decay would come on top of `alpha`.
    local_optimizer: None: LARS with a cosine from 0.2, see `optimizers.lars`;
      the paper has SGD.
    label_optimizer: None: the recipe's.
    statistics_steps: batches that estimate the groups' statistics; 0: none.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: a number or name is out of its range. When it begins: the
      features of a breakpoint differ in shape or do not exist.
  """
  for name, value in (
    ('alpha', alpha),
    ('mask_value', mask_value),
    ('mask_epochs', mask_epochs),
    ('local_epochs', local_epochs),
    ('label_epochs', label_epochs),
  ):
    arguments.real(name, value, 0.0)
  if mask_value > 1:
    raise UsageError(f'mask_value: wanted at most 1, got {mask_value}')
  if statistics_steps:
    arguments.whole('statistics_steps', statistics_steps)
  cuts.check_kind(breakpoints)
  for key, choice, valid in (
    ('distance', distance, DISTANCES),
    ('group_input', group_input, INPUTS),
  ):
    if choice not in valid:
      raise staged.unknown(key, choice, valid)
  layers = _Layers(recipe, cut, breakpoints, mask_value, student, teacher)
  made = layers.start(copy_head)
  if mask_epochs and distance == 'masked_l1':
    optimizer = mask_optimizer or MASK_OPTIMIZER
    made += layers.masks(alpha, _for(recipe, mask_epochs, optimizer))
  made += layers.inherited() if inherit else ()
  if local_epochs:
    optimizer = local_optimizer or LOCAL_OPTIMIZER
    local = _for(recipe, local_epochs, optimizer)
    made += layers.local(distance, group_input, local)
    made += layers.statistics(statistics_steps)
    made += (pieces.keep('layers', student),)
  made += method or joint.joint(
    recipe,
    terms={'refinery': terms_lib.refinery()},
    label_weight=0.0,
    student=student,
    teacher=teacher,
    name='refinery',
  )
  if label_epochs:
    last = _for(recipe, label_epochs, label_optimizer or recipe.optimizer)
    made += joint.supervised(last, student=student, name='labels')
  return made


def mask_loss(
  label_loss: Array, masks: Sequence[Array], *, alpha: float
) -> Array:
  """Loss of the labels under noise, and how much the masks hold back of it.

    mean label_loss + alpha * sum_i ||M_i||_2

  Equation (5) of Masked Layer Distillation; Algorithm 1 there leaves out the
  second term, without which masks of 1 are best.

  Args:
    label_loss: of the teacher under noise, `[B]`.
    masks: one for each breakpoint, `[...]`.
    alpha: at least 0.
  """
  norms = [numerics.norm(mask.reshape(-1), axis=0) for mask in masks]
  return label_loss.mean() + alpha * sum(norms)


class _Layers:
  """Makes the phases between the same breakpoints."""

  def __init__(
    self,
    recipe: Recipe,
    cut: pairs.Pairs,
    breakpoints: str,
    mask_value: float,
    student: str,
    teacher: str,
  ):
    self._recipe, self._cut, self._breakpoints = recipe, cut, breakpoints
    self._apart = breakpoints == 'layers'
    self._mask_value = mask_value
    self._student, self._teacher = student, teacher

  def start(self, copy_head: bool) -> Method:
    """New masks, and the teacher's head."""

    def models(rng: Array, carry: Carry) -> dict[str, Model]:
      parts = self._parts(carry)
      (_, variables), source = self._models(carry)
      if copy_head:
        variables = noise.with_head(parts, variables, source.variables)
      return {
        'masks': noise.new_masks(parts, rng),
        self._student: Model(parts.student, variables),
        **({self._teacher: source} if self._apart else {}),
      }

    def phase(carry: Carry) -> Phase:
      self._parts(carry)  # what is wrong is said before anything runs
      return steps.setup_phase('start', models)

    return (phase,)

  def masks(self, alpha: float, recipe: Recipe) -> Method:
    """Learns the masks."""
    return (lambda carry: _mask_phase(self._parts(carry), alpha, recipe),)

  def inherited(self) -> Method:
    """The student with those stages of its teacher that survive in it."""

    def models(rng: Array, carry: Carry) -> dict[str, Model]:
      del rng
      (network, variables), source = self._models(carry)
      variables = edits.inherit(network, variables, source)
      return {self._student: Model(network, variables)}

    return (lambda carry: steps.setup_phase('inherit', models),)

  def local(self, distance: str, group_input: str, recipe: Recipe) -> Method:
    """Trains all groups, each on its own."""
    how = DISTANCES[distance], group_input, recipe
    return (lambda carry: _local_phase(self._parts(carry), *how),)

  def statistics(self, num_steps: int) -> Method:
    """Estimates the groups' statistics anew, each fed by the one before."""

    def phase(carry: Carry) -> Phase:
      parts = self._parts(carry)
      kept = carry[self._student].variables.get('batch_stats', {})
      return steps.statistics_phase(
        'local_statistics',
        parts.student,
        parts.trained,
        role=self._student,
        num_steps=num_steps if {*parts.trained} & {*kept} else 0,
        stream=self._recipe.stream,
      )

    return (phase,)

  def _parts(self, carry: Carry) -> noise.Parts:
    """The breakpoints, checked."""
    student, teacher = self._models(carry)
    pair = terms_lib.pair_of(student.network, teacher.network, self._recipe)
    if self._cut is None:
      cut = cuts.cut_of(pair, self._breakpoints)
    else:
      cut = pairs.check(pair, self._cut)
    roles = {'student': self._student, 'teacher': self._teacher}
    return noise.parts_of(pair, cut, roles, self._mask_value)

  def _models(self, carry: Carry) -> list[Model]:
    """Student and teacher."""
    found = [joint.model_in(carry, k) for k in (self._student, self._teacher)]
    return [layerwise.by_layers(m) for m in found] if self._apart else found


def _mask_phase(parts: noise.Parts, alpha: float, recipe: Recipe) -> Phase:
  """The phase in which nothing but the masks moves."""

  def loss_fn(variables, batches, rng, progress):
    del progress
    batch = batches['train']
    answer = noise.noised_teacher(parts, variables, batch['image'], rng)
    masks = noise.masks_of(variables['masks'])
    loss = mask_loss(
      recipe.task.loss(answer, batch), tuple(masks.values()), alpha=alpha
    )
    metrics = joint.score(recipe, answer, batch)
    for name, mask in masks.items():
      metrics[f'above_half/{name}'] = (mask > 0.5).mean()
    return loss, ({}, metrics)

  # One network for all evaluations: they are compiled once.
  network = noise.noised_network(parts)

  def noised(state: steps.GradientState, frozen: PyTree) -> Model:
    return Model(network, {'params': {'model': {**frozen, **state.variables}}})

  def clean(state: steps.GradientState, frozen: PyTree) -> Model:
    del state
    return Model(parts.teacher, frozen[parts.teacher_role])

  def report(state: steps.GradientState, carry: Carry) -> dict[str, Any]:
    del carry
    masks = noise.masks_of(state.variables['masks'])
    return {'masks.json': {k: noise.mask_summary(m) for k, m in masks.items()}}

  made = steps.gradient_phase(
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
  views = {'noised': noised, 'clean': clean}
  return made._replace(views=views, report=report)


def _local_phase(
  parts: noise.Parts,
  distance: Callable[[Array, Array, Array], Array],
  group_input: str,
  recipe: Recipe,
) -> Phase:
  """The phase in which each group of the student learns its teacher's."""
  student, teacher = parts.student_role, parts.teacher_role
  reached = staged.stages_between(
    parts.teacher, 'image', parts.groups[-1].stop[1]
  )

  def loss_fn(variables, batches, rng, progress):
    del progress
    image = {'image': batches['train']['image']}
    clean, _ = staged.run(
      parts.teacher, variables[teacher], image, only=reached
    )
    masks = noise.masks_of(variables['masks'])
    read: Features = image
    updates, metrics, total = {}, {}, 0.0
    for group in parts.groups:
      ours, theirs = group.stop
      own, changed = staged.run(
        parts.student,
        variables[student],
        read,
        only=group.student,
        train=True,
        rngs={'dropout': rng},
      )
      updates = staged.merge(updates, changed)
      error = distance(own[ours], clean[theirs], masks[ours]).mean()
      metrics[f'distance/{ours}'] = error
      metrics[f'relative_l1/{ours}'] = _relative(own[ours], clean[theirs])
      total += error
      # Each group has its own gradient, whatever feeds it.
      fed = clean[theirs] if group_input == 'teacher' else own[ours]
      fed = jax.lax.stop_gradient(fed)
      read = cuts.replaced(parts.student, own, ours, fed)
    return total, ({student: updates}, metrics)

  return steps.gradient_phase(
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
  """mean |student - teacher| / mean |teacher|."""
  size = jnp.maximum(jnp.abs(teacher).mean(), 1e-12)
  return jnp.abs(student - teacher).mean() / size


def _into_unit_interval() -> optax.GradientTransformation:
  """Changes an update so that the parameters end within [0, 1]."""
  return optax.stateless_with_tree_map(lambda u, p: jnp.clip(p + u, 0, 1) - p)


def _for(recipe: Recipe, epochs: float, how: optimizers.Optimizer) -> Recipe:
  return recipe._replace(epochs=epochs, optimizer=how)
