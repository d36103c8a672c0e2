"""The method `masked_layer`: masks, then groups of stages, then the whole.

Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021,
https://www2.eecs.berkeley.edu/Pubs/TechRpts/2021/EECS-2021-243.html

Equation 3 is `masked_layer`, equation 4 is `parts.NoiseMask`, equation 5 is
`mask_phases.mask_loss`, and equation 6 is `losses.masked_l1_loss`.

The paper's equations 4 to 6 swap the letters of its equations 2 and 3; here `a`
is always the teacher's feature and `z` the student's. A breakpoint is a pair
(student feature, teacher feature) of equal shapes, and a group lies between two
breakpoints.
"""

from typing import NamedTuple

from jaxdistill import objectives, optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
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
from jaxdistill.methods.masked_layer import parts as parts_lib
from jaxdistill.methods.masked_layer.layer_phases import Layers, local_phase
from jaxdistill.methods.masked_layer.mask_phases import Masks, mask_phase
from jaxdistill.methods.masked_layer.mask_search import search_phase
from jaxdistill.methods.masked_layer.parts import Parts
from jaxdistill.networks.surgery import edits, layerwise
from jaxdistill.objectives import cuts, pairs
from jaxdistill.phases import joint
from jaxdistill.tasks import requirements

_MASKS, _LAYERS = Masks(), Layers()


