"""The objective that compares vectors which describe an image."""

from collections.abc import Callable

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, FeaturePairs, Network, Stage
from jaxdistill.networks import graph
from jaxdistill.objectives import adapters, maps, pairs
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
  map_weight: float = 0.0,
  map_pairs: FeaturePairs | None = None,
) -> Objective:
  """Embedding: the student's vector learns the teacher's.

  If the vectors differ in length, a linear adapter maps the student's to the
  length of the teacher's. It is dropped after the training. With the task
  `embedding`, the student's last layer has the teacher's length and takes its
  place; it is kept.

  If `map_weight` is positive, the cosine distance of the last maps, averaged
  over their positions, is added to the loss. The student's map is first resized
  to the size of the teacher's, and a 1x1 convolution gives it the teacher's
  channels. This convolution is trained too, and dropped after the training.
  Patch tokens count as maps.

  Args:
    weight: the factor of the loss.
    loss: 'cosine', `losses.cosine_loss`; 'smooth_l1', `losses.smooth_l1_loss`;
      or 'relational', `losses.relational_distance_loss` plus twice
      `losses.relational_angle_loss`, which needs no adapter.
    feature_pairs: one pair of vectors; None means the outputs if the task is
      `embedding`, and else the features that the classifiers read; of a network
      without a classifier, its output.
    map_weight: the factor of the loss of the maps, beside `weight`; 0: only
      vectors are compared.
    map_pairs: pairs of maps; None means the last groups of maps. If
      the teacher joins several, its maps have names such as 'teacher1.group3'.
  """
  checks.weights(weight=weight, map_weight=map_weight)
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
    positions = _positions(pair, map_pairs) if map_weight else {}

    def term_loss(features, batch, models):
      del batch, models
      value = distance(features[vector], features[f'teacher/{teacher}'])
      for stage, name in positions.items():
        expected = maps.as_map(features[f'teacher/{name}'])
        distances = _position_distances(features[stage.name], expected)
        value += map_weight * distances / len(positions)
      return value

    return Term(term_loss, weight, (*stages, *positions))

  return objective


def _positions(pair: Pair, map_pairs: FeaturePairs | None) -> dict[Stage, str]:
  """Returns the stage that adapts the student's map -> the teacher's map."""
  if map_pairs is None:
    chosen: FeaturePairs = (pairs.last_map_pair(pair, None),)
  else:
    chosen = pairs.map_pairs(pair, map_pairs)
  return {
    Stage(
      f'positions{i + 1}',
      adapters.Positions(pairs.map_shape(pair.teacher_shapes, teacher)),
      (f'student/{student}',),
    ): teacher
    for i, (student, teacher) in enumerate(chosen)
  }


def _position_distances(student: Array, teacher: Array) -> Array:
  """Returns the cosine distance of maps, averaged over positions, `[B]`."""
  channels = student.shape[-1]
  distances = losses.cosine_loss(
    student.reshape(-1, channels), teacher.reshape(-1, channels)
  )
  return distances.reshape(len(student), -1).mean(-1)


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
