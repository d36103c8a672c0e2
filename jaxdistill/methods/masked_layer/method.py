"""The method `masked_layer`: masks, then groups of stages, then the whole.

Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021,
https://www2.eecs.berkeley.edu/Pubs/TechRpts/2021/EECS-2021-243.html

Equation 3 is `masked_layer`, equation 4 is `noise.NoiseMask`, equation 5 is
`layer_phases.mask_loss`, and equation 6 is `losses.masked_l1_loss`.

The paper's equations 4 to 6 swap the letters of its equations 2 and 3; here `a`
is always the teacher's feature and `z` the student's. A breakpoint is a pair
(student feature, teacher feature) of equal shapes, and a group lies between two
breakpoints.
"""

from jaxdistill import objectives, optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.types import (
  Array,
  Carry,
  FeaturePairs,
  Method,
  Model,
  Phase,
  Recipe,
)
from jaxdistill.methods.masked_layer import noise
from jaxdistill.methods.masked_layer.layer_phases import (
  DISTANCES,
  local_phase,
  mask_phase,
)
from jaxdistill.networks.surgery import edits, layerwise
from jaxdistill.objectives import cuts, pairs
from jaxdistill.phases import joint

INPUTS = ('teacher', 'student')
# With plain SGD, the right learning rate would depend on the size of the mask.
MASK_OPTIMIZER = optimizers.adamw(
  optimizers.constant(rate=0.02), weight_decay=0.0
)
# With plain SGD, kernels before a norm that start large would hardly change. At
# higher rates the norms push ReLUs to zero, and an L1 distance leaves them
# there.
LOCAL_OPTIMIZER = optimizers.lars(optimizers.cosine(rate=0.2))


