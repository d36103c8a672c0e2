"""The choice of the features of a pair of networks that a term compares."""

from collections.abc import Sequence

import jax

from jaxdistill.core import checks, tasks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import FeaturePairs, Network
from jaxdistill.networks import graph, layers
from jaxdistill.objectives import maps
from jaxdistill.objectives.types import Pair, Shapes


def output_names(pair: Pair) -> tuple[str, str]:
  """Returns the names of the student's and the teacher's main output."""
  return graph.main_output(pair.student), graph.main_output(pair.teacher)


def map_groups(network: Network, shapes: Shapes) -> list[str]:
  """Returns the groups whose output is a map or tokens, including the stem.

  A named output of the network is not among them, although that of a network
  for segmentation is a map.
  """
  return [
    g
    for g in graph.groups(network)
    if len(shapes[g].shape) in (3, 4) and g not in network.outputs
  ]


def middle_groups(network: Network, shapes: Shapes) -> list[str]:
  """Returns the groups that methods compare by default.

  These are the groups called 'group...' after the first map, as RepDistiller
  and ReviewKD choose them. If there are more than five (MobileNetV2), every
  second group of the same map size is taken, counted from the last one. A size
  has at most two groups in such networks, so that this is the last group of
  each size. It gives the same groups if strides are left out, as in networks
  for segmentation.
  """
  after_stem = map_groups(network, shapes)[1:]
  names = [g for g in after_stem if g.startswith('group')] or after_stem
  if len(names) <= 5:
    return names
  sizes = [map_shape(shapes, g)[:2] for g in names]
  return [
    g for i, g in enumerate(names) if sizes[i + 1 :].count(sizes[i]) % 2 == 0
  ]


def check(
  pair: Pair,
  feature_pairs: FeaturePairs,
  *,
  name: str = 'feature_pairs',
) -> FeaturePairs:
  """Returns the user's feature pairs if all of their features exist.

  Args:
    pair: the networks.
    feature_pairs: what the user chose.
    name: the name of the argument, for the message.

  Raises:
    UsageError: there are no pairs, a feature does not exist, an entry is not
      a pair, or a feature has other shapes in training.
  """
  if not feature_pairs:
    raise UsageError(
      f'{name}: expected at least one pair (student feature, teacher feature), '
      'got none'
    )
  checked = []
  for entry in feature_pairs:
    is_sequence = isinstance(entry, Sequence) and not isinstance(entry, str)
    if not is_sequence or len(entry) != 2:
      raise UsageError(
        f'{name}: expected pairs (student feature, teacher feature), got '
        f'{entry!r}'
      )
    student, teacher = entry
    if student not in pair.student_shapes:
      raise checks.unknown('student feature', student, pair.student_shapes)
    if teacher not in pair.teacher_shapes:
      raise checks.unknown('teacher feature', teacher, pair.teacher_shapes)
    checked.append((student, teacher))
  _check_lengths(pair, [student for student, _ in checked], name)
  return tuple(checked)


def _check_lengths(pair: Pair, features: Sequence[str], name: str) -> None:
  """Checks that training does not change the shapes of student features.

  Training shows more than images to some networks, such as the true boxes,
  which are further regions of a detector in two stages.

  Raises:
    UsageError: a feature has another shape in training.
  """
  task = pair.recipe.task
  if task.inputs is tasks.only_images:
    return
  inputs = jax.eval_shape(task.inputs, dict(pair.recipe.example))
  shapes = graph.shapes(pair.student, inputs)
  for feature in features:
    if shapes[feature].shape != pair.student_shapes[feature].shape:
      raise UsageError(
        f'{name}: expected features of one shape, got {feature!r}, which has '
        f'{pair.student_shapes[feature].shape[1:]} from images alone and '
        f'{shapes[feature].shape[1:]} in training, where the task gives '
        f'{", ".join(inputs)}'
      )


def middle_pairs(
  pair: Pair,
  feature_pairs: FeaturePairs | None,
  *,
  pre: bool = False,
  name: str = 'feature_pairs',
) -> FeaturePairs:
  """Returns the pairs of maps that a term compares.

  Args:
    pair: the networks.
    feature_pairs: what the user chose. None means the groups of
      `middle_groups`: the deepest is paired with the deepest, and as many pairs
      are made as the network with fewer groups allows.
    pre: whether the default pairs are taken before their last activation, if
      the networks provide these features.
    name: the name of the argument, for the message.

  Raises:
    UsageError: a feature does not exist, or there are no groups to pair.
  """
  if feature_pairs is not None:
    return check(pair, feature_pairs, name=name)
  student_groups = middle_groups(pair.student, pair.student_shapes)
  teacher_groups = middle_groups(pair.teacher, pair.teacher_shapes)
  count = min(len(student_groups), len(teacher_groups))
  if not count:
    raise _no_maps(pair, name)
  pairs = zip(student_groups[-count:], teacher_groups[-count:])
  if not pre:
    return tuple(pairs)
  return tuple(
    (
      pre_activation(pair.student_shapes, student),
      pre_activation(pair.teacher_shapes, teacher),
    )
    for student, teacher in pairs
  )


def map_pairs(
  pair: Pair, feature_pairs: FeaturePairs | None, *, pre: bool = False
) -> FeaturePairs:
  """Returns the pairs of a term that compares maps; see `middle_pairs`.

  Raises:
    UsageError: see `middle_pairs` and `check_maps`.
  """
  chosen = middle_pairs(pair, feature_pairs, pre=pre)
  check_maps(pair, chosen)
  return chosen


