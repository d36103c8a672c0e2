"""Objectives that read the true boxes of objects, for detectors."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, FeaturePairs, Stage
from jaxdistill.losses import numerics
from jaxdistill.networks import description, layers
from jaxdistill.networks.surgery import two_stage
from jaxdistill.objectives import adapters, maps, pairs
from jaxdistill.objectives.types import Objective, Pair, Term
from jaxdistill.tasks import requirements


@description.register
class GlobalContext(nn.Module):
  """Adds one vector to all places of a map: the GcBlock of FGD.

  The vector is the output of a two-layer perceptron, whose input is the mean
  over the places, weighted by a softmax. A new block adds zero.

  References:
    Cao et al., GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
    Beyond, 2019, https://arxiv.org/abs/1904.11492
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    he = nn.initializers.he_normal()
    places = x.reshape(len(x), -1, channels)
    scores = nn.Dense(1, kernel_init=he, name='places')(places)
    context = (jax.nn.softmax(scores, axis=1) * places).sum(1)
    uniform = layers.torch_uniform(channels)
    hidden = nn.Dense(
      max(1, channels // 2),
      kernel_init=uniform,
      bias_init=uniform,
      name='hidden',
    )(context)
    hidden = nn.relu(nn.LayerNorm(epsilon=1e-5, name='norm')(hidden))
    zeros = nn.initializers.zeros
    added = nn.Dense(channels, kernel_init=zeros, name='added')(hidden)
    return x + added[:, None, None]


@description.register
class FocalGlobal(nn.Module):
  """Computes the maps that FGD compares.

  The output is the student's map with the shape of the teacher's: if they
  differ, its channels are mapped linearly and it is resized. The outputs
  '.student' and '.teacher' are the maps after a `GlobalContext` each.

  Attributes:
    shape: (H, W, C) of the teacher's map.
  """

  shape: tuple[int, int, int]

  @nn.compact
  def __call__(
    self, student: Array, teacher: Array, train: bool
  ) -> dict[str, Array]:
    student, teacher = (
      maps.as_map(x).astype(jnp.float32) for x in (student, teacher)
    )
    if student.shape[1:] != self.shape:
      student = adapters.Positions(self.shape, name='aligned')(student, train)
    return {
      '': student,
      '.student': GlobalContext(name='student')(student),
      '.teacher': GlobalContext(name='teacher')(teacher),
    }


def fgd(
  *,
  weight: float = 1.0,
  foreground: float = 0.001,
  background: float = 0.0005,
  attention: float = 0.0005,
  relation: float = 5e-6,
  temperature: float = 0.5,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """FGD: focal and global distillation for detectors.

  The focal part is `losses.focal_distillation_loss`. For the global part, both
  maps pass through a `GlobalContext` each, both of which are trained; it is the
  squared difference of the results, summed over all entries. The loss is summed
  over the feature pairs. The defaults are those of the authors for RetinaNet,
  who clip the norm of gradients to 35. For Faster R-CNN, their weights are
  5e-5, 2.5e-5, 5e-5 and 5e-7. Crowds count as background.

  Args:
    weight: the factor of the loss.
    foreground: the weight of places inside boxes.
    background: the weight of the other places.
    attention: the weight of the difference in attention.
    relation: the weight of the global part.
    temperature: the temperature of the attention.
    feature_pairs: pairs of maps; None means the levels that both pyramids have,
      'p3' to 'p7' of RetinaNets and 'p2' to 'p5' of Faster R-CNNs, whose 'p6'
      is a part of 'p5'.
  """
  checks.weights(
    weight=weight,
    foreground=foreground,
    background=background,
    attention=attention,
    relation=relation,
  )
  numerics.check_temperature('temperature', temperature)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    requirements.boxes('fgd', pair.recipe.task)
    chosen = pairs.map_pairs(pair, feature_pairs or _levels(pair))
    pairs.check_positions(pair, chosen)
    stages = tuple(
      Stage(
        f'fgd{i}',
        FocalGlobal(pairs.map_shape(pair.teacher_shapes, teacher)),
        (f'student/{student}', f'teacher/{teacher}'),
      )
      for i, (student, teacher) in enumerate(chosen)
    )

    def loss(features, batch, models):
      del models
      is_box = batch['classes'] >= 0
      if 'crowd' in batch:
        is_box &= ~batch['crowd'].astype(bool)
      total = 0.0
      for i, (_, teacher) in enumerate(chosen):
        total += losses.focal_distillation_loss(
          features[f'fgd{i}'],
          maps.as_map(features[f'teacher/{teacher}']),
          batch['boxes'],
          is_box,
          image_size=batch['image'].shape[1:3],
          foreground=foreground,
          background=background,
          attention=attention,
          temperature=temperature,
        )
        # The teacher's context is trained too, so its gradient is not stopped.
        difference = features[f'fgd{i}.student'] - features[f'fgd{i}.teacher']
        total += relation * (difference**2).sum((1, 2, 3))
      return total

    return Term(loss, weight, stages)

  return objective


def _levels(pair: Pair) -> FeaturePairs:
  """Returns the levels of the pyramids that both networks compute by weights.

  The last level of a Faster R-CNN is a part of the level before.

  Raises:
    UsageError: they have no level in common.
  """
  parts = {
    stage.name
    for network in (pair.student, pair.teacher)
    for stage in network.stages
    if isinstance(stage.module, two_stage.Subsampled)
  }
  levels = tuple(
    (name, name)
    for name in pair.student_shapes
    if name[:1] == 'p' and name[1:].isdigit() and name in pair.teacher_shapes
    if name not in parts
  )
  if not levels:
    raise UsageError(
      "feature_pairs: expected detectors with levels 'p3' and so on, such as "
      "'retinanet', or pairs (student feature, teacher feature), got the "
      f'student features {", ".join(pair.student_shapes)}'
    )
  return levels