def masked_layer(
  recipe: Recipe,
  *,
  method: Method | None = None,
  cut: FeaturePairs | None = None,
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
  """Trains each group of stages to match the teacher's, then the whole student.

    masks:  min over M of CE(teacher + noise) + alpha * sum_i ||M_i||_2
    local:  min over G of sum_i mean |w_i * (a_i - G_i(a_{i-1}))|,
            w_i = (1 - relu(M_i)) / mean(1 - relu(M_i))
    then `method`, and labels

  Equation (3) of Masked Layer Distillation for the groups `G_i`, with the
  distance of its equation 6. The noise is the output of the untrained student's
  groups on the teacher's features, normalised by the statistics of the batch. A
  mask is large where this noise harms the teacher, and the distance there
  counts less.

  It takes four phases: one for the masks, one for all groups at once, a short
  one that re-estimates batch statistics, and those of `method`. While the masks
  train, the teacher is evaluated with the noise as 'noised' and without it as
  'clean'; the final masks are reported in masks.json. The student before
  `method` is kept as 'layers' and reported beside the final one.

  Where the paper is silent, these are our choices: masks stay within [0, 1],
  where its equations 4 and 6 agree; no gradient flows through the noise; the
  distance at a breakpoint is a weighted mean instead of a sum, so that the
  learning rate does not depend on the mean of the mask; the student's running
  statistics are re-estimated before `method`. The paper trains everything by
  SGD; here the masks learn by Adam, and the groups by LARS, whose kernel
  updates do not depend on the scale of a group's loss.

  Args:
    recipe: how the student is trained by the default `method` and on the
      labels. The epochs of the other phases come on top of its epochs.
    method: trains the whole student; None means Label Refinery. A section in a
      config.
    cut: the breakpoints, from the image to the head; None means those chosen by
      `breakpoints`.
    breakpoints: 'groups' uses the ends of all groups that give maps; 'blocks'
      also uses the blocks in between, as the paper does for ResNets; 'layers'
      also uses the convolutions in residual blocks, which are split into layers
      and stay split in the final student.
    alpha: the factor on the norms of the masks. A larger value lets more noise
      pass; take the largest one with which the noised teacher is still about as
      good as the clean one.
    mask_value: the initial value of all masks, in [0, 1]. With lower values it
      takes longer until the noised teacher can be learned from.
    distance: 'masked_l1', or for ablations 'l1' or 'l2', which use no masks.
    group_input: what a group reads while it trains: the 'teacher' feature
      before it, or the 'student' one, through which no gradient flows.
    copy_head: whether the student starts with the teacher's stages after the
      last breakpoint, as far as they are equal.
    inherit: whether the student, after the masks, also starts with the
      teacher's stages that it still has, see `edits.inherit`.
    mask_epochs: the epochs of the masks; 0 keeps their initial values.
    local_epochs: the epochs of the groups; 0 omits this phase.
    label_epochs: the epochs on the labels at the end, for a student that is
      larger than its teacher; 0 omits this phase.
    mask_optimizer: the optimizer of the masks; None means Adam at rate 0.02.
      The paper has SGD, without giving a rate. Weight decay would add to
      `alpha`.
    local_optimizer: the optimizer of the groups; None means LARS with a cosine
      from 0.2, see `optimizers.lars`. The paper has SGD.
    label_optimizer: the optimizer for the labels; None means the recipe's.
    statistics_steps: the number of batches from which the groups' statistics
      are re-estimated; 0 keeps the running ones.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: a number or name is out of its range. When the first phase
      begins: the features of a breakpoint do not exist or differ in shape.
  """
  checks.weights(alpha=alpha)
  for name, value in (
    ('mask_epochs', mask_epochs),
    ('local_epochs', local_epochs),
    ('label_epochs', label_epochs),
  ):
    checks.number(name, value, at_least=0)
  checks.number('mask_value', mask_value, at_least=0, at_most=1)
  checks.integer('statistics_steps', statistics_steps, at_least=0)
  checks.choice('breakpoints', breakpoints, cuts.KINDS)
  checks.choice('distance', distance, DISTANCES)
  checks.choice('group_input', group_input, INPUTS)
  layers = _Layers(recipe, cut, breakpoints, mask_value, student, teacher)
  plan = layers.start(copy_head)
  if mask_epochs and distance == 'masked_l1':
    optimizer = mask_optimizer or MASK_OPTIMIZER
    plan += layers.masks(alpha, _with(recipe, mask_epochs, optimizer))
  plan += layers.inherited() if inherit else ()
  if local_epochs:
    optimizer = local_optimizer or LOCAL_OPTIMIZER
    local = _with(recipe, local_epochs, optimizer)
    plan += layers.local(distance, group_input, local)
    plan += layers.statistics(statistics_steps)
    plan += (phases.keep('layers', student),)
  plan += method or joint.joint(
    recipe,
    terms={'refinery': objectives.refinery()},
    label_weight=0.0,
    student=student,
    teacher=teacher,
    name='refinery',
  )
  if label_epochs:
    labels = _with(recipe, label_epochs, label_optimizer or recipe.optimizer)
    plan += joint.supervised(labels, student=student, name='labels')
  return plan


class _Layers:
  """Builds the phases that share the same breakpoints."""

  def __init__(
    self,
    recipe: Recipe,
    cut: FeaturePairs | None,
    breakpoints: str,
    mask_value: float,
    student: str,
    teacher: str,
  ):
    self._recipe, self._cut, self._breakpoints = recipe, cut, breakpoints
    self._by_layers = breakpoints == 'layers'
    self._mask_value = mask_value
    self._student, self._teacher = student, teacher

  def start(self, copy_head: bool) -> Method:
    """Makes new masks and copies the teacher's head."""

    def models(rng: Array, carry: Carry) -> dict[str, Model]:
      parts = self._parts(carry)
      (_, variables), source = self._models(carry)
      if copy_head:
        variables = noise.with_head(parts, variables, source.variables)
      return {
        'masks': noise.new_masks(parts, rng),
        self._student: Model(parts.student, variables),
        **({self._teacher: source} if self._by_layers else {}),
      }

    def phase(carry: Carry) -> Phase:
      self._parts(carry)  # Reports wrong breakpoints before anything runs.
      return phases.setup_phase('start', models)

    return (phase,)

  def masks(self, alpha: float, recipe: Recipe) -> Method:
    """Trains the masks."""
    return (lambda carry: mask_phase(self._parts(carry), alpha, recipe),)

  def inherited(self) -> Method:
    """Copies the teacher's stages that the student still has."""

    def models(rng: Array, carry: Carry) -> dict[str, Model]:
      del rng
      (network, variables), source = self._models(carry)
      variables = edits.inherit(network, variables, source)
      return {self._student: Model(network, variables)}

    return (lambda carry: phases.setup_phase('inherit', models),)

  def local(self, distance: str, group_input: str, recipe: Recipe) -> Method:
    """Trains all groups, each by itself."""
    arguments = DISTANCES[distance], group_input, recipe
    return (lambda carry: local_phase(self._parts(carry), *arguments),)

  def statistics(self, num_steps: int) -> Method:
    """Re-estimates the groups' statistics, each fed by the one before."""

    def phase(carry: Carry) -> Phase:
      parts = self._parts(carry)
      batch_stats = carry[self._student].variables.get('batch_stats', {})
      has_statistics = bool({*parts.trained} & {*batch_stats})
      return phases.statistics_phase(
        'local_statistics',
        parts.student,
        parts.trained,
        role=self._student,
        num_steps=num_steps if has_statistics else 0,
        stream=self._recipe.stream,
      )

    return (phase,)

  def _parts(self, carry: Carry) -> noise.Parts:
    """Returns the networks and their groups, after checking the breakpoints."""
    student, teacher = self._models(carry)
    pair = objectives.pair_of(student.network, teacher.network, self._recipe)
    if self._cut is None:
      cut = cuts.breakpoints(pair, self._breakpoints)
    else:
      cut = pairs.check(pair, self._cut, name='cut')
    roles = {'student': self._student, 'teacher': self._teacher}
    return noise.parts_of(pair, cut, roles, self._mask_value)

  def _models(self, carry: Carry) -> list[Model]:
    """Returns the student and the teacher, split into layers if needed."""
    models = [phases.model_in(carry, k) for k in (self._student, self._teacher)]
    if self._by_layers:
      return [layerwise.by_layers(model) for model in models]
    return models


def _with(
  recipe: Recipe, epochs: float, optimizer: optimizers.Optimizer
) -> Recipe:
  """Returns the recipe with other epochs and another optimizer."""
  return recipe._replace(epochs=epochs, optimizer=optimizer)
