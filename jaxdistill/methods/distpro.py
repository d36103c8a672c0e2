"""DistPro: a distillation process is searched, then replayed.

Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via Meta
Optimization, 2022, https://arxiv.org/abs/2204.05547

Eq. 2 -> `process.biased_softmax`, `terms.pathways.losses`; eq. 4 ->
`bilevel.look_ahead`; eq. 5 -> `bilevel.difference`; eq. 3, Algorithm 1 -> here.
"""

from collections.abc import Mapping
import functools
import math
from typing import Any

import numpy as np

from jaxdistill import bilevel, optimizers, steps
from jaxdistill import process as process_lib
from jaxdistill import search as search_lib
from jaxdistill import terms as terms_lib
from jaxdistill.methods import joint
from jaxdistill.networks import arguments, staged
from jaxdistill.process import Process
from jaxdistill.terms import forward
from jaxdistill.terms import pathways as pathways_lib
from jaxdistill.types import (
  Carry,
  Method,
  Phase,
  PyTree,
  Recipe,
  Stream,
  UsageError,
)

USES = ('process', 'last', 'equal')


def search(
  recipe: Recipe,
  *,
  space: pathways_lib.Space | None = None,
  search_epochs: float | None = None,
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
  """Searches a process while a student trains, and leaves it in the carry.

    min over A of L_val(theta*(A)), theta* = argmin L_train(theta, A)

  Equation (3) of DistPro, one step at a time. The student trains on a part of
  the data on labels and all pathways; the raw weights, 1 at first, descend the
  gradient of the loss of labels on the other part behind the student's step.
  Validation uses images augmented as those of training, as the authors' code
  does, and the statistics of its batch; only the student's own step changes
  running ones.

  The carry's 'process' holds arrays; 'process.json' is the report.

  Args:
    recipe: how.
    space: the pathways; None: `terms.pathways.all_pairs()`, 27 on CIFAR.
    search_epochs: of the training part; None: the recipe's. The paper: 40 for
      240 of training.
    validation: share of the examples that the weights learn from, a batch at
      a time, or all of them where they are fewer.
    knots: means over so many equal parts of the search make the process, or all
      its steps if they are fewer; None: over epochs, which leaves little of a
      search of few.
    hypergradient: see `bilevel.look_ahead`.
    order: 'keep': the step with the weights so far is the look-ahead and stays,
      as the paper's equation has it; 'algorithm1': it is thrown away and taken
      again with the new weights.
    normalization: a key of `process.NORMALIZATIONS`, the paper's Table 7.
    search_optimizer: of the student; None: the recipe's.
    weights_optimizer: of the raw weights; None: Adam at 0.05, decays 0.5 and
      0.999 and no weight decay.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: a choice does not exist, or a share is none.
  """
  for what, value, valid in (
    ('hypergradient', hypergradient, bilevel.HYPERGRADIENTS),
    ('order', order, search_lib.ORDERS),
    ('normalization', normalization, process_lib.NORMALIZATIONS),
  ):
    if value not in valid:
      raise staged.unknown(what, value, valid)
  part, streams = search_lib.split(recipe, validation)
  part = part._replace(
    epochs=recipe.epochs if search_epochs is None else search_epochs,
    optimizer=search_optimizer or recipe.optimizer,
  )
  if not 0 < part.epochs < math.inf:
    raise UsageError(f'search_epochs: {search_epochs} is no number above 0')
  if knots is not None:
    arguments.whole('knots', knots)
  rules = search_lib.Rules(
    hypergradient,
    order,
    process_lib.NORMALIZATIONS[normalization],
    (weights_optimizer or _adam())(part.num_steps),
  )

  def phase(carry: Carry) -> Phase:
    task = _task(carry, part, space, student, teacher)
    return _search(task, streams, rules, knots)

  return (phase,)


def retrain(
  recipe: Recipe,
  *,
  process: str | Mapping[str, Any] | None = None,
  space: pathways_lib.Space | None = None,
  use: str = 'process',
  weight: float = 1.0,
  label_weight: float = 1.0,
  threshold: float | None = 0.5,
  segments: int = 8,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Trains a student on labels and on pathways weighted by a process.

    label_weight * CE + weight * L * sum_p alpha_p(t) l_p

  The process is stretched to the length of the training. The factor L, the
  number of pathways, is the authors' code's; the paper does not name it. The
  search knows of no such factor.

  Args:
    recipe: how.
    process: a file that a search wrote ('process.json'), or what it holds;
      None: what a search left in the carry.
    space: the pathways, as in the search.
    use: 'process'; 'last': its last weights throughout; 'equal': 1/L for all,
      without a process or threshold.
    weight: factor on the pathways.
    label_weight: factor on the loss of the labels.
    threshold: a pathway is dropped where its raw weight is not above it, and
      costs nothing in a segment in which it is dropped; the paper's tau. None:
      none is dropped.
    segments: parts of the training, each a program of its own, that leave out
      the pathways dropped throughout it. Their number changes no result.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: the process is none, or its pathways are not those of the space
      in these networks.
  """
  if use not in USES:
    raise staged.unknown('use', use, USES)
  arguments.whole('segments', segments)
  arguments.real('weight', weight, 0)
  arguments.real('label_weight', label_weight, 0)
  if threshold is not None:
    arguments.real('threshold', threshold)
  given = None
  if process is not None and use != 'equal':
    given = (
      process_lib.load(process)
      if isinstance(process, str)
      else process_lib.from_json(process)
    )

  def phase(carry: Carry) -> Phase:
    task = _task(carry, recipe, space, student, teacher)
    paths = task.paths.paths
    if use == 'equal':
      chosen = process_lib.equal(paths)
    else:
      chosen = given or _carried(carry)
      process_lib.check_layout(chosen, paths)
      chosen = process_lib.last(chosen) if use == 'last' else chosen
    factors = (label_weight, weight * len(paths))
    tau = None if use == 'equal' else threshold
    return _retrain(task, chosen, factors, tau, segments)

  return (phase,)


def distpro(
  recipe: Recipe,
  *,
  process: str | Mapping[str, Any] | None = None,
  space: pathways_lib.Space | None = None,
  search_epochs: float | None = None,
  validation: float = 0.2,
  knots: int | None = None,
  hypergradient: str = 'exact',
  order: str = 'keep',
  normalization: str = 'biased_softmax',
  search_optimizer: optimizers.Optimizer | None = None,
  weights_optimizer: optimizers.Optimizer | None = None,
  use: str = 'process',
  weight: float = 1.0,
  label_weight: float = 1.0,
  threshold: float | None = 0.5,
  segments: int = 8,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Algorithm 1: a search, then training from the start with its process.

  The other arguments are those of `search` and `retrain`.

  Args:
    recipe: how; its epochs are those of the training.
    process: one that was found before, on this or other data and networks;
      nothing is searched then.
    search_epochs: None: a sixth of the recipe's.
    use: 'process' or 'last'.

  Raises:
    UsageError: see `search` and `retrain`.
  """
  if use == 'equal':
    raise UsageError("use: 'equal' needs no search; choose distpro_retrain")
  retrained = retrain(
    recipe,
    process=process,
    space=space,
    use=use,
    weight=weight,
    label_weight=label_weight,
    threshold=threshold,
    segments=segments,
    student=student,
    teacher=teacher,
  )
  if process is not None:
    return retrained
  searched = search(
    recipe,
    space=space,
    search_epochs=recipe.epochs / 6 if search_epochs is None else search_epochs,
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

  def apart(carry: Carry) -> Phase:
    """The searched student is looked at, and not handed on."""
    made = searched[0](carry)

    def finish(state: PyTree, frozen: PyTree, carry: Carry) -> Carry:
      return {**made.finish(state, frozen, carry), student: carry[student]}

    return made._replace(finish=finish, views={'searched': made.views[student]})

  return (apart, *retrained)


def _task(
  carry: Carry,
  recipe: Recipe,
  space: pathways_lib.Space | None,
  student: str,
  teacher: str,
) -> forward.Forward:
  ours, theirs = (joint.model_in(carry, r).network for r in (student, teacher))
  joint.check_answers(ours, theirs, recipe)
  pair = terms_lib.pair_of(ours, theirs, recipe)
  made = pathways_lib.build(pair, space or pathways_lib.all_pairs())
  return forward.Forward(pair, made, recipe, student, teacher)


def _adam() -> optimizers.Optimizer:
  return optimizers.adamw(
    optimizers.constant(rate=0.05), b1=0.5, b2=0.999, weight_decay=0.0
  )


def _search(
  task: forward.Forward,
  streams: Mapping[str, Stream],
  rules: search_lib.Rules,
  knots: int | None,
) -> Phase:
  recipe, paths = task.recipe, task.paths.paths
  each = recipe.steps_per_epoch
  if knots is not None:
    each = math.ceil(recipe.num_steps / knots)

  def finish(knots: search_lib.Knots, carry: Carry) -> Carry:
    steps_at, raw, weights = map(np.asarray, knots[1:])
    num_steps = int(knots.taken.sum())
    found = Process(paths, steps_at, num_steps, raw, weights)
    return {**carry, 'process': process_lib.to_arrays(found)}

  def report(carry: Carry) -> dict[str, Any]:
    found = _carried(carry)._replace(about=task.about(carry))
    return {'process.json': process_lib.to_json(found)}

  return search_lib.search_phase(
    'search',
    task.train,
    task.validate,
    recipe.optimizer(recipe.num_steps),
    rules,
    num_summands=len(paths),
    num_steps=recipe.num_steps,
    steps_per_knot=each,
    streams=streams,
    networks=task.networks,
    student=task.student,
    helpers=task.helpers,
    finish=finish,
    report=report,
  )


def _carried(carry: Carry) -> Process:
  """The process that a search left.

  Raises:
    UsageError: there is none.
  """
  if 'process' not in carry:
    raise UsageError(
      "process: give a file that a search wrote ('process.json'), or choose "
      "the method distpro, which searches first, or use='equal'"
    )
  return process_lib.from_arrays(carry['process'])


def _retrain(
  task: forward.Forward,
  process: Process,
  factors: tuple[float, float],
  threshold: float | None,
  segments: int,
) -> Phase:
  """The phase that replays a process, each segment with its own program."""
  num_steps = task.recipe.num_steps
  sets = process_lib.active_sets(
    process, num_steps, threshold=threshold, segments=segments
  )
  optimizer = task.recipe.optimizer(num_steps)

  @functools.cache
  def program(active: tuple[int, ...]) -> Phase:
    def loss_fn(variables, batches, rng, progress):
      (label, summands), (updates, metrics) = task.train(
        variables, batches['train'], rng, active
      )
      share = progress * num_steps / max(1, num_steps - 1)
      weights = process_lib.masked(*process_lib.at(process, share), threshold)
      distance = weights @ summands
      loss = factors[0] * label + factors[1] * distance
      return loss, (updates, {**metrics, 'pathways': distance})

    return steps.gradient_phase(
      'retrain',
      loss_fn,
      optimizer,
      num_steps=num_steps,
      streams={'train': task.recipe.stream},
      networks=task.networks,
      trainable={task.student: None},
      helpers=task.helpers,
    )

  def step(state, frozen, batches, rng, static):
    return program(static).step(state, frozen, batches, rng, None)

  everything = program(tuple(range(len(task.paths.paths))))
  return everything._replace(
    static=lambda step: process_lib.set_at(sets, step, num_steps),
    step=step,
  )
