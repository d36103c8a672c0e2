"""The phases of SSKD, which match features at the boundaries of stages.

A boundary is a pair (student feature, teacher feature) of outputs of stages or
groups, or several such pairs, of which the last one is the deepest. Stage i
lies between the boundaries i - 1 and i. The first stage begins at the image,
and the head is everything after the last boundary.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxdistill import losses, objectives, phases
from jaxdistill.core import checks, marks, random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Boundaries,
  Carry,
  FeaturePairs,
  Method,
  Model,
  Network,
  Phase,
  PyTree,
  Recipe,
  Stage,
)
from jaxdistill.losses import numerics
from jaxdistill.networks import graph
from jaxdistill.objectives import adapters as adapters_lib
from jaxdistill.objectives import cuts, maps, pairs
from jaxdistill.phases import joint


class Matching:
  """Builds the phases of a method that matches features at boundaries.

  Attributes:
    count: the number of stages.
  """

  def __init__(
    self,
    recipe: Recipe,
    num_stages: int,
    cut: Boundaries | None,
    reduction: str,
    student: str,
    teacher: str,
  ):
    """Checks the arguments, which are those of `sskd`.

    Raises:
      UsageError: the reduction does not exist, or there are no stages.
    """
    checks.choice('reduction', reduction, numerics.REDUCTIONS)
    if cut is None:
      self.count = checks.integer('num_stages', num_stages)
    elif not cut:
      raise UsageError('cut: expected at least one boundary, got none')
    else:
      self.count = len(cut)
    self._recipe, self._cut, self._reduction = recipe, cut, reduction
    self._student, self._teacher = student, teacher

  def phases(
    self, name: str, matched: slice, recipe: Recipe, statistics_steps: int
  ) -> Method:
    """Trains the stages that end at some boundaries, then their statistics.

    Args:
      name: the name of the phase.
      matched: which boundaries.
      recipe: how the stages are trained.
      statistics_steps: the number of batches for the statistics.

    Raises:
      UsageError: this number is negative.
    """
    checks.integer('statistics_steps', statistics_steps, at_least=0)

    @marks.any_classes
    def train(carry: Carry) -> Phase:
      part = self._part(carry, matched)
      return match_phase(name, part, recipe, self._reduction)

    @marks.any_classes
    def statistics(carry: Carry) -> Phase:
      part = self._part(carry, matched)
      batch_stats = carry[self._student].variables.get('batch_stats', {})
      has_statistics = bool({*part.stages} & {*batch_stats})
      return phases.statistics_phase(
        f'{name}_statistics',
        part.pair.student,
        part.stages,
        role=self._student,
        num_steps=statistics_steps if has_statistics else 0,
        stream=recipe.stream,
      )

    return (train, statistics)

  def head(self, recipe: Recipe) -> Method:
    """Trains the stages after the last boundary on the labels.

    Args:
      recipe: how the head is trained.
    """

    def head_stages(carry: Carry) -> tuple[str, ...]:
      pair, cut = self._boundaries(carry)
      return pairs.stages_after(pair.student, cut[-1][-1][0])

    return joint.supervised(
      recipe, student=self._student, trainable=head_stages, name='head'
    )

  def _part(self, carry: Carry, matched: slice) -> 'Part':
    """Returns what one phase trains and compares."""
    pair, cut = self._boundaries(carry)
    start = cut[matched.start - 1][-1][0] if matched.start else 'image'
    compared = _flat(cut[matched])
    stages = graph.stages_between(pair.student, start, compared[-1][0])
    return Part(pair, compared, stages, self._student, self._teacher)

  def _boundaries(
    self, carry: Carry
  ) -> tuple[objectives.Pair, tuple[FeaturePairs, ...]]:
    """Returns the pair of networks and the pairs of features of each boundary.

    Raises:
      UsageError: there are too few groups of maps; the user's boundaries do not
        exist, are not in order or leave no head; or two features differ in
        shape and are neither maps nor vectors.
    """
    student, teacher = (
      phases.model_in(carry, role).network
      for role in (self._student, self._teacher)
    )
    pair = objectives.pair_of(student, teacher, self._recipe)
    if self._cut is not None:
      boundaries = tuple(
        pairs.check(pair, _pairs_of(entry), name='cut') for entry in self._cut
      )
    else:
      middle = pairs.middle_pairs(pair, None, name='cut')
      if self.count > len(middle):
        student_count = len(pairs.middle_groups(student, pair.student_shapes))
        teacher_count = len(pairs.middle_groups(teacher, pair.teacher_shapes))
        raise UsageError(
          f'num_stages: expected 1 to {len(middle)}, got {self.count}; the '
          f'student has {student_count} groups of maps and the teacher '
          f'{teacher_count}; for other stages, give the boundaries as cut'
        )
      boundaries = tuple((boundary,) for boundary in middle[-self.count :])
    cuts.check_order(pair, _flat(boundaries))
    for boundary in _flat(boundaries):
      shapes = _shapes(pair, boundary)
      if len({*shapes}) > 1 and any(len(s) not in (2, 4) for s in shapes):
        raise UsageError(
          f'cut: expected maps or vectors where shapes differ, got features '
          f'{boundary} of the shapes {shapes[0][1:]} and {shapes[1][1:]}'
        )
    return pair, boundaries


def _pairs_of(entry: Any) -> FeaturePairs:
  """Returns the pairs of an entry of a cut, which is one pair or several."""
  is_several = isinstance(entry, Sequence) and not any(
    isinstance(part, str) for part in entry
  )
  return tuple(entry) if is_several else (entry,)


def _flat(boundaries: tuple[FeaturePairs, ...]) -> FeaturePairs:
  return tuple(pair for boundary in boundaries for pair in boundary)


class Part(NamedTuple):
  """What one phase trains and compares.

  Attributes:
    pair: the networks.
    matched: the pairs of features that are compared.
    stages: the student's stages that train; they end at the last pair.
    student: the role of the student.
    teacher: the role of the teacher.
  """

  pair: objectives.Pair
  matched: FeaturePairs
  stages: tuple[str, ...]
  student: str
  teacher: str


def match_phase(name: str, part: Part, recipe: Recipe, reduction: str) -> Phase:
  """Builds the phase that makes the student's features match the teacher's.

  Args:
    name: the name of the phase.
    part: what it trains and compares.
    recipe: how the stages are trained.
    reduction: how the distance is averaged, see `losses.squared_distance`.
  """
  pair, student, teacher = part.pair, part.student, part.teacher
  adapters = _adapters(part)
  student_stages, teacher_stages = (
    graph.stages_between(network, 'image', feature)
    for network, feature in zip(pair[:2], part.matched[-1])
  )

  def loss_fn(variables, batches, rng, progress):
    del progress
    image = {'image': batches['train']['image']}
    teacher_features, _ = graph.run(
      pair.teacher, variables[teacher], image, only=teacher_stages
    )
    student_features, updates = graph.run(
      pair.student,
      variables[student],
      image,
      only=student_stages,
      train=part.stages,
      rngs={'dropout': random.step_key(rng, 'dropout')},
    )
    adapted, _ = graph.run(
      adapters,
      variables.get('adapters', {}),
      {f'student/{k}': v for k, v in student_features.items()},
      train=True,
    )
    metrics, total = {}, 0.0
    for i, (s, t) in enumerate(part.matched):
      feature, target = student_features[s], teacher_features[t]
      if f'adapter{i}' in adapted:
        feature = adapted[f'adapter{i}']
        target = maps.as_map(target)
      distance = losses.squared_distance(feature, target, reduction=reduction)
      metrics[f'distance/{s}'] = distance.mean()
      total += metrics[f'distance/{s}']
    return total, ({student: updates}, metrics)

  phase = phases.gradient_phase(
    name,
    loss_fn,
    recipe.optimizer(recipe.num_steps),
    num_steps=recipe.num_steps,
    streams={'train': recipe.stream},
    networks={student: pair.student, teacher: pair.teacher},
    trainable={student: part.stages},
    adapters=(adapters, objectives.adapter_inputs(pair))
    if adapters.stages
    else None,
  )
  return phase._replace(eval_models=_partial(part, adapters))


def _adapters(part: Part) -> Network:
  """Returns the adapters of the boundaries where the shapes differ."""
  return Network(
    tuple(
      Stage(
        f'adapter{i}',
        adapters_lib.Adapter(
          pairs.map_shape(part.pair.teacher_shapes, boundary[1])
        ),
        (f'student/{boundary[0]}',),
      )
      for i, boundary in enumerate(part.matched)
      if len({*_shapes(part.pair, boundary)}) > 1
    )
  )


def _partial(
  part: Part, adapters: Network
) -> dict[str, Callable[[phases.GradientState, PyTree], Model]]:
  """Returns the evaluation of the student's stages under the teacher's.

  The teacher's remaining stages read the student's features, through the last
  adapter if there is one. Returns {} if these stages read a vector, a feature
  that the student does not have, or an earlier feature of another shape, or if
  the teacher has other classes.
  """
  pair, boundary = part.pair, part.matched[-1]
  student_stages = graph.stages_between(pair.student, 'image', boundary[0])
  teacher_stages = graph.stages_between(pair.teacher, 'image', boundary[1])
  shapes = _shapes(pair, boundary)
  stages = pair.student.stages[: len(student_stages)]
  if len({*shapes}) > 1:
    stages += (adapters.stages[-1]._replace(inputs=()),)
  lower_network = Network(stages)

  def combined(teacher: Model, lower: Model) -> Model:
    return graph.splice(teacher, teacher_stages[0], teacher_stages[-1], lower)

  def partial(state: phases.GradientState, frozen: PyTree) -> Model:
    variables = graph.merge(
      state.variables[part.student], state.variables.get('adapters', {})
    )
    variables = graph.select(variables, graph.stage_names(lower_network))
    teacher = Model(pair.teacher, frozen[part.teacher])
    return combined(teacher, Model(lower_network, variables))

  try:
    combined(Model(pair.teacher, {}), Model(lower_network, {}))
  except UsageError:
    return {}
  outputs = _shapes(pair, pairs.output_names(pair))
  # The adapter only changes the last feature, so earlier ones must fit.
  replaced = {name.partition('.')[0] for name in teacher_stages}
  reads_others = any(
    len({*_shapes(pair, (name, name))}) > 1
    for stage in pair.teacher.stages[len(teacher_stages) :]
    for name in stage.inputs
    if name.partition('.')[0] in replaced
  )
  is_comparable = len(shapes[1]) == 4 and len({*outputs}) == 1
  is_comparable = is_comparable and not reads_others
  return {'partial': partial} if is_comparable else {}


def _shapes(
  pair: objectives.Pair, boundary: tuple[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Returns the shapes `[B, ...]` of the two features of a boundary."""
  student_feature, teacher_feature = boundary
  return (
    pair.student_shapes[student_feature].shape,
    pair.teacher_shapes[teacher_feature].shape,
  )
