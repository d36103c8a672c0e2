"""SSKD: a backbone distilled stage by stage, then the head on labels.

Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation, 2018,
https://arxiv.org/abs/1812.01819. Not the method of 2020 of the same short name
(Knowledge Distillation Meets Self-Supervision), which is another one.

Eq. 4 -> `joint.supervised` of the head, eq. 6 -> `losses.squared_distance` in
`_match`.

A boundary is a pair (student feature, teacher feature), both outputs of a stage
or group; stage i lies between boundaries i - 1 and i, the first one begins at
the image, and the head is what lies behind the last.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxdistill import losses, optimizers, steps
from jaxdistill import terms as terms_lib
from jaxdistill.losses import numerics
from jaxdistill.methods import joint
from jaxdistill.networks import staged
from jaxdistill.terms import cuts, helpers, pairs
from jaxdistill.types import (
  Carry,
  Cut,
  Method,
  Model,
  Network,
  Phase,
  PyTree,
  Recipe,
  Stage,
  UsageError,
)

DROPS = (0.3, 0.6, 0.9)  # epochs 18, 36 and 54 of 60


def sskd(
  recipe: Recipe,
  *,
  num_stages: int = 3,
  cut: pairs.Pairs = None,
  stage_epochs: float | None = None,
  head_epochs: float | None = None,
  stage_optimizer: optimizers.Optimizer | None = None,
  head_optimizer: optimizers.Optimizer | None = None,
  reduction: str = 'position_mean',
  statistics_steps: int = 200,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Each stage learns the teacher's features, in order; then the head labels.

    min over stage i of ||f_i^T - P_i(f_i^S)||**2, then min over head of loss(y)

  Equation (6) of SSKD for each stage, and Equation (4) of SSKD for the head.
  Stages that are done are in inference mode and do not move; later ones do not
  run. `P_i` resizes the student's map and, where the channels differ, is a 1x1
  convolution, for the loss alone. While a stage trains, the student so far is
  evaluated under the teacher's remaining stages, as 'partial'.

  Our choices where the paper is silent: `reduction`, since the sum it prints
  diverges at its rate; the batch statistics of a stage are estimated anew when
  it ends; weight decay 5e-4, for the head 1e-4 at rate 0.1.

  Args:
    recipe: how; but its optimiser is not used.
    num_stages: the deepest so many groups of maps, where `cut` is None.
    cut: the boundaries, from the image to the head.
    stage_epochs: of each stage; None: an equal share of the recipe's among the
      stages and the head. The paper: 60, where one-phase methods get 100.
    head_epochs: of the head; None: the same share.
    stage_optimizer: None: SGD with momentum 0.9 at 0.01, times 0.1 at 0.3, 0.6
      and 0.9 of the stage. The paper's other rule is `optimizers.plateau`, its
      window an epoch's steps and `stage_epochs` the most a stage may take.
    head_optimizer: None: the same at 0.1.
    reduction: of the distance, see `losses.squared_distance`.
    statistics_steps: batches from which a stage's statistics are estimated
      when it ends; 0: the running ones stay.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: there is no such reduction or number of stages.
  """
  matching = _Matching(recipe, num_stages, cut, reduction, student, teacher)
  count, share = matching.count, recipe.epochs / (matching.count + 1)
  stage = _recipe(recipe, stage_epochs, share, stage_optimizer, 0.01, 5e-4)
  head = _recipe(recipe, head_epochs, share, head_optimizer, 0.1, 1e-4)
  method: Method = ()
  for number in range(1, count + 1):
    alone = slice(number - 1, number)
    method += matching.phases(f'stage{number}', alone, stage, statistics_steps)
  return method + matching.head(head)


