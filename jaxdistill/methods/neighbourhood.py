"""Neighbourhood Distillation: all pieces of a student at once, each by itself.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, https://arxiv.org/abs/2010.01189

Eq. 1 -> `networks.neighbourhoods.layout`, eq. 2 -> `analysis.perturbation`,
eq. 3 -> `terms.tempered` beside the labels, eq. 4 -> `losses.squared_distance`
in `_distances`, eq. 5 -> `_distances`.
"""

from collections.abc import Sequence

from jaxdistill import optimizers, steps
from jaxdistill.methods import joint, pieces
from jaxdistill.terms import pairs
from jaxdistill.types import Method, Model, Recipe, UsageError


def neighbourhood(
  recipe: Recipe,
  *,
  cut: pairs.Pairs = None,
  by_layers: bool = False,
  copy_same: bool = False,
  initial: str = 'random',
  look_ahead: Sequence[float] = (),
  inputs: str = 'data',
  neighbourhood_epochs: float | None = None,
  neighbourhood_optimizer: optimizers.Optimizer | None = None,
  statistics_steps: int = 100,
  fine_tune: Method = (),
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Each piece of the student learns its piece of the teacher, in one step.

    L_i = mean (S_i(a) - T_i(a))**2 + sum_j c_j L_ij,   a = T_(i-1)(... T_1(x))

  Equation (5) of Neighbourhood Distillation, for all pieces i at once; L_ij
  compares what the teacher's next j pieces make of the two. The student's
  pieces are then put together; what lies outside them is the teacher's. The
  student is kept as 'distilled' when the pieces are put together, and, where it
  is fine-tuned, as 'reestimated' after its batch statistics are estimated anew
  on its own activations, so that each is measured beside the one that ends.

  The optimiser should treat each parameter by itself (no clipping by the global
  norm): then the pieces learn as if each were alone.

  Our choices where the paper is silent: no weights in `look_ahead`, as its main
  tables seem to have none; 1 for each where it has two.

  Args:
    recipe: how; but its optimiser is used by `fine_tune` alone.
    cut: see `networks.neighbourhoods.layout`.
    by_layers: whether the residual blocks of both are taken apart into layers
      first, see `networks.layerwise.by_layers`.
    copy_same: see `networks.neighbourhoods.layout`.
    initial: 'random', or 'teacher': the pieces begin with the teacher's
      variables wherever name and shape agree.
    look_ahead: c_1, c_2, ...
    inputs: 'data': the teacher's activations; 'gaussian': standard normal
      noise in their place, without any image; 'rectified': such noise where it
      is above 0. With noise the student's statistics are fixed before, to
      those of noise; with `initial='teacher'` to the teacher's where shapes
      agree.
    neighbourhood_epochs: None: the recipe's.
    neighbourhood_optimizer: None: SGD with momentum 0.9 at 1e-3, as in the
      paper, and its weight decay of 1e-4, here of all parameters.
    statistics_steps: batches from which the statistics are estimated anew; 0:
      they stay as they are. On noise, batches of noise, before the pieces
      learn; at least 1.
    fine_tune: what the whole student is trained by in the end; a section in a
      config. The paper: Equation (3), `joint` with the term `tempered`.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: a choice that does not exist, or what `layout` refuses.
  """
  if inputs != 'data' and statistics_steps < 1:
    raise UsageError('statistics_steps: noise needs at least 1, got 0')
  plan = pieces.Plan(
    recipe=pieces.train_recipe(
      recipe, neighbourhood_epochs, neighbourhood_optimizer
    ),
    cut=cut,
    copy_same=copy_same,
    look_ahead=tuple(look_ahead),
    inputs=inputs,
    teacher=teacher,
  )
  method: Method = (
    lambda carry: pieces.compose_phase(
      plan,
      carry,
      lambda rng, carry: {student: joint.model_in(carry, student)},
      by_layers=by_layers,
      initial=initial,
    ),
  )

  def statistics(carry):
    return pieces.statistics_phase(
      plan, carry, student, statistics_steps, copies=initial == 'teacher'
    )

  def train(carry):
    return pieces.train_phase(plan, carry, (student,))

  if inputs != 'data':
    return (*method, statistics, train, *_then(fine_tune, 'distilled', student))
  method += (train,)
  if statistics_steps:
    method += (pieces.keep('distilled', student), statistics)
  kept = 'reestimated' if statistics_steps else 'distilled'
  return method + _then(fine_tune, kept, student)


def from_teacher(
  recipe: Recipe,
  *,
  method: Method,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Any method, whose student begins as its teacher.

  It takes the teacher's variables wherever name and shape agree, as the pieces
  of `neighbourhood` do with `initial='teacher'`: the end-to-end rival of
  sparse neighbourhoods.

  Args:
    recipe: not used.
    method: what follows; a section in a config.
    student: the role that trains.
    teacher: the role whose variables it takes.
  """

  def begin(rng, carry):
    del rng
    model, source = (joint.model_in(carry, k) for k in (student, teacher))
    variables = pieces.where_alike(model.variables, source.variables)
    return {student: Model(model.network, variables)}

  del recipe
  return (lambda carry: steps.setup_phase('from_teacher', begin), *method)


def _then(method: Method, kept: str, student: str) -> Method:
  """A method after the student so far is kept, where there is one."""
  return (pieces.keep(kept, student), *method) if method else ()
