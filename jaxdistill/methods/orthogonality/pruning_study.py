"""Distillation combined with pruning: before it, after it, both, or by itself.

Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques, 2020, https://arxiv.org/abs/2009.04120

The paper's other half, distillation with image-level regularisation, is
`regularization_study`.
"""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any

from jaxdistill import optimizers, phases
from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  DIFFERENCES,
  Carry,
  Method,
  Phase,
  PhaseBuilder,
  Recipe,
)
from jaxdistill.methods.orthogonality.distillation import (
  KINDS,
  Distillation,
  copied,
  new,
)
from jaxdistill.phases import joint
from jaxdistill.pruning import Pruning, masks

# Column of the paper's tables -> (whether the network is distilled before it is
# pruned, the teacher of the fine-tuning).
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
  """Trains every network that the paper's tables of pruning compare.

  The network 'scratch' learns the labels. 'label' and 'feature' are new
  networks of the same kind that are distilled from 'scratch'. Then each pruning
  p gives the networks

    p.finetuned       scratch, pruned, learns the labels
    p.KIND.pre        KIND, pruned, learns the labels
    p.KIND.post       scratch, pruned, is distilled from scratch
    p.KIND.pre_post   KIND, pruned, is distilled from scratch
    p.KIND.self       KIND, pruned, is distilled from KIND

  These names are roles of the carry and appear in the results, which also hold
  p.KIND.surplus, see `surplus`. The student that is handed on is the last
  network that was trained.

  It needs no teacher. It takes 1 + K phases of the recipe's length, with K
  kinds, and 1 + 4 K fine-tuning phases for each pruning.

  Where the paper is silent, these are our choices: `alpha`, `temperature` and
  `beta`, which are the same everywhere; a new regressor for each run; the
  network at the last epoch counts, and the best one on the validation split is
  reported beside it.

  Args:
    recipe: how the unpruned networks are trained. Before slimming, its
      optimizer should be `pruning.slim`; fine-tuning has no penalty.
    prunings: label -> how networks are pruned.
    kinds: kinds of distillation: 'label', `losses.soft_target_loss`, and
      'feature', `losses.normalized_l1_loss`.
    columns: which of 'pre', 'post', 'pre_post' and 'self' to train. The surplus
      is only computed with 'self'.
    alpha: the weight of the soft targets, in [0, 1]; that of the labels is
      1 - alpha.
    temperature: the temperature of the soft targets.
    beta: the weight of the feature loss, see `objectives.fd`.
    fine_tune_epochs: the epochs of fine-tuning; None means a quarter of the
      recipe's, like 40 of 160 in the paper.
    fine_tune_optimizer: the optimizer of fine-tuning; None means SGD with
      momentum 0.9, rate 0.001 and weight decay 1e-4. Pruned weights stay zero
      with any optimizer.
    student: the role of the model whose network is used.

  Raises:
    UsageError: a label, kind or column is invalid, a number is out of its
      range, or the network cannot be pruned this way.
  """
  _check(prunings, columns)
  distillation = Distillation(alpha, temperature, beta)
  distillation.check(kinds)
  distil = distillation.method
  base = joint.supervised(recipe, student='scratch', name='scratch')
  method: Method = (_begin(prunings, student), *base)
  for kind in kinds:
    method += (
      new(recipe, kind, 'scratch'),
      *distil(recipe, kind, kind, 'scratch'),
    )
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
  differences = {
    f'{label}.{kind}.surplus': _surplus_factors(label, kind)
    for label in prunings
    for kind in kinds
    if 'self' in columns
  }
  hand_on = copied({student: last}, 'student')
  return (*method, _with_differences(hand_on, differences))


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
  """Runs any method, prunes the student, and fine-tunes it with any method.

  It takes the phases of both methods. A network that consists of plain
  functions can only be pruned by 'magnitude'.

  Args:
    recipe: how the student is trained.
    pruning: how the student is pruned.
    fine_tune: recipe -> the method after pruning; a section in a config.
    method: the method before pruning; None prunes the student as it is.
    fine_tune_epochs: see `pruning_protocol`.
    fine_tune_optimizer: see `pruning_protocol`. If `fine_tune` has optimizers
      of its own, they must be wrapped in `sparse` to keep pruned weights zero.
    student: the role of the model that is pruned.

  Raises:
    UsageError: a number is out of its range; when the method begins: the
      network cannot be pruned this way.
  """
  after = fine_tune(_finetuning(recipe, fine_tune_epochs, fine_tune_optimizer))
  return (
    _checked((pruning,), student),
    *(method or ()),
    _pruned(pruning, student, student),
    *after,
  )


