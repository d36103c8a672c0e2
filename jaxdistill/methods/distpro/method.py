"""The methods `distpro`, `distpro_search` and `distpro_retrain`.

Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via Meta
Optimization, 2022, https://arxiv.org/abs/2204.05547

Equation 2 is `process.biased_softmax` and `pathways.losses`, equation 4 is
`phases.bilevel.look_ahead`, equation 5 is `phases.bilevel.difference`, equation
3 is `distpro_search`, and Algorithm 1 is `distpro`.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from jaxdistill import objectives, optimizers, phases
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Method, Phase, PyTree, Recipe
from jaxdistill.methods.distpro import forward
from jaxdistill.methods.distpro import pathways as pathways_lib
from jaxdistill.methods.distpro import process as process_lib
from jaxdistill.methods.distpro import search_phase as search_lib
from jaxdistill.methods.distpro.process_phases import (
  process_in,
  searching_phase,
  training_phase,
)
from jaxdistill.phases import bilevel
from jaxdistill.phases import terms as terms_lib

Terms = Mapping[str, objectives.Objective]

USES = ('process', 'last', 'equal')


def distpro_search(
  recipe: Recipe,
  *,
  space: pathways_lib.Space | None = None,
  terms: Terms | None = None,
  search_epochs: float | None = None,
  search_weight: float | None = None,
  validation: float = 0.2,
  knots: int | None = None,
  hypergradient: str = 'exact',
  order: str = 'keep',
  normalization: str = 'biased_softmax',
  search_optimizer: optimizers.Optimizer | None = None,
  weights_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Searches for weights of pathways while a student trains.

    min over A of L_val(theta*(A)), theta* = argmin L_train(theta, A)

  Equation (3) of DistPro, one step at a time. The student trains on one part of
  the data, on the labels and all pathways. The raw weights of the pathways
  start at 1 and descend the loss of the labels on the other part, after the
  student's step. Validation images are augmented like training images, as in
  the authors' code, and use the statistics of their batch; only the student's
  own step changes its running statistics.

  It takes one phase, whose steps cost about three times an ordinary step with
  all pathways. The process is put into the carry as 'process' (arrays), and
  reported as the file 'process.json'.

  Args:
    recipe: how the student is trained.
    space: chooses the pathways; None means `pathways.all_pairs()`, which gives
      27 on CIFAR.
    terms: label -> objective: further terms of L_train, which L_val does not
      have. None means no terms.
    search_epochs: the epochs over the training part; None means the recipe's.
      The paper searches for 40 epochs and trains for 240.
    search_weight: the factor on the pathways is this number times L, the number
      of pathways, as for `weight` of `distpro_retrain`. With the same number
      the search minimises the loss that is replayed later, if the labels have
      weight 1 there. None means the factor 1 of the paper's Equation 2.
    validation: the fraction of the examples that the weights learn from, in
      (0, 1). Each step uses one batch of them, or all if they are fewer than
      a batch; their number must then be a multiple of the number of devices.
    knots: the process consists of means over this many equal parts of the
      search, or over all its steps if they are fewer. None means over epochs,
      which keeps little of a short search.
    hypergradient: see `bilevel.look_ahead`.
    order: 'keep' keeps the step with the current weights, which is also the
      look-ahead, as in the paper's equation; 'algorithm1' discards this step
      and repeats it with the new weights.
    normalization: a key of `process.NORMALIZATIONS`, the paper's Table 7.
    search_optimizer: the optimizer of the student; None means the recipe's.
    weights_optimizer: the optimizer of the raw weights; None means Adam at rate
      0.05 with decay rates 0.5 and 0.999 and without weight decay. A plateau
      rule in it watches the validation loss, and does not end the search.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: a choice does not exist, or a number is out of its range.
  """
  if search_weight is not None:
    checks.weights(search_weight=search_weight)
  checks.choice('hypergradient', hypergradient, bilevel.HYPERGRADIENTS)
  checks.choice('order', order, search_lib.ORDERS)
  checks.choice('normalization', normalization, process_lib.NORMALIZATIONS)
  part, streams = search_lib.split(recipe, validation)
  part = part._replace(
    epochs=recipe.epochs if search_epochs is None else search_epochs,
    optimizer=search_optimizer or recipe.optimizer,
  )
  checks.number('search_epochs', part.epochs, above=0)
  if knots is not None:
    checks.integer('knots', knots)
  rules = search_lib.Rules(
    hypergradient,
    order,
    process_lib.NORMALIZATIONS[normalization],
    (weights_optimizer or _adam())(part.num_steps),
  )

  def phase(carry: Carry) -> Phase:
    networks = _forward(carry, part, space, terms or {}, student, teacher)
    factor = 1.0
    if search_weight is not None:
      factor = search_weight * len(networks.paths.paths)
    return searching_phase(
      networks, streams, rules._replace(factor=factor), knots
    )

  return (marks.any_classes_if_all(phase, (terms or {}).values()),)


