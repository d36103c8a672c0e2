"""SSKD: a backbone distilled stage by stage, then the head on labels.

Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation, 2018,
https://arxiv.org/abs/1812.01819. Not the method of 2020 of the same short name
(Knowledge Distillation Meets Self-Supervision), which is another one.

Eq. 4 -> `_head`, eq. 6 -> `losses.squared_distance` in `_match`.

A boundary is a pair (student feature, teacher feature), both outputs of a stage
or group; stage i lies between boundaries i - 1 and i, the first one begins at
the image, and the head is what lies behind the last.
"""

from collections.abc import Callable, Sequence

from jaxdistill import losses, optimizers, steps
from jaxdistill import terms as terms_lib
from jaxdistill.methods import joint
from jaxdistill.networks import staged
from jaxdistill.terms import helpers, pairs
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
  run. `P_i` resizes the student's map and, where
  the channels differ, is a 1x1 convolution, for the loss alone. While a stage
  trains, what is evaluated is the student so far under the teacher's remaining
  stages.

  Our choices where the paper is silent: `reduction`, since the sum it prints
  diverges at its rate; the batch statistics of a stage are estimated anew when
  it ends; weight decay 5e-4, for the head 1e-4 at rate 0.1.

  Args:
    recipe: how; its optimiser is used only where it is passed on as one below.
    num_stages: the deepest so many groups of maps, where `cut` is None.
    cut: the boundaries, from the image to the head.
    stage_epochs: of each stage; None: as the head, an equal share of the
      recipe's. The paper: 60, where one-phase methods get 100.
    head_epochs: of the head; None: as the stages.
    stage_optimizer: None: SGD with momentum 0.9 at 0.01, times 0.1 at 0.3, 0.6
      and 0.9 of the stage; the paper's other rule is `optimizers.plateau`.
    head_optimizer: None: the same at 0.1.
    reduction: of the distance, see `losses.squared_distance`.
    statistics_steps: batches from which a stage's statistics are estimated
      when it ends; 0: the running ones stay.
    student: the role that trains.
    teacher: the role it learns from.
  """
  count = num_stages if cut is None else len(cut)
  share = recipe.epochs / (count + 1)
  stage_recipe = recipe._replace(
    epochs=share if stage_epochs is None else stage_epochs,
    optimizer=stage_optimizer or _paper(0.01, 5e-4),
  )

  def boundaries(carry: Carry) -> Cut:
    return _boundaries(recipe, carry, num_stages, cut, (student, teacher))

  def first(number: int) -> Callable[[Carry], Cut]:
    return lambda carry: boundaries(carry)[:number]

  method: Method = ()
  for number in range(1, count + 1):
    method += _match(
      stage_recipe,
      f'stage{number}',
      first(number),
      all_at_once=False,
      reduction=reduction,
      statistics_steps=statistics_steps,
      student=student,
      teacher=teacher,
    )
  head = _head(
    recipe._replace(epochs=share if head_epochs is None else head_epochs),
    lambda carry: _behind(carry[student].network, boundaries(carry)[-1][0]),
    head_optimizer,
    student,
  )
  return (*method, head)


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
    recipe: how.
    num_stages: see `sskd`.
    cut: see `sskd`.
    backbone_epochs: None: the recipe's, but for the head's.
    head_epochs: None: an equal share among the stages and the head.
    stage_optimizer: see `sskd`.
    head_optimizer: see `sskd`.
    reduction: see `sskd`.
    statistics_steps: see `sskd`.
    student: the role that trains.
    teacher: the role it learns from.
  """
  count = num_stages if cut is None else len(cut)
  share = recipe.epochs / (count + 1)

  def boundaries(carry: Carry) -> Cut:
    return _boundaries(recipe, carry, num_stages, cut, (student, teacher))

  return (
    *_match(
      recipe._replace(
        epochs=count * share if backbone_epochs is None else backbone_epochs,
        optimizer=stage_optimizer or _paper(0.01, 5e-4),
      ),
      'backbone',
      boundaries,
      all_at_once=True,
      reduction=reduction,
      statistics_steps=statistics_steps,
      student=student,
      teacher=teacher,
    ),
    _head(
      recipe._replace(epochs=share if head_epochs is None else head_epochs),
      lambda carry: _behind(carry[student].network, boundaries(carry)[-1][0]),
      head_optimizer,
      student,
    ),
  )


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
    recipe: how the classifier is trained.
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

  epochs = recipe.epochs if head_epochs is None else head_epochs
  head = _head(recipe._replace(epochs=epochs), last, head_optimizer, student)
  return (*method, lambda carry: steps.setup_phase('new_head', renew), head)