def multi_loss(
  recipe: Recipe,
  *,
  num_stages: int = 3,
  cut: pairs.Pairs = None,
  backbone_epochs: float | None = None,
  head_epochs: float | None = None,
  stage_optimizer: optimizers.Optimizer | None = None,
  head_optimizer: optimizers.Optimizer | None = None,
  reduction: str = 'position_mean',
  statistics_steps: int = 200,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """The rival of SSKD's Table 2: all stages at once, then the head.

    min over backbone of sum_i ||f_i^T - P_i(f_i^S)||**2

  With one stage it is `sskd`.

  Args:
    recipe: how; but its optimiser is not used.
    num_stages: see `sskd`.
    cut: see `sskd`.
    backbone_epochs: None: as many shares of the recipe's as there are stages.
    head_epochs: None: an equal share among the stages and the head.
    stage_optimizer: see `sskd`.
    head_optimizer: see `sskd`.
    reduction: see `sskd`.
    statistics_steps: see `sskd`.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: there is no such reduction or number of stages.
  """
  matching = _Matching(recipe, num_stages, cut, reduction, student, teacher)
  count, share = matching.count, recipe.epochs / (matching.count + 1)
  backbone = _recipe(
    recipe, backbone_epochs, count * share, stage_optimizer, 0.01, 5e-4
  )
  head = _recipe(recipe, head_epochs, share, head_optimizer, 0.1, 1e-4)
  every = slice(0, count)
  method = matching.phases('backbone', every, backbone, statistics_steps)
  return method + matching.head(head)


def fixed_backbone(
  recipe: Recipe,
  *,
  method: Method,
  head_epochs: float | None = None,
  head_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
) -> Method:
  """The ablation of SSKD's Table 1: a new classifier on a trained backbone.

  Args:
    recipe: how the classifier is trained; but its optimiser is not used.
    method: trains the whole network before; a section in a config.
    head_epochs: of the classifier; None: the recipe's.
    head_optimizer: see `sskd`.
    student: the role that trains.
  """

  def last(carry: Carry) -> tuple[str, ...]:
    return (staged.output(joint.model_in(carry, student).network),)

  def renew(rng, carry: Carry) -> dict[str, Model]:
    network, variables = carry[student]
    image = {'image': recipe.example['image']}
    fresh = staged.init(network, rng, image)
    fresh = staged.select(fresh, last(carry))
    return {student: Model(network, staged.merge(variables, fresh))}

  recipe = _recipe(
    recipe, head_epochs, recipe.epochs, head_optimizer, 0.1, 1e-4
  )
  return (
    *method,
    lambda carry: steps.setup_phase('new_classifier', renew),
    *joint.supervised(
      recipe, student=student, trainable=last, name='classifier'
    ),
  )


def _recipe(
  recipe: Recipe,
  epochs: float | None,
  default: float,
  optimizer: optimizers.Optimizer | None,
  rate: float,
  weight_decay: float,
) -> Recipe:
  """For some epochs; where none is given, with the paper's optimiser."""
  schedule = optimizers.step(rate=rate, boundaries=DROPS)
  paper = optimizers.sgd(schedule, nesterov=False, weight_decay=weight_decay)
  return recipe._replace(
    epochs=default if epochs is None else epochs, optimizer=optimizer or paper
  )


class _Matching:
  """Makes the phases of a method that matches features at boundaries."""

  def __init__(
    self,
    recipe: Recipe,
    num_stages: int,
    cut: pairs.Pairs,
    reduction: str,
    student: str,
    teacher: str,
  ):
    numerics.check_reduction(reduction)
    self.count = num_stages if cut is None else len(cut)
    if self.count < 1:
      raise UsageError(
        f'num_stages: {num_stages} is below 1'
        if cut is None
        else 'cut: wanted at least one boundary'
      )
    self._recipe, self._cut, self._reduction = recipe, cut, reduction
    self._student, self._teacher = student, teacher

  def phases(
    self, name: str, matched: slice, recipe: Recipe, statistics_steps: int
  ) -> Method:
    """Trains the stages that lead to some boundaries, then their statistics."""

    def train(carry: Carry) -> Phase:
      part = self._part(carry, matched)
      return _match(name, part, recipe, self._reduction)

    def statistics(carry: Carry) -> Phase:
      part = self._part(carry, matched)
      kept = carry[self._student].variables.get('batch_stats', {})
      return steps.statistics_phase(
        f'{name}_statistics',
        part.pair.student,
        part.stages,
        role=self._student,
        num_steps=statistics_steps if {*part.stages} & {*kept} else 0,
        stream=recipe.stream,
      )

    return (train, statistics)

  def head(self, recipe: Recipe) -> Method:
    """Trains what lies behind the last boundary on labels."""

    def behind(carry: Carry) -> tuple[str, ...]:
      pair, cut = self._boundaries(carry)
      return pairs.behind(pair.student, cut[-1][0])

    return joint.supervised(
      recipe, student=self._student, trainable=behind, name='head'
    )

  def _part(self, carry: Carry, matched: slice) -> '_Part':
    pair, cut = self._boundaries(carry)
    start = cut[matched.start - 1][0] if matched.start else 'image'
    stop = cut[matched][-1][0]
    stages = staged.stages_between(pair.student, start, stop)
    return _Part(pair, cut[matched], stages, self._student, self._teacher)

  def _boundaries(self, carry: Carry) -> tuple[terms_lib.Pair, Cut]:
    """The boundaries, checked.

    Raises:
      UsageError: there are too few groups, the user's boundaries do not exist
        or do not increase, no head is left, or features are neither maps nor
        vectors and differ in shape.
    """
    student, teacher = (
      joint.model_in(carry, role).network
      for role in (self._student, self._teacher)
    )
    pair = terms_lib.pair_of(student, teacher, self._recipe)
    chosen = pairs.middle_cut(pair, self._cut)
    if self._cut is None:
      if self.count > len(chosen):
        raise UsageError(
          f'num_stages: {self.count}; the student has '
          f'{len(pairs.middle(student, pair.student_shapes))} groups of maps '
          f'and the teacher {len(pairs.middle(teacher, pair.teacher_shapes))}: '
          f'choose 1 to {len(chosen)}, or name the boundaries as cut'
        )
      chosen = chosen[-self.count :]
    cuts.check_order(pair, chosen)
    for boundary in chosen:
      shapes = _shapes(pair, boundary)
      if len({*shapes}) > 1 and any(len(s) not in (2, 4) for s in shapes):
        raise UsageError(
          f'cut: features {boundary} have the shapes {shapes[0][1:]} and '
          f'{shapes[1][1:]}; only maps and vectors can be adapted'
        )
    return pair, chosen


class _Part(NamedTuple):
  """What one phase is about.

  Attributes:
    pair: the networks.
    matched: the boundaries whose features are compared.
    stages: of the student, that train; they end at the last boundary.
    student: the role.
    teacher: the role.
  """

  pair: terms_lib.Pair
  matched: Cut
  stages: tuple[str, ...]
  student: str
  teacher: str


def _match(name: str, part: _Part, recipe: Recipe, reduction: str) -> Phase:
  """The phase that makes the student's features those of the teacher."""
  pair, student, teacher = part.pair, part.student, part.teacher
  adapters = _adapters(part)
  ours_needed, theirs_needed = (
    staged.stages_between(network, 'image', feature)
    for network, feature in zip(pair[:2], part.matched[-1])
  )

  def loss_fn(variables, batches, rng, progress):
    del progress
    image = {'image': batches['train']['image']}
    theirs, _ = staged.run(
      pair.teacher, variables[teacher], image, only=theirs_needed
    )
    ours, updates = staged.run(
      pair.student,
      variables[student],
      image,
      only=ours_needed,
      train=part.stages,
      rngs={'dropout': rng},
    )
    adapted, _ = staged.run(
      adapters,
      variables.get('helpers', {}),
      {f'student/{k}': v for k, v in ours.items()},
      train=True,
    )
    metrics, total = {}, 0.0
    for i, (s, t) in enumerate(part.matched):
      own, target = ours[s], theirs[t]
      if f'adapter{i}' in adapted:
        own, target = adapted[f'adapter{i}'], helpers.as_map(target)
      distance = losses.squared_distance(own, target, reduction=reduction)
      metrics[f'distance/{s}'] = distance.mean()
      total += metrics[f'distance/{s}']
    return total, ({student: updates}, metrics)

  made = steps.gradient_phase(
    name,
    loss_fn,
    recipe.optimizer(recipe.num_steps),
    num_steps=recipe.num_steps,
    streams={'train': recipe.stream},
    networks={student: pair.student, teacher: pair.teacher},
    trainable={student: part.stages},
    helpers=(adapters, terms_lib.inputs(pair)) if adapters.stages else None,
  )
  return made._replace(views=_partial(part, adapters))


def _adapters(part: _Part) -> Network:
  """The helpers of those boundaries where the shapes differ."""
  return Network(
    tuple(
      Stage(
        f'adapter{i}',
        helpers.Adapter(pairs.map_shape(part.pair.teacher_shapes, boundary[1])),
        (f'student/{boundary[0]}',),
      )
      for i, boundary in enumerate(part.matched)
      if len({*_shapes(part.pair, boundary)}) > 1
    )
  )


def _partial(
  part: _Part, adapters: Network
) -> dict[str, Callable[[steps.GradientState, PyTree], Model]]:
  """The view of the student so far under the teacher's remaining stages.

  The last adapter stands between them. There is no view where the teacher's
  remaining stages read what is not there, or a vector.
  """
  pair, boundary = part.pair, part.matched[-1]
  ours = staged.stages_between(pair.student, 'image', boundary[0])
  theirs = staged.stages_between(pair.teacher, 'image', boundary[1])
  shapes = _shapes(pair, boundary)
  stages = pair.student.stages[: len(ours)]
  if len({*shapes}) > 1:
    stages += (adapters.stages[-1]._replace(inputs=()),)
  below = Network(stages)

  def on_top(whole: Model, lower: Model) -> Model:
    return staged.splice(whole, theirs[0], theirs[-1], lower)

  def view(state: steps.GradientState, frozen: PyTree) -> Model:
    variables = staged.merge(
      state.variables[part.student], state.variables.get('helpers', {})
    )
    variables = staged.select(variables, staged.stage_names(below))
    whole = Model(pair.teacher, frozen[part.teacher])
    return on_top(whole, Model(below, variables))

  try:
    on_top(Model(pair.teacher, {}), Model(below, {}))
  except UsageError:
    return {}
  return {'partial': view} if len(shapes[1]) == 4 else {}


def _shapes(
  pair: terms_lib.Pair, boundary: tuple[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Of the student's and the teacher's feature, `[B, ...]`."""
  ours, theirs = boundary
  return pair.student_shapes[ours].shape, pair.teacher_shapes[theirs].shape