def distpro_retrain(
  recipe: Recipe,
  *,
  process: str | Mapping[str, Any] | None = None,
  space: pathways_lib.Space | None = None,
  terms: Terms | None = None,
  use: str = 'process',
  start: float = 0.0,
  weight: float = 1.0,
  label_weight: float = 1.0,
  threshold: float | None = 0.5,
  segments: int = 8,
  student: str = 'student',
  teacher: str = 'teacher',
  name: str = 'retrain',
) -> Method:
  """Trains a student on the labels and on pathways weighted by a process.

    label_weight * CE + terms + weight * L * sum_p alpha_p(t) l_p

  The process is stretched to the length of the training. The factor L, the
  number of pathways, is in the authors' code but not in the paper. The search
  uses it only with `search_weight`. It takes one phase of the recipe's length.

  Args:
    recipe: how the student is trained.
    process: a file that a search wrote ('process.json'), or its content; None
      means the process that a search left in the carry.
    space: chooses the pathways, as in the search.
    terms: label -> objective: further terms of the loss, such as 'kd'; None
      means no terms.
    use: 'process'; 'last', its last weights throughout; or 'equal', 1/L for all
      pathways, without a process or threshold.
    start: the fraction of the search, in [0, 1), that is left out at its
      beginning with `use='process'`; the rest is stretched over the whole
      training. In the paper it is 0. A larger value keeps weights out of the
      training that a short search has found before they settled. It
      is 0 for other uses.
    weight: the factor on the pathways.
    label_weight: the factor on the loss of the labels.
    threshold: a pathway is dropped at steps where its raw weight is not above
      this, tau in the paper, and costs nothing in segments where it is dropped
      at every step. None drops no pathways.
    segments: the number of parts of the training that have programs of their
      own, without the pathways that are dropped throughout. It does not change
      results.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
    name: the name of the phase.

  Raises:
    UsageError: an argument is out of its range, the file is not a process, or,
      when the phase begins, its pathways are not those of the space.
  """
  checks.weights(weight=weight, label_weight=label_weight)
  checks.choice('use', use, USES)
  _check_start(start, (use,))
  checks.integer('segments', segments)
  if threshold is not None:
    checks.number('threshold', threshold)
  loaded = None
  if process is not None and use != 'equal':
    loaded = (
      process_lib.load(process)
      if isinstance(process, str)
      else process_lib.from_json(process)
    )

  def phase(carry: Carry) -> Phase:
    networks = _forward(carry, recipe, space, terms or {}, student, teacher)
    networks = networks._replace(label_weight=label_weight)
    paths = networks.paths.paths
    if use == 'equal':
      chosen = process_lib.equal(paths)
    else:
      chosen = loaded or process_in(carry)
      process_lib.check_layout(chosen, paths)
      chosen = (
        process_lib.last(chosen)
        if use == 'last'
        else process_lib.after(chosen, start)
      )
    factor = weight * len(paths)
    tau = None if use == 'equal' else threshold
    return training_phase(name, networks, chosen, factor, tau, segments)

  return (marks.any_classes_if_all(phase, (terms or {}).values()),)