def _paper(rate: float, weight_decay: float) -> optimizers.Optimizer:
  """SGD with the paper's momentum and schedule."""
  schedule = optimizers.step(rate=rate, boundaries=DROPS)
  return optimizers.sgd(schedule, nesterov=False, weight_decay=weight_decay)


def _boundaries(
  recipe: Recipe,
  carry: Carry,
  num_stages: int,
  cut: pairs.Pairs,
  roles: tuple[str, str],
) -> Cut:
  """The boundaries, checked.

  Raises:
    UsageError: there are too few groups, or the user's boundaries do not exist
      or do not increase.
  """
  student, teacher = (joint.model_in(carry, role).network for role in roles)
  pair = terms_lib.pair_of(student, teacher, recipe)
  chosen = pairs.middle_cut(pair, cut)
  if cut is None:
    if not 0 < num_stages <= len(chosen):
      raise UsageError(
        f'num_stages: {num_stages}; the student has '
        f'{len(pairs.middle(student, pair.student_shapes))} groups of maps and '
        f'the teacher {len(pairs.middle(teacher, pair.teacher_shapes))}: '
        f'choose 1 to {len(chosen)}, or name the boundaries as cut'
      )
    chosen = chosen[-num_stages:]
  if not chosen:
    raise UsageError('cut: wanted at least one boundary')
  for network, side, k in ((student, 'student', 0), (teacher, 'teacher', 1)):
    for start, stop in zip((('image', 'image'), *chosen), chosen):
      try:
        staged.stages_between(network, start[k], stop[k])
      except UsageError as error:
        raise UsageError(f'cut: of the {side}, {error}') from None
  if not _behind(student, chosen[-1][0]):
    raise UsageError(
      f'cut: {chosen[-1][0]!r} is the end of the student: no head is left'
    )
  return chosen


def _behind(network: Network, feature: str) -> tuple[str, ...]:
  """The stages behind a boundary."""
  before = staged.stages_between(network, 'image', feature)
  return staged.stage_names(network)[len(before) :]


def _match(
  recipe: Recipe,
  name: str,
  boundaries: Callable[[Carry], Cut],
  *,
  all_at_once: bool,
  reduction: str,
  statistics_steps: int,
  student: str,
  teacher: str,
) -> Method:
  """Phases that make the student's features those of the teacher.

  Args:
    recipe: how.
    name: of the phase.
    boundaries: carry -> those up to the last that is looked at.
    all_at_once: whether all are matched and all stages train, or the last.
    reduction: of the distance.
    statistics_steps: of the second phase.
    student: the role that trains.
    teacher: the role it learns from.
  """

  roles = (student, teacher)

  def trained(carry: Carry) -> tuple[str, ...]:
    cut = boundaries(carry)
    start = 'image' if all_at_once or len(cut) == 1 else cut[-2][0]
    return staged.stages_between(carry[student].network, start, cut[-1][0])

  def phase(carry: Carry) -> Phase:
    cut = boundaries(carry)
    matched = cut if all_at_once else cut[-1:]
    current = trained(carry)
    networks = {role: carry[role].network for role in roles}
    pair = terms_lib.pair_of(networks[student], networks[teacher], recipe)
    adapters = _adapters(pair, matched)
    ours_needed = staged.stages_between(networks[student], 'image', cut[-1][0])
    needed = staged.stages_between(networks[teacher], 'image', cut[-1][1])

    def loss_fn(variables, batches, rng, progress):
      del progress
      image = {'image': batches['train']['image']}
      theirs, _ = staged.run(
        networks[teacher], variables[teacher], image, only=needed
      )
      ours, updates = staged.run(
        networks[student],
        variables[student],
        image,
        only=ours_needed,
        train=current,
        rngs={'dropout': rng},
      )
      adapted, _ = staged.run(
        adapters,
        variables.get('helpers', {}),
        {f'student/{k}': v for k, v in ours.items()},
        train=True,
      )
      metrics, total = {}, 0.0
      for i, (s, t) in enumerate(matched):
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
      networks=networks,
      trainable={student: current},
      helpers=(adapters, terms_lib.inputs(pair)) if adapters.stages else None,
    )
    return made._replace(views=_partial(pair, cut[-1], adapters, roles))

  def statistics(carry: Carry) -> Phase:
    network, variables = carry[student]
    stages = trained(carry)
    normed = any(s in variables.get('batch_stats', {}) for s in stages)
    return steps.statistics_phase(
      f'{name}_statistics',
      network,
      stages,
      role=student,
      num_steps=statistics_steps if normed else 0,
      stream=recipe.stream,
    )

  return (phase, statistics)


