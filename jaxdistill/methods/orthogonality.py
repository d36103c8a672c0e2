"""Distillation with pruning: before it, after it, both, and by oneself.

Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques, 2020, https://arxiv.org/abs/2009.04120

Eq. 1 -> `losses.soft_target_loss` beside the labels, eq. 2 ->
`losses.normalized_l1_loss` beside the labels; both in `_distilled`.

Distillation with image-level regularisation, the paper's other half, needs no
method: `teacher.training.augment` says what the teacher was trained with, a
row's `augment` what the student trains with, and both see the same images.
"""

from collections.abc import Callable, Mapping, Sequence
import math
import re
from typing import Any

from jaxdistill import optimizers, steps
from jaxdistill import terms as terms_lib
from jaxdistill.losses import numerics
from jaxdistill.methods import joint
from jaxdistill.networks import arguments, staged
from jaxdistill.pruning import weights
from jaxdistill.pruning.kinds import Pruning
from jaxdistill.types import (
  DIFFERENCES,
  Carry,
  Method,
  Model,
  Phase,
  Recipe,
  UsageError,
)

KINDS = ('label', 'feature')
# Column of the paper's tables -> whether what is pruned was distilled, and the
# teacher of the fine-tuning.
COLUMNS = {
  'pre': (True, ''),
  'post': (False, 'scratch'),
  'pre_post': (True, 'scratch'),
  'self': (True, 'self'),
}


def pruning_protocol(
  recipe: Recipe,
  *,
  prunings: Mapping[str, Pruning],
  kinds: Sequence[str] = KINDS,
  columns: Sequence[str] = tuple(COLUMNS),
  alpha: float = 0.9,
  temperature: float = 4.0,
  beta: float = 500.0,
  fine_tune_epochs: float | None = None,
  fine_tune_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
) -> Method:
  """All columns of the paper's tables of pruning, from one set of networks.

  'scratch' learns the labels; 'label' and 'feature', new networks of the same
  kind, are distilled from it. Then for each pruning p

    p.finetuned       scratch, pruned, learns the labels
    p.KIND.pre        KIND, pruned, learns the labels
    p.KIND.post       scratch, pruned, is distilled from scratch
    p.KIND.pre_post   KIND, pruned, is distilled from scratch
    p.KIND.self       KIND, pruned, is distilled from KIND

  Each is a role of the carry and stands in the results by that name, and so
  does p.KIND.surplus, see `surplus`. The student handed on is the last one
  made.

  Our choices where the paper is silent: `alpha`, `temperature` and `beta`, the
  same ones everywhere; a new regressor for each run; the last epoch counts,
  and the best on validation is told beside it.

  Args:
    recipe: how the unpruned networks are trained. For slimming, its optimiser
      is `pruning.slimming.slim`; fine-tuning is without the penalty.
    prunings: label -> how the networks are pruned.
    kinds: of 'label', `losses.soft_target_loss`, and 'feature',
      `losses.normalized_l1_loss`.
    columns: of 'pre', 'post', 'pre_post', 'self'; the surplus needs the last.
    alpha: weight of the soft targets, and 1 - alpha that of the labels.
    temperature: of the soft targets.
    beta: weight of the features' loss, see `terms.normalized`.
    fine_tune_epochs: after pruning; None: a quarter of the recipe's, as 40 of
      160.
    fine_tune_optimizer: None: SGD with momentum 0.9 at 0.001 and weight decay
      1e-4. Weights that pruning made zero stay zero under any.
    student: the role that gives the network.

  Raises:
    UsageError: a label, kind or column is none, a number is out of its range,
      or the network cannot be pruned so.
  """
  _check(prunings, kinds, columns)
  distil = _distillations(alpha, temperature, beta)
  base = joint.supervised(recipe, student='scratch', name='scratch')
  method: Method = (_begin(prunings, student), *base)
  for kind in kinds:
    method += (_new(recipe, kind), *distil(recipe, kind, kind, 'scratch'))
  fine_tune = _finetuning(recipe, fine_tune_epochs, fine_tune_optimizer)
  for label, pruning in prunings.items():
    last = name = f'{label}.finetuned'
    method += (
      _pruned(pruning, 'scratch', name),
      *joint.supervised(fine_tune, student=name, name=name),
    )
    for kind in kinds:
      for column in columns:
        distilled, teacher = COLUMNS[column]
        source = kind if distilled else 'scratch'
        last = name = f'{label}.{kind}.{column}'
        method += (_pruned(pruning, source, name),)
        if teacher:
          teacher = kind if teacher == 'self' else teacher
          method += distil(fine_tune, kind, name, teacher)
        else:
          method += joint.supervised(fine_tune, student=name, name=name)
  compared = {
    f'{label}.{kind}.surplus': _surplus_factors(label, kind)
    for label in prunings
    for kind in kinds
    if 'self' in columns
  }
  return (*method, _compared(_handed_on({student: last}, 'student'), compared))


def pruned(
  recipe: Recipe,
  *,
  pruning: Pruning,
  fine_tune: Callable[[Recipe], Method],
  method: Method | None = None,
  fine_tune_epochs: float | None = None,
  fine_tune_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
) -> Method:
  """Any method, then pruning, then any method.

  A network of functions alone can be pruned by 'magnitude' only.

  Args:
    recipe: how the first method trains.
    pruning: of the student.
    fine_tune: recipe -> the method after it; a section in a config.
    method: the method before it; None: the student is pruned as it comes.
    fine_tune_epochs: see `pruning_protocol`.
    fine_tune_optimizer: see `pruning_protocol`. A method that has optimisers of
      its own needs `sparse` around them to keep zeros.
    student: the role that is pruned.
  """
  after = fine_tune(_finetuning(recipe, fine_tune_epochs, fine_tune_optimizer))
  return (
    _checked((pruning,), student),
    *(method or ()),
    _pruned(pruning, student, student),
    *after,
  )