def distpro(
  recipe: Recipe,
  *,
  process: str | Mapping[str, Any] | None = None,
  space: pathways_lib.Space | None = None,
  terms: Terms | None = None,
  search_epochs: float | None = None,
  search_weight: float | None = None,
  validation: float = 0.2,
  knots: int | None = None,
  hypergradient: str = 'exact',
  order: str = 'keep',
  normalization: str = 'biased_softmax',
  search_optimizer: optimizers.Optimizer | None = None,
  weights_optimizer: optimizers.Optimizer | None = None,
  use: str | Sequence[str] = 'process',
  start: float = 0.0,
  weight: float = 1.0,
  label_weight: float = 1.0,
  threshold: float | None = 0.5,
  segments: int = 8,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Searches for a process, then trains the student from the start with it.

  This is Algorithm 1 of the paper. It takes the phase of `distpro_search` and
  that of `distpro_retrain`; with `process` it takes only the second. One search
  can serve both kinds of `use`: then a student is trained for each of them.

  Args:
    recipe: how the student is trained; its epochs are those of the training.
    process: a process that was found before, maybe with other data or networks.
      Then nothing is searched. See `distpro_retrain`.
    space: see `distpro_search`.
    terms: label -> objective: further terms of both training losses.
    search_epochs: the epochs of the search; None means a sixth of the recipe's.
    search_weight: see `distpro_search`.
    validation: see `distpro_search`.
    knots: see `distpro_search`.
    hypergradient: see `distpro_search`.
    order: see `distpro_search`.
    normalization: see `distpro_search`.
    search_optimizer: see `distpro_search`.
    weights_optimizer: see `distpro_search`.
    use: 'process' or 'last', see `distpro_retrain`; or both, in any order. The
      student of the last entry is handed on, and the other one gets the name of
      its entry as its role.
    start: see `distpro_retrain`; the entry 'last' of both does not need it.
    weight: see `distpro_retrain`.
    label_weight: see `distpro_retrain`.
    threshold: see `distpro_retrain`.
    segments: see `distpro_retrain`.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: see `distpro_search` and `distpro_retrain`.
  """
  uses = (use,) if isinstance(use, str) else tuple(use)
  _check_uses(uses)
  _check_start(start, uses)
  starts = {'process': start}
  retrain = functools.partial(
    distpro_retrain,
    recipe,
    process=process,
    space=space,
    terms=terms,
    weight=weight,
    label_weight=label_weight,
    threshold=threshold,
    segments=segments,
    teacher=teacher,
  )
  training: Method = ()
  for role in uses[:-1]:
    training += (
      phases.keep(role, student),
      *retrain(
        use=role,
        start=starts.get(role, 0.0),
        student=role,
        name=f'retrain_{role}',
      ),
    )
  training += retrain(
    use=uses[-1], start=starts.get(uses[-1], 0.0), student=student
  )
  if process is not None:
    return training
  search = distpro_search(
    recipe,
    space=space,
    terms=terms,
    search_epochs=recipe.epochs / 6 if search_epochs is None else search_epochs,
    search_weight=search_weight,
    validation=validation,
    knots=knots,
    hypergradient=hypergradient,
    order=order,
    normalization=normalization,
    search_optimizer=search_optimizer,
    weights_optimizer=weights_optimizer,
    student=student,
    teacher=teacher,
  )

  def search_only(carry: Carry) -> Phase:
    """Evaluates the student of the search but does not hand it on."""
    phase = search[0](carry)

    def finish(state: PyTree, frozen: PyTree, carry: Carry) -> Carry:
      return {**phase.finish(state, frozen, carry), student: carry[student]}

    return phase._replace(
      finish=finish, eval_models={'searched': phase.eval_models[student]}
    )

  return (marks.any_classes_if_all(search_only, search), *training)


def _check_uses(uses: tuple[str, ...]) -> None:
  """Raises UsageError if these are not different uses of a process."""
  if 'equal' in uses:
    raise UsageError(
      "use: expected 'process' or 'last', got 'equal', which needs no search; "
      'use the method distpro_retrain'
    )
  for use in uses:
    checks.choice('use', use, USES)
  if not uses or len(set(uses)) < len(uses):
    raise UsageError(
      f"use: expected 'process', 'last' or both, got {list(uses)}"
    )


def _check_start(start: float, uses: tuple[str, ...]) -> None:
  """Raises UsageError if a process cannot be replayed from there."""
  checks.number('start', start, at_least=0, below=1)
  if start and 'process' not in uses:
    raise UsageError(
      f'start: expected 0 with use={uses[0]!r}, which replays no process, got '
      f'{start}'
    )


def _forward(
  carry: Carry,
  recipe: Recipe,
  space: pathways_lib.Space | None,
  terms: Terms,
  student: str,
  teacher: str,
) -> forward.Forward:
  """Builds the pathways and terms of the two networks in the carry."""
  student_network, teacher_network = (
    phases.model_in(carry, role).network for role in (student, teacher)
  )
  if not all(map(marks.allows_any_classes, terms.values())):
    phases.check_outputs(student_network, teacher_network, recipe)
  pair = objectives.pair_of(student_network, teacher_network, recipe)
  paths = pathways_lib.build(pair, space or pathways_lib.all_pairs())
  built_terms = terms_lib.build(terms, pair)
  return forward.Forward(pair, paths, built_terms, recipe, student, teacher)


def _adam() -> optimizers.Optimizer:
  """Returns the default optimizer of the raw weights."""
  return optimizers.adamw(
    optimizers.constant(rate=0.05), b1=0.5, b2=0.999, weight_decay=0.0
  )