def masked_layer(
  recipe: Recipe,
  *,
  method: Method | None = None,
  cut: FeaturePairs | None = None,
  breakpoints: str = 'groups',
  repeat_teacher: bool = False,
  masks: Masks = _MASKS,
  layers: Layers = _LAYERS,
  copy_head: bool = True,
  inherit: bool = False,
  stochastic: bool = False,
  end_to_end: bool = True,
  label_epochs: float = 0.0,
  label_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Trains each group of stages to match the teacher's, then the whole student.

    masks:  min over M of CE(teacher + noise) + alpha * sum_i ||M_i||_2
    layers: min over G of sum_i mean |w_i * (a_i - G_i(a_{i-1}))|,
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
      `breakpoints`. Several student features may be paired with one teacher
      feature; the groups between them learn the identity.
    breakpoints: 'groups' uses the ends of all groups that give maps; 'blocks'
      also uses the blocks in between, as the paper does for ResNets; 'layers'
      also uses the convolutions in residual blocks, which are split into layers
      and stay split in the final student.
    repeat_teacher: whether blocks that the teacher lacks, in a deeper student,
      end with a breakpoint too and learn the identity; see `cuts.breakpoints`.
    masks: how the masks are learned, see `Masks`; a section in a config.
    layers: how the groups are trained, see `Layers`; a section in a config.
    copy_head: whether the student starts with the teacher's stages after the
      last breakpoint, as far as they are equal.
    inherit: whether the student, after the masks, also starts with the
      teacher's stages that it still has, see `edits.inherit`. Groups that are
      copied whole, because their stages have the names and modules of the
      teacher's, then do not train when the other groups do.
    stochastic: whether the student's groups draw dropout, stochastic depth and
      the like while masks and groups learn. In either case they normalise by
      the statistics of the batch.
    end_to_end: whether the whole student is trained after its groups, by
      `method` and on the labels. False ends with the groups.
    label_epochs: the epochs on the labels at the end, for a student that is
      larger than its teacher; 0 omits this phase.
    label_optimizer: the optimizer for the labels; None means the recipe's.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: a number or name is out of its range, or `end_to_end` is False
      and `method` or `label_epochs` is given. When the first phase begins: the
      features of a breakpoint do not exist or differ in shape.
  """
  requirements.label_loss('masked_layer', recipe.task)
  checks.number('label_epochs', label_epochs, at_least=0)
  checks.choice('breakpoints', breakpoints, cuts.KINDS)
  if not end_to_end and (method is not None or label_epochs):
    raise UsageError(
      'end_to_end: expected True with the keys method and label_epochs, which '
      'train the whole student, got False'
    )
  plan = _Plan(
    *(recipe, cut, breakpoints, repeat_teacher, masks, layers, inherit),
    *(stochastic, student, teacher),
  )
  groups = plan.start(copy_head) + plan.learn_masks() + plan.train_groups()
  if not end_to_end:
    return groups
  whole = method or joint.joint(
    recipe,
    terms={'refinery': objectives.refinery()},
    label_weight=0.0,
    student=student,
    teacher=teacher,
    name='refinery',
  )
  if label_epochs:
    labels = recipe._replace(
      epochs=label_epochs, optimizer=label_optimizer or recipe.optimizer
    )
    whole += joint.supervised(labels, student=student, name='labels')
  return groups + whole


class _Plan(NamedTuple):
  """Builds the phases that share the same breakpoints.

  Attributes: the arguments of `masked_layer`.
  """

  recipe: Recipe
  cut: FeaturePairs | None
  breakpoints: str
  repeat_teacher: bool
  masks: Masks
  layers: Layers
  inherit: bool
  stochastic: bool
  student: str
  teacher: str

  def start(self, copy_head: bool) -> Method:
    """Makes new masks and copies the teacher's head."""

    def models(rng: Array, carry: Carry) -> dict[str, Model]:
      parts = self._parts(carry)
      (_, variables), source = self._models(carry)
      if copy_head:
        variables = parts_lib.with_head(parts, variables, source.variables)
      return {
        'masks': noise.new_masks(parts, rng),
        self.student: Model(parts.student, variables),
        **({self.teacher: source} if self._by_layers else {}),
      }

    def phase(carry: Carry) -> Phase:
      self._parts(carry)  # Reports wrong breakpoints before anything runs.
      return phases.setup_phase('start', models)

    return (phase,)

  def learn_masks(self) -> Method:
    """Trains the masks, if the distance uses them."""
    if not self.masks.epochs or self.layers.distance != 'masked_l1':
      return ()
    build = search_phase if self.masks.alpha == 'auto' else mask_phase
    return (lambda carry: build(self._parts(carry), self.masks, self.recipe),)

  def train_groups(self) -> Method:
    """Copies groups of the teacher, and trains the others by themselves."""

    def models(rng: Array, carry: Carry) -> dict[str, Model]:
      del rng
      (network, variables), source = self._models(carry)
      variables = edits.inherit(network, variables, source)
      return {self.student: Model(network, variables)}

    def controls(rng: Array, carry: Carry) -> dict[str, Model]:
      masks = noise.control_masks(self.layers.masks, carry['masks'], rng)
      return {'masks': masks}

    control: Method = (lambda carry: phases.setup_phase('control', controls),)
    inherit: Method = (lambda carry: phases.setup_phase('inherit', models),)
    train: Method = (
      lambda carry: local_phase(self._parts(carry), self.layers, self.recipe),
      self._statistics,
      phases.keep('layers', self.student),
    )
    return (
      (control if self.layers.masks != 'learned' else ())
      + (inherit if self.inherit else ())
      + (train if self.layers.epochs else ())
    )

  def _statistics(self, carry: Carry) -> Phase:
    """Re-estimates the groups' statistics, each fed by the one before."""
    parts = self._parts(carry)
    batch_stats = carry[self.student].variables.get('batch_stats', {})
    has_statistics = bool({*parts.trained} & {*batch_stats})
    return phases.statistics_phase(
      'local_statistics',
      parts.student,
      parts.trained,
      role=self.student,
      num_steps=self.layers.statistics_steps if has_statistics else 0,
      stream=self.recipe.stream,
      stochastic=self.stochastic,
    )

  @property
  def _by_layers(self) -> bool:
    return self.breakpoints == 'layers'

  def _parts(self, carry: Carry) -> Parts:
    """Returns the networks and their groups, after checking the breakpoints."""
    student, teacher = self._models(carry)
    pair = objectives.pair_of(student.network, teacher.network, self.recipe)
    if self.cut is None:
      cut = cuts.breakpoints(pair, self.breakpoints, repeat=self.repeat_teacher)
    else:
      cut = pairs.check(pair, self.cut, name='cut')
    return parts_lib.parts_of(
      pair,
      cut,
      {'student': self.student, 'teacher': self.teacher},
      self.masks.value,
      inherit=self.inherit,
      stochastic=self.stochastic,
    )

  def _models(self, carry: Carry) -> list[Model]:
    """Returns the student and the teacher, split into layers if needed."""
    models = [phases.model_in(carry, k) for k in (self.student, self.teacher)]
    if self._by_layers:
      return [layerwise.by_layers(model) for model in models]
    return models