def _adapters(pair: terms_lib.Pair, matched: Cut) -> Network:
  """The helpers of those pairs whose shapes differ."""
  return Network(
    tuple(
      Stage(
        f'adapter{i}',
        helpers.Adapter(pairs.map_shape(pair.teacher_shapes, t)),
        (f'student/{s}',),
      )
      for i, (s, t) in enumerate(matched)
      if _differ(pair, s, t)
    )
  )


def _differ(pair: terms_lib.Pair, s: str, t: str) -> bool:
  return pair.student_shapes[s].shape != pair.teacher_shapes[t].shape


def _partial(
  pair: terms_lib.Pair,
  boundary: tuple[str, str],
  adapters: Network,
  roles: tuple[str, str],
) -> dict[str, Callable[[steps.GradientState, PyTree], Model]]:
  """The view of the student so far under the teacher's remaining stages.

  The last adapter stands between them. There is no view where the teacher's
  remaining stages read what is not there, or a vector.
  """
  student, teacher = roles
  ours = staged.stages_between(pair.student, 'image', boundary[0])
  theirs = staged.stages_between(pair.teacher, 'image', boundary[1])
  stages = pair.student.stages[: len(ours)]
  if _differ(pair, *boundary):
    stages += (adapters.stages[-1]._replace(inputs=()),)
  part = Network(stages)

  def view(state: steps.GradientState, frozen: PyTree) -> Model:
    variables = staged.merge(
      state.variables[student], state.variables.get('helpers', {})
    )
    variables = staged.select(variables, staged.stage_names(part))
    whole = Model(pair.teacher, frozen[teacher])
    return staged.splice(whole, theirs[0], theirs[-1], Model(part, variables))

  try:
    whole, nothing = Model(pair.teacher, {}), Model(part, {})
    staged.splice(whole, theirs[0], theirs[-1], nothing)
  except UsageError:
    return {}
  is_map = len(pair.teacher_shapes[boundary[1]].shape) == 4
  return {'partial': view} if is_map else {}


def _head(
  recipe: Recipe,
  stages: Callable[[Carry], Sequence[str]],
  optimizer: optimizers.Optimizer | None,
  student: str,
) -> Callable[[Carry], Phase]:
  """The phase that trains some last stages on labels, the rest fixed."""
  optimizer = optimizer or _paper(0.1, 1e-4)

  def phase(carry: Carry) -> Phase:
    network = joint.model_in(carry, student).network
    current = tuple(stages(carry))

    def loss_fn(variables, batches, rng, progress):
      del progress
      features, updates = staged.run(
        network,
        variables[student],
        {'image': batches['train']['image']},
        train=current,
        rngs={'dropout': rng},
      )
      answer = features[staged.output(network)]
      loss = recipe.task.loss(answer, batches['train']).mean()
      found = joint.score(recipe, answer, batches['train'])
      return loss, ({student: updates}, found)

    return steps.gradient_phase(
      'head',
      loss_fn,
      optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks={student: network},
      trainable={student: current},
    )

  return phase