def surplus(scores: Mapping[str, float], pruning: str, kind: str) -> float:
  """What distillation gains more with pruning than without.

    (self - finetuned) - (distilled - scratch)

  The results of `pruning_protocol` hold it.

  Args:
    scores: role of `pruning_protocol` -> score, of one unit.
    pruning: a label of its prunings.
    kind: 'label' or 'feature'.
  """
  factors = _surplus_factors(pruning, kind)
  return sum(factor * scores[role] for role, factor in factors.items())


def _surplus_factors(pruning: str, kind: str) -> dict[str, int]:
  """`surplus` as role -> factor of its score."""
  return {
    f'{pruning}.{kind}.self': 1,
    f'{pruning}.finetuned': -1,
    kind: -1,
    'scratch': 1,
  }


def _check(
  prunings: Mapping[str, Pruning],
  kinds: Sequence[str],
  columns: Sequence[str],
) -> None:
  if not prunings or not isinstance(prunings, Mapping):
    raise UsageError('prunings: wanted at least one, {label: pruning}')
  for label in prunings:
    if not re.fullmatch(r'[\w-]+', label) or label in ('scratch', *KINDS):
      raise UsageError(
        f'prunings: {label!r} is no label; wanted letters, digits, - and _, '
        'and not the name of a network'
      )
  for kind in kinds:
    if kind not in KINDS:
      raise staged.unknown('kind of distillation', kind, KINDS)
  for column in columns:
    if column not in COLUMNS:
      raise staged.unknown('column', column, COLUMNS)


def _distillations(
  alpha: float, temperature: float, beta: float
) -> Callable[[Recipe, str, str, str], Method]:
  """(recipe, kind, student, teacher) -> one phase of distillation."""
  if not 0 <= alpha <= 1:
    raise UsageError(f'alpha: {alpha} is not in [0, 1]')
  # Before the first network is trained, which would be lost.
  numerics.check_positive('temperature', temperature)
  arguments.real('beta', beta, 0.0)

  def distil(recipe: Recipe, kind: str, student: str, teacher: str) -> Method:
    soft = terms_lib.soft_target(weight=alpha, temperature=temperature)
    near = terms_lib.normalized(weight=beta)
    return joint.joint(
      recipe,
      terms={kind: soft if kind == 'label' else near},
      label_weight=1 - alpha if kind == 'label' else 1.0,
      student=student,
      teacher=teacher,
      name=student,
    )

  return distil


def _finetuning(
  recipe: Recipe, epochs: float | None, optimizer: optimizers.Optimizer | None
) -> Recipe:
  usual = optimizers.sgd(
    optimizers.constant(rate=1e-3), nesterov=False, weight_decay=1e-4
  )
  if epochs is not None and not 0 < epochs < math.inf:
    raise UsageError(f'fine_tune_epochs: {epochs!r} is no number above 0')
  return recipe._replace(
    epochs=recipe.epochs / 4 if epochs is None else epochs,
    optimizer=weights.sparse(optimizer=optimizer or usual),
  )


def _begin(
  prunings: Mapping[str, Pruning], student: str
) -> Callable[[Carry], Phase]:
  """Checks the prunings on the student, which becomes 'scratch'."""
  check = _checked(tuple(prunings.values()), student)

  def phase(carry: Carry) -> Phase:
    check(carry)
    return _handed_on({'scratch': student}, 'new_scratch')(carry)

  return phase


def _checked(
  prunings: Sequence[Pruning], student: str
) -> Callable[[Carry], Phase]:
  """Raises UsageError before anything is trained."""

  def phase(carry: Carry) -> Phase:
    for pruning in prunings:
      pruning.check(joint.model_in(carry, student))
    return steps.setup_phase('check', lambda rng, carry: {})

  return phase


def _handed_on(roles: Mapping[str, str], name: str) -> Callable[[Carry], Phase]:
  """Role -> the role whose model it becomes."""
  return lambda carry: steps.setup_phase(
    name, lambda rng, carry: {new: carry[old] for new, old in roles.items()}
  )


def _compared(
  make: Callable[[Carry], Phase], differences: Mapping[str, Any]
) -> Callable[[Carry], Phase]:
  """A phase that also reports which scores are to be compared."""
  report = {DIFFERENCES: differences} if differences else {}
  return lambda carry: make(carry)._replace(report=lambda *_: report)


def _new(recipe: Recipe, kind: str) -> Callable[[Carry], Phase]:
  """A new network like 'scratch'."""

  def make(rng: Any, carry: Carry) -> dict[str, Model]:
    network = carry['scratch'].network
    image = {'image': recipe.example['image']}
    return {kind: Model(network, staged.init(network, rng, image))}

  return lambda carry: steps.setup_phase(f'new_{kind}', make)


def _pruned(
  pruning: Pruning, source: str, role: str
) -> Callable[[Carry], Phase]:
  return lambda carry: steps.setup_phase(
    f'prune_{role}', lambda rng, carry: {role: pruning.prune(carry[source])}
  )
