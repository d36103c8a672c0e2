"""Objectives that compare maps, for tasks with a target per pixel."""

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.types import FeaturePairs, Stage
from jaxdistill.losses import numerics
from jaxdistill.objectives import adapters, maps, pairs
from jaxdistill.objectives.types import Objective, Pair, Term
from jaxdistill.tasks import requirements


def cwd(
  *,
  weight: float = 5.0,
  temperature: float = 1.0,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """CWD: channel-wise distillation, `losses.channel_wise_loss`.

  The loss is summed over the feature pairs. If the sizes or the channels of two
  paired features differ, an adapter resizes the student's and maps its channels
  by a 1x1 convolution.

  Args:
    weight: the factor of the loss.
    temperature: the temperature of both softmax functions.
    feature_pairs: pairs of maps; None means the outputs, which must be maps.
  """
  checks.weights(weight=weight)
  numerics.check_temperature('temperature', temperature)

  def objective(pair: Pair) -> Term:
    chosen: FeaturePairs
    if feature_pairs is None:
      chosen = (pairs.output_names(pair),)
    else:
      chosen = pairs.map_pairs(pair, feature_pairs)
    pairs.check_positions(pair, chosen)
    stages = tuple(
      Stage(
        f'cwd{i}',
        adapters.Adapter(pairs.map_shape(pair.teacher_shapes, teacher)),
        (f'student/{student}',),
      )
      for i, (student, teacher) in enumerate(chosen)
    )

    def loss(features, batch, models):
      del batch, models
      return sum(
        losses.channel_wise_loss(
          features[f'cwd{i}'],
          maps.as_map(features[f'teacher/{teacher}']),
          temperature=temperature,
        )
        for i, (_, teacher) in enumerate(chosen)
      )

    return Term(loss, weight, stages)

  return objective if feature_pairs is None else marks.any_classes(objective)


def ifv(
  *, weight: float = 200.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """IFVD: intra-class feature variation, `losses.intra_class_variation_loss`.

  The task must be segmentation. The paper adds `pixel_kd`, and a discriminator
  that DistPro leaves out, as does this library.

  Args:
    weight: the factor of the loss.
    feature_pairs: one pair of maps; None means the last maps before the heads.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    requirements.masks('ifv', pair.recipe.task)
    student, teacher = pairs.last_map_pair(pair, feature_pairs)
    output, _ = pairs.output_names(pair)
    num_classes = pair.student_shapes[output].shape[-1]

    def loss(features, batch, models):
      del models
      return losses.intra_class_variation_loss(
        maps.as_map(features[f'student/{student}']),
        maps.as_map(features[f'teacher/{teacher}']),
        batch['mask'],
        num_classes=num_classes,
      )

    return Term(loss, weight)

  return objective


def pairwise(
  *,
  weight: float = 10.0,
  nodes: int = 8,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """Pair-wise structured KD, `losses.pairwise_similarity_loss`.

  Args:
    weight: the factor of the loss; its default was not tuned.
    nodes: the largest number of rows, and of columns, of the pooled maps whose
      places are compared.
    feature_pairs: one pair of maps; None means the last maps before the heads.
  """
  checks.weights(weight=weight)
  checks.integer('nodes', nodes)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    student, teacher = pairs.last_map_pair(pair, feature_pairs)

    def loss(features, batch, models):
      del batch, models
      return losses.pairwise_similarity_loss(
        maps.as_map(features[f'student/{student}']),
        maps.as_map(features[f'teacher/{teacher}']),
        nodes=nodes,
      )

    return Term(loss, weight)

  return objective
