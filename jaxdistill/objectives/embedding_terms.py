"""The objective that compares vectors which describe an image."""

from collections.abc import Callable

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, FeaturePairs, Network, Stage
from jaxdistill.networks import graph
from jaxdistill.objectives import adapters, pairs
from jaxdistill.objectives.types import Objective, Pair, Term


def _relational(student: Array, teacher: Array) -> Array:
  """Returns the loss of RKD, whose two terms have the published ratio."""
  return losses.relational_distance_loss(
    student, teacher
  ) + 2 * losses.relational_angle_loss(student, teacher)


_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
  'cosine': losses.cosine_loss,
  'smooth_l1': losses.smooth_l1_loss,
  'relational': _relational,
}


def embedding(
  *,
  weight: float = 1.0,
  loss: str = 'cosine',
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """Embedding: the student's vector learns the teacher's.

  If the vectors differ in length, a linear adapter maps the student's to the
  length of the teacher's. It is dropped after the training. With the task
  `embedding`, the student's last layer has the teacher's length and takes its
  place; it is kept.

  Args:
    weight: the factor of the loss.
    loss: 'cosine', `losses.cosine_loss`; 'smooth_l1', `losses.smooth_l1_loss`;
      or 'relational', `losses.relational_distance_loss` plus twice
      `losses.relational_angle_loss`, which needs no adapter.
    feature_pairs: one pair of vectors; None means the outputs if the task is
      `embedding`, and else the features that the classifiers read; of a network
      without a classifier, its output.
  """
  checks.weights(weight=weight)
  distance = _LOSSES[checks.choice('loss', loss, _LOSSES)]

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    student, teacher = _vectors(pair, feature_pairs)
    size = pair.teacher_shapes[teacher].shape[-1]
    vector = f'student/{student}'
    stages: tuple[Stage, ...] = ()
    is_mapped = pair.student_shapes[student].shape[-1] != size
    if is_mapped and loss != 'relational':
      adapter = Stage('embedding', adapters.Embedding(size), (vector,))
      vector, stages = adapter.name, (adapter,)

    def term_loss(features, batch, models):
      del batch, models
      return distance(features[vector], features[f'teacher/{teacher}'])

    return Term(term_loss, weight, stages)

  return objective


def _vectors(pair: Pair, feature_pairs: FeaturePairs | None) -> tuple[str, str]:
  """Returns the pair of vectors that are compared.

  Raises:
    UsageError: a feature does not exist, or is not a vector.
  """
  if feature_pairs is not None:
    names = pairs.last_pair(pair, feature_pairs)
  elif pair.recipe.task.class_scores:
    names = (
      _vector(pair.student, 'student'),
      _vector(pair.teacher, 'teacher'),
    )
  else:
    names = pairs.output_names(pair)
  for name, shapes in zip(names, (pair.student_shapes, pair.teacher_shapes)):
    if len(shapes[name].shape) != 2:
      raise UsageError(
        'embedding: expected features [B, D], one vector for each image, got '
        f'{list(shapes[name].shape[1:])} for {name!r}; feature_pairs names '
        'others'
      )
  return names


def _vector(network: Network, role: str) -> str:
  """Returns what a classifier's last layer reads; else, the main output."""
  if pairs.is_classifier(network):
    return pairs.pooled_feature(network, role)
  return graph.main_output(network)
