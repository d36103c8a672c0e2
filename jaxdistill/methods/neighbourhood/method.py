"""Neighbourhood Distillation: all parts of a student at once, each by itself.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, https://arxiv.org/abs/2010.01189

Equation 1 is `layouts.layout`, equation 2 is `perturbation.perturbed`, equation
3 is `objectives.tempered` added to the loss of the labels, equation 4 is
`losses.squared_distance`, applied in `forward.distances`, and equation 5 is
`neighbourhood`.
"""

from collections.abc import Sequence

from jaxdistill import optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.types import (
  Array,
  Carry,
  FeaturePairs,
  Method,
  Model,
  Phase,
  Recipe,
)
from jaxdistill.methods.neighbourhood import piece_phases
from jaxdistill.methods.neighbourhood.plan import INITIAL, Plan, train_recipe


def neighbourhood(
  recipe: Recipe,
  *,
  cut: FeaturePairs | None = None,
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
  """Trains each part of the student to match its part of the teacher.

    L_i = mean (S_i(a) - T_i(a))**2 + sum_j c_j L_ij,   a = T_(i-1)(... T_1(x))

  Equation (5) of Neighbourhood Distillation, for all parts i at once; L_ij
  compares the outputs of the teacher's next j parts on top of S_i and of T_i.
  The trained parts then form the student, and everything outside them is the
  teacher's.

  The parts can be trained by jobs of their own, with `--piece`, and are then
  put together by the usual command.

  It takes one phase for the parts, a short one that re-estimates batch
  statistics, and those of `fine_tune`. The student is kept as 'distilled' after
  the first and, if it is fine-tuned, as 'reestimated' after the second, so that
  each is reported beside the final student.

  The optimizer should treat each parameter by itself, without clipping the
  global norm; then each part learns as if it were trained alone.

  Where the paper is silent, this is our choice: `look_ahead` is empty, as it
  seems to be in the paper's main tables; where the paper looks two parts ahead,
  use a weight of 1 for each.

  Args:
    recipe: how the student is trained. Its optimizer is used only by
      `fine_tune`.
    cut: the boundaries between parts, see `layouts.layout`.
    by_layers: whether the residual blocks of both networks are first split into
      layers, see `layerwise.by_layers`.
    copy_same: see `layouts.layout`.
    initial: 'random', or 'teacher': the parts start with the teacher's
      variables wherever name and shape agree.
    look_ahead: the weights c_1, c_2, ... of the losses that compare outputs
      after one, two, ... more parts of the teacher; empty means no such losses.
    inputs: what the parts read. 'data' means the teacher's activations on
      images. The others need no images: 'moments' is noise with the means and
      standard deviations that the teacher's batch norms remember, see
      `moments.noise_features`; 'image' is standard normal noise in place of the
      image, carried through the teacher; 'gaussian', the paper's, is standard
      normal noise in place of each activation; 'rectified' is its positive
      part. In every case the parts are in training mode while they learn, and
      evaluation uses the batch statistics of what they learned from: the two
      are the same map, whatever the noise.
    neighbourhood_epochs: the epochs of the parts; None means the recipe's.
    neighbourhood_optimizer: the optimizer of the parts; None means the paper's
      SGD with momentum 0.9, rate 1e-3 and weight decay 1e-4, which applies to
      all parameters here.
    statistics_steps: the number of batches from which the statistics are
      re-estimated; 0 keeps the running ones. With noise they are batches of
      noise.
    fine_tune: the method that trains the whole student at the end; a section in
      a config. The paper's is its equation 3: `joint` with the term `tempered`.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: a number or choice is invalid. When the first phase begins:
      `layouts.layout` rejects the networks.
  """
  checks.integer('statistics_steps', statistics_steps, at_least=0)
  plan = Plan(
    recipe=train_recipe(recipe, neighbourhood_epochs, neighbourhood_optimizer),
    cut=cut,
    copy_same=copy_same,
    look_ahead=tuple(look_ahead),
    inputs=inputs,
    teacher=teacher,
  )

  def compose(carry: Carry) -> Phase:
    checks.choice('initial', initial, INITIAL)
    return piece_phases.compose_phase(
      plan,
      carry,
      lambda rng, carry: {student: phases.model_in(carry, student)},
      by_layers=by_layers,
      from_teacher=(student,) if initial == 'teacher' else (),
    )

  def statistics(carry: Carry) -> Phase:
    return piece_phases.statistics_phase(plan, carry, student, statistics_steps)

  def pieces(carry: Carry) -> dict[str, dict[str, tuple[str, ...]]]:
    layout = piece_phases.layout_of(plan, carry, student)
    return {piece.name: {student: piece.student} for piece in layout.trained}

  def train(carry: Carry, piece: str | None) -> Phase:
    phase = piece_phases.train_phase(plan, carry, (student,), piece)
    # A student with one trained piece says nothing about the whole.
    return phase if piece is None else phase._replace(eval_models={})

  method: Method = (compose, phases.InParts(pieces, train))
  if statistics_steps:
    method += (phases.keep('distilled', student), statistics)
  kept = 'reestimated' if statistics_steps else 'distilled'
  return method + _fine_tuned(fine_tune, kept, student)


def from_teacher(
  recipe: Recipe,
  *,
  method: Method,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Runs any method with a student that starts with the teacher's variables.

  It copies them wherever name and shape agree, as `neighbourhood` does with
  `initial='teacher'`. The paper compares sparse neighbourhoods with such a
  student, trained end to end. It takes no steps besides those of `method`.

  Args:
    recipe: not used.
    method: trains the student; a section in a config.
    student: the role of the network that trains.
    teacher: the role of the network whose variables it starts with.
  """

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    del rng
    model, source = (phases.model_in(carry, k) for k in (student, teacher))
    variables = piece_phases.where_equal(model.variables, source.variables)
    return {student: Model(model.network, variables)}

  del recipe
  return (lambda carry: phases.setup_phase('from_teacher', models), *method)


def _fine_tuned(method: Method, kept: str, student: str) -> Method:
  """Keeps the student so far and fine-tunes it, if there is a method."""
  return (phases.keep(kept, student), *method) if method else ()