def check_maps(pair: Pair, feature_pairs: FeaturePairs) -> None:
  """Checks that all features are maps, or can become maps of comparable size.

  Raises:
    UsageError: a feature is neither a map nor tokens nor a vector, or its
      tokens are not a square and are paired with a map of another size.
  """
  for student, teacher in feature_pairs:
    student_size = map_shape(pair.student_shapes, student)[:2]
    teacher_size = map_shape(pair.teacher_shapes, teacher)[:2]
    shapes = (
      pair.student_shapes[student].shape,
      pair.teacher_shapes[teacher].shape,
    )
    has_column = any(
      len(shape) == 3 and height > width
      for shape, (height, width) in zip(shapes, (student_size, teacher_size))
    )
    if has_column and student_size != teacher_size:
      raise UsageError(
        'feature_pairs: expected as many tokens in both features, or tokens '
        f'that are a square of patches, got {shapes[0][1:]} for {student!r} of '
        f'the student and {shapes[1][1:]} for {teacher!r} of the teacher'
      )


def check_positions(pair: Pair, feature_pairs: FeaturePairs) -> None:
  """Checks that no feature is a vector, which has no positions to compare.

  Raises:
    UsageError: a feature is a vector.
  """
  for names in feature_pairs:
    for name, shapes in zip(names, (pair.student_shapes, pair.teacher_shapes)):
      if len(shapes[name].shape) == 2:
        raise UsageError(
          'feature_pairs: expected maps or tokens, whose positions are '
          f'compared, got the vector {shapes[name].shape[1:]} for {name!r}'
        )


def last_maps(pair: Pair) -> tuple[str, str]:
  """Returns the last map of each network, before its last activation.

  Raises:
    UsageError: a network has no groups of maps.
  """
  student, teacher = last_map_pair(pair, None)
  return (
    pre_activation(pair.student_shapes, student),
    pre_activation(pair.teacher_shapes, teacher),
  )


def last_map_pair(
  pair: Pair, feature_pairs: FeaturePairs | None
) -> tuple[str, str]:
  """Returns the only pair of a term that compares places of maps.

  Args:
    pair: the networks.
    feature_pairs: what the user chose; None means the last group of maps of
      each network, which the heads read.

  Raises:
    UsageError: a feature does not exist, has no places, or a network has no
      groups of maps.
  """
  if feature_pairs is not None:
    chosen = map_pairs(pair, feature_pairs)
    check_positions(pair, chosen)
    return chosen[0]
  student_groups = map_groups(pair.student, pair.student_shapes)
  teacher_groups = map_groups(pair.teacher, pair.teacher_shapes)
  if not student_groups or not teacher_groups:
    raise _no_maps(pair, 'feature_pairs')
  return student_groups[-1], teacher_groups[-1]


def last_pair(
  pair: Pair, feature_pairs: FeaturePairs | None
) -> tuple[str, str]:
  """Returns the only pair of a term that compares vectors.

  Args:
    pair: the networks.
    feature_pairs: what the user chose; None means the pooled features.

  Raises:
    UsageError: a feature does not exist, or a network has a single stage.
  """
  if feature_pairs is not None:
    return check(pair, feature_pairs)[0]
  return (
    pooled_feature(pair.student, 'student'),
    pooled_feature(pair.teacher, 'teacher'),
  )


def is_classifier(network: Network) -> bool:
  """Returns whether the output is that of a classifier, its last stage."""
  last = network.stages[-1]
  is_output = graph.main_output(network) == last.name
  return is_output and isinstance(last.module, layers.CLASSIFIERS)


def pooled_feature(network: Network, role: str) -> str:
  """Returns the feature that the last stage reads, usually the pooled map.

  Args:
    network: the network.
    role: 'student' or 'teacher', for the message.

  Raises:
    UsageError: the network has a single stage.
  """
  names = graph.stage_names(network)
  if len(names) < 2:
    raise UsageError(
      'feature_pairs: expected a pair (student feature, teacher feature), '
      f'because the {role} has only one stage'
    )
  return names[-2]


def stages_up_to(network: Network, shapes: Shapes, feature: str) -> list[str]:
  """Returns a network's stages up to the one that computes a feature."""
  names = graph.stage_names(network)
  stages: list[str] = []
  # In `shapes`, a stage comes before the further features that it computes.
  for name in shapes:
    if name in names:
      stages.append(name)
    if name == feature:
      break
  return stages


def stages_after(network: Network, feature: str) -> tuple[str, ...]:
  """Returns the stages after the output of a stage or group."""
  stages = graph.stages_between(network, 'image', feature)
  return graph.stage_names(network)[len(stages) :]


def pre_activation(shapes: Shapes, feature: str) -> str:
  """Returns the name of a feature before its last activation.

  If the network does not provide it, the name of the feature itself.
  """
  return f'{feature}.pre' if f'{feature}.pre' in shapes else feature


def map_shape(shapes: Shapes, feature: str) -> tuple[int, int, int]:
  """Returns (H, W, C) of a feature as a map.

  Raises:
    UsageError: it cannot become a map; see `maps.map_shape`.
  """
  try:
    return maps.map_shape(shapes[feature].shape)
  except UsageError as error:
    raise UsageError(f'feature_pairs: {feature!r}: {error}') from None


def _no_maps(pair: Pair, name: str) -> UsageError:
  """Returns the error for networks whose groups cannot be paired."""
  return UsageError(
    f'{name}: expected pairs (student feature, teacher feature), because a '
    'network has no groups of maps to pair; the student has the features '
    f'{", ".join(pair.student_shapes)} and the teacher '
    f'{", ".join(pair.teacher_shapes)}'
  )