def surplus(scores: Mapping[str, float], pruning: str, kind: str) -> float:
  """Computes how much more distillation gains with pruning than without.

    (self - finetuned) - (distilled - scratch)

  The results of `pruning_protocol` already contain it.

  Args:
    scores: role of `pruning_protocol` -> score, all in one unit.
    pruning: a label of its prunings.
    kind: 'label' or 'feature'.
  """
  factors = _surplus_factors(pruning, kind)
  return sum(factor * scores[role] for role, factor in factors.items())


def _surplus_factors(pruning: str, kind: str) -> dict[str, int]:
  """Expresses `surplus` as role -> factor of its score."""
  return {
    f'{pruning}.{kind}.self': 1,
    f'{pruning}.finetuned': -1,
    kind: -1,
    'scratch': 1,
  }


def _check(prunings: Mapping[str, Pruning], columns: Sequence[str]) -> None:
  """Raises UsageError if a label or column is invalid."""
  if not prunings or not isinstance(prunings, Mapping):
    raise UsageError(
      f'prunings: expected {{label: pruning}}, at least one, got {prunings!r}'
    )
  for label in prunings:
    if not re.fullmatch(r'[\w-]+', label) or label in ('scratch', *KINDS):
      raise UsageError(
        'prunings: expected labels of letters, digits, - and _, other than the '
        f'names of networks, got {label!r}'
      )
  for column in columns:
    checks.choice('column', column, COLUMNS)


def _finetuning(
  recipe: Recipe, epochs: float | None, optimizer: optimizers.Optimizer | None
) -> Recipe:
  """Returns the recipe of fine-tuning, whose optimizer keeps zeros."""
  default = optimizers.sgd(
    optimizers.constant(rate=1e-3), nesterov=False, weight_decay=1e-4
  )
  if epochs is not None:
    checks.number('fine_tune_epochs', epochs, above=0)
  return recipe._replace(
    epochs=recipe.epochs / 4 if epochs is None else epochs,
    optimizer=masks.sparse(optimizer=optimizer or default),
  )


def _begin(prunings: Mapping[str, Pruning], student: str) -> PhaseBuilder:
  """Checks the prunings on the student, which becomes the role 'scratch'."""
  check = _checked(tuple(prunings.values()), student)

  def phase(carry: Carry) -> Phase:
    check(carry)
    return copied({'scratch': student}, 'new_scratch')(carry)

  return phase


def _checked(prunings: Sequence[Pruning], student: str) -> PhaseBuilder:
  """Raises UsageError before anything is trained if a pruning cannot work."""

  def phase(carry: Carry) -> Phase:
    for pruning in prunings:
      pruning.check(phases.model_in(carry, student))
    return phases.setup_phase('check', lambda rng, carry: {})

  return phase


def _with_differences(
  phase_of: PhaseBuilder, differences: Mapping[str, Any]
) -> PhaseBuilder:
  """Makes a phase report which scores the results compare."""
  report = {DIFFERENCES: differences} if differences else {}
  return lambda carry: phase_of(carry)._replace(report=lambda *_: report)


def _pruned(pruning: Pruning, source: str, role: str) -> PhaseBuilder:
  """Prunes the model of one role and stores it in another."""
  return lambda carry: phases.setup_phase(
    f'prune_{role}', lambda rng, carry: {role: pruning.prune(carry[source])}
  )
