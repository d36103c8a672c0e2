"""Objectives that compare how examples, or layers, relate to each other."""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, FeaturePairs, Stage
from jaxdistill.objectives import adapters, maps, pairs
from jaxdistill.objectives.types import Objective, Pair, Term
from jaxdistill.tasks import requirements


def sp(
  *, weight: float = 3000.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """SP: similarity preserving, `losses.similarity_preserving_loss`.

  Args:
    weight: the factor of the loss.
    feature_pairs: one pair; None means the last of `middle_pairs`.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    student, teacher = pairs.middle_pairs(pair, feature_pairs)[-1]

    def loss(features, batch, models):
      del batch, models
      return losses.similarity_preserving_loss(
        features[f'student/{student}'], features[f'teacher/{teacher}']
      )

    return Term(loss, weight)

  return objective


def rkd(
  *,
  weight: float = 1.0,
  distance_weight: float = 25.0,
  angle_weight: float = 50.0,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """RKD: distances and angles between examples.

  The loss is the weighted sum of `losses.relational_distance_loss` and
  `losses.relational_angle_loss`.

  Args:
    weight: the factor of both.
    distance_weight: the factor of the distances between two examples.
    angle_weight: the factor of the angles between three examples.
    feature_pairs: one pair; None means the pooled features.
  """
  checks.weights(
    weight=weight, distance_weight=distance_weight, angle_weight=angle_weight
  )

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    student, teacher = pairs.last_pair(pair, feature_pairs)

    def loss(features, batch, models):
      del batch, models
      student_features = features[f'student/{student}']
      teacher_features = features[f'teacher/{teacher}']
      return distance_weight * losses.relational_distance_loss(
        student_features, teacher_features
      ) + angle_weight * losses.relational_angle_loss(
        student_features, teacher_features
      )

    return Term(loss, weight)

  return objective


def pkt(
  *, weight: float = 30000.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """PKT: probabilistic transfer, `losses.probabilistic_transfer_loss`.

  Args:
    weight: the factor of the loss.
    feature_pairs: one pair; None means the pooled features.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    student, teacher = pairs.last_pair(pair, feature_pairs)

    def loss(features, batch, models):
      del batch, models
      return losses.probabilistic_transfer_loss(
        features[f'student/{student}'], features[f'teacher/{teacher}']
      )

    return Term(loss, weight)

  return objective


def cc(
  *,
  weight: float = 0.02,
  size: int = 128,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """CC: correlation congruence, `losses.correlation_congruence_loss`.

  The loss compares two trained embeddings.

  Args:
    weight: the factor of the loss.
    size: the size of the embeddings.
    feature_pairs: one pair; None means the pooled features.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    embeddings = _embeddings(pair, feature_pairs, size, 'cc')

    def loss(features, batch, models):
      del batch, models
      return losses.correlation_congruence_loss(
        features['cc_student'], features['cc_teacher']
      )

    return Term(loss, weight, embeddings)

  return objective


def fsp(
  *, weight: float = 1.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """FSP: flow between consecutive maps, `losses.flow_loss`.

  Args:
    weight: the factor of the loss.
    feature_pairs: pairs of maps in order, with equal numbers of channels; None
      means the stem and the groups of maps.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    if feature_pairs is None:
      groups = pairs.middle_pairs(pair, None)
      stems = (
        pairs.map_groups(pair.student, pair.student_shapes)[0],
        pairs.map_groups(pair.teacher, pair.teacher_shapes)[0],
      )
      chosen = pairs.check(pair, (stems, *groups))
    else:
      chosen = pairs.check(pair, feature_pairs)
    pairs.check_maps(pair, chosen)
    for student, teacher in chosen:
      student_channels = pair.student_shapes[student].shape[-1]
      teacher_channels = pair.teacher_shapes[teacher].shape[-1]
      if student_channels != teacher_channels:
        raise UsageError(
          'feature_pairs: expected equal numbers of channels for FSP, got '
          f'{student_channels} for {student!r} of the student and '
          f'{teacher_channels} for {teacher!r} of the teacher'
        )

    def loss(features, batch, models):
      del batch, models
      return losses.flow_loss(
        [maps.as_map(features[f'student/{s}']) for s, _ in chosen],
        [maps.as_map(features[f'teacher/{t}']) for _, t in chosen],
      )

    return Term(loss, weight)

  return objective


def crd(
  *,
  weight: float = 0.8,
  size: int = 128,
  num_negatives: int = 16384,
  temperature: float = 0.07,
  momentum: float = 0.5,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """CRD: contrast with a memory bank, `losses.memory_contrastive_loss`.

  Args:
    weight: the factor of the loss.
    size: the size of the embeddings.
    num_negatives: the number of negatives of each example, at most the number
      of examples outside of the largest class.
    temperature: the temperature of the scores.
    momentum: the fraction of its old value that a row of the memory keeps at an
      update.
    feature_pairs: one pair; None means the pooled features.
  """
  checks.weights(weight=weight)
  checks.number('temperature', temperature, above=0)
  checks.number('momentum', momentum, at_least=0, at_most=1)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    requirements.image_classes('crd', pair.recipe.task)
    embeddings = _embeddings(pair, feature_pairs, size, 'crd')
    memory = _Memory(
      _Examples(pair.recipe.examples, num_negatives),
      size,
      temperature,
      momentum,
    )
    inputs = ('crd_student', 'crd_teacher', 'batch/label', 'batch/index')

    def loss(features, batch, models):
      del batch, models
      return features['crd']

    return Term(loss, weight, (*embeddings, Stage('crd', memory, inputs)))

  return objective


def _embeddings(
  pair: Pair, feature_pairs: FeaturePairs | None, size: int, name: str
) -> tuple[Stage, Stage]:
  """Makes trained embeddings of a student's and a teacher's feature."""
  student, teacher = pairs.last_pair(pair, feature_pairs)
  module = adapters.Embedding(checks.integer('size', size))
  return (
    Stage(f'{name}_student', module, (f'student/{student}',)),
    Stage(f'{name}_teacher', module, (f'teacher/{teacher}',)),
  )


class _Examples:
  """What the memory must know of the training examples.

  Two objects are equal only if they are the same object, so that a module that
  holds one can be hashed.
  """

  def __init__(self, examples: Any, num_negatives: int):
    index, label = examples['index'], examples['label']
    self.size = len(index)
    # The row in the memory of an example, given its index in the whole split.
    self.row = np.zeros(index.max() + 1, np.int32)
    self.row[index] = np.arange(self.size)
    self.table = losses.negative_table(label, num_negatives=num_negatives)


class _Memory(nn.Module):
  """The memory bank as the state of an adapter whose output is the loss `[B]`.

  Attributes:
    examples: the training examples.
    size: the size of the embeddings.
    temperature: the temperature of the scores.
    momentum: the fraction of its old value that a row of the memory keeps at an
      update.
  """

  examples: _Examples
  size: int
  temperature: float
  momentum: float

  @nn.compact
  def __call__(
    self,
    student: Array,
    teacher: Array,
    label: Array,
    index: Array,
    train: bool,
  ) -> Array:
    bank = self.variable(
      'memory',
      'bank',
      lambda: losses.init_memory_bank(
        self.make_rng('params'), self.examples.size, dim=self.size
      )._asdict(),
    )
    label = label.argmax(-1) if label.ndim == 2 else label
    negatives = losses.sample_negatives(
      self.make_rng('dropout' if train else 'params'),
      self.examples.table,
      label,
    )
    loss, new_bank = losses.memory_contrastive_loss(
      student,
      teacher,
      losses.MemoryBank(**bank.value),
      jnp.asarray(self.examples.row)[index],
      negatives,
      temperature=self.temperature,
      momentum=self.momentum,
    )
    if train:
      bank.value = new_bank._asdict()
    return loss
