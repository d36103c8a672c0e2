"""The methods of the SSKD paper: `sskd`, its rival, and its ablation.

Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation, 2018,
https://arxiv.org/abs/1812.01819

Equation 4 is `phases.joint.supervised`, applied to the head; equation 6 is
`losses.squared_distance`, which `matching.match_phase` applies to each stage.
"""

from jaxdistill import optimizers, phases
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Boundaries,
  Carry,
  Method,
  Model,
  Phase,
  Recipe,
)
from jaxdistill.methods.sskd.matching import Matching
from jaxdistill.networks import graph
from jaxdistill.phases import joint

DROPS = (0.3, 0.6, 0.9)  # Epochs 18, 36 and 54 of 60.


def sskd(
  recipe: Recipe,
  *,
  num_stages: int = 3,
  cut: Boundaries | None = None,
  stage_epochs: float | None = None,
  head_epochs: float | None = None,
  head: bool = True,
  stage_optimizer: optimizers.Optimizer | None = None,
  head_optimizer: optimizers.Optimizer | None = None,
  reduction: str = 'position_mean',
  statistics_steps: int = 200,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Trains the student stage by stage to match the teacher, then its head.

    min over stage i of ||f_i^T - P_i(f_i^S)||**2, then min over head of loss(y)

  Equation (6) of SSKD for each stage, and Equation (4) of SSKD for the head. A
  finished stage is in inference mode and no longer changes; later stages do not
  run. `P_i` resizes the student's map and, if the numbers of channels differ,
  is a 1x1 convolution; it only serves the loss. While a stage trains, the
  stages so far are evaluated together with the teacher's remaining stages, as
  'partial'.

  It takes one phase for each stage and one for the head, and a short phase
  after each stage that re-estimates its batch statistics.

  Where the paper is silent, these are our choices: `reduction`, because the sum
  in the paper diverges at its learning rate; the re-estimated statistics;
  weight decay 5e-4, and 1e-4 for the head, which trains at rate 0.1.

  Args:
    recipe: how the student is trained. Its optimizer is not used.
    num_stages: the number of stages, if `cut` is None: they end at the deepest
      `num_stages` groups of maps.
    cut: the boundaries between stages, pairs (student feature, teacher feature)
      from the image to the head. In place of a pair, there may be several pairs
      in the order of their computation, which one stage learns together, such
      as the levels of a pyramid.
    stage_epochs: the epochs of each stage. None divides the recipe's epochs
      equally among the stages and the head. The paper has 60, compared with 100
      for methods of one phase.
    head_epochs: the epochs of the head; None means the same share, and 0 leaves
      the head as it is.
    head: whether the head trains. False: there is no phase for it, and no
      labels are read. This is for students of which only a feature is used,
      such as the embedding of a face.
    stage_optimizer: the optimizer of the stages; None means SGD with momentum
      0.9 at rate 0.01, multiplied by 0.1 at 0.3, 0.6 and 0.9 of the stage. The
      paper's other rule is `optimizers.plateau` with an epoch's steps as its
      window; `stage_epochs` is then the most that a stage may take.
    head_optimizer: the optimizer of the head; None means the same at rate 0.1.
    reduction: how the distance is averaged, see `losses.squared_distance`.
    statistics_steps: the number of batches from which a stage's statistics are
      re-estimated; 0 keeps the running ones.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: the reduction does not exist, or a number is out of its range.
  """
  matching = Matching(recipe, num_stages, cut, reduction, student, teacher)
  count, share = matching.count, recipe.epochs / (matching.count + head)
  stage = _stage_recipe(
    recipe, 'stage_epochs', stage_epochs, share, stage_optimizer
  )
  last = _head(matching, recipe, head, head_epochs, share, head_optimizer)
  method: Method = ()
  for number in range(1, count + 1):
    only = slice(number - 1, number)
    method += matching.phases(f'stage{number}', only, stage, statistics_steps)
  return method + last


def multi_loss(
  recipe: Recipe,
  *,
  num_stages: int = 3,
  cut: Boundaries | None = None,
  backbone_epochs: float | None = None,
  head_epochs: float | None = None,
  head: bool = True,
  stage_optimizer: optimizers.Optimizer | None = None,
  head_optimizer: optimizers.Optimizer | None = None,
  reduction: str = 'position_mean',
  statistics_steps: int = 200,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Trains all stages at once to match the teacher, then the head.

    min over backbone of sum_i ||f_i^T - P_i(f_i^S)||**2

  With one stage, which is the whole backbone, this is Equation (3) of SSKD, and
  the same as `sskd`. With more it is what SSKD's Table 2 compares `sskd` with.
  It takes one phase for the backbone, a short one that re-estimates
  batch statistics, and one for the head.

  Args:
    recipe: how the student is trained. Its optimizer is not used.
    num_stages: see `sskd`.
    cut: see `sskd`.
    backbone_epochs: the epochs of the backbone; None means as many shares of
      the recipe's epochs as there are stages.
    head_epochs: the epochs of the head; None means one share, and 0 leaves the
      head as it is.
    head: see `sskd`.
    stage_optimizer: see `sskd`.
    head_optimizer: see `sskd`.
    reduction: see `sskd`.
    statistics_steps: see `sskd`.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: the reduction does not exist, or a number is out of its range.
  """
  matching = Matching(recipe, num_stages, cut, reduction, student, teacher)
  count, share = matching.count, recipe.epochs / (matching.count + head)
  backbone = _stage_recipe(
    recipe, 'backbone_epochs', backbone_epochs, count * share, stage_optimizer
  )
  last = _head(matching, recipe, head, head_epochs, share, head_optimizer)
  all_stages = slice(0, count)
  method = matching.phases('backbone', all_stages, backbone, statistics_steps)
  return method + last


def fixed_backbone(
  recipe: Recipe,
  *,
  method: Method,
  head_epochs: float | None = None,
  head_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
) -> Method:
  """Trains a new classifier on top of a backbone that another method trained.

  This is the ablation of SSKD's Table 1. It takes the phases of `method` and
  one more for the classifier, while the backbone is in inference mode.

  Args:
    recipe: how the classifier is trained. Its optimizer is not used.
    method: trains the whole network first; a section in a config.
    head_epochs: the epochs of the classifier; None means those of the recipe,
      and 0 leaves the new classifier untrained.
    head_optimizer: see `sskd`.
    student: the role of the network that trains.
  """

  def last_stage(carry: Carry) -> tuple[str, ...]:
    return (graph.main_output(phases.model_in(carry, student).network),)

  @marks.any_classes
  def setup(carry: Carry) -> Phase:
    del carry
    return phases.setup_phase('new_classifier', new_classifier)

  def new_classifier(rng, carry: Carry) -> dict[str, Model]:
    network, variables = carry[student]
    image = {'image': recipe.example['image']}
    new_variables = graph.init(network, rng, image)
    new_variables = graph.select(new_variables, last_stage(carry))
    return {student: Model(network, graph.merge(variables, new_variables))}

  recipe = _head_recipe(recipe, head_epochs, recipe.epochs, head_optimizer)
  return (
    *method,
    setup,
    *joint.supervised(
      recipe, student=student, trainable=last_stage, name='classifier'
    ),
  )


def _stage_recipe(
  recipe: Recipe,
  name: str,
  epochs: float | None,
  default_epochs: float,
  optimizer: optimizers.Optimizer | None,
) -> Recipe:
  """Returns the recipe of stages; `name` is the argument of their epochs."""
  epochs = default_epochs if epochs is None else epochs
  checks.number(name, epochs, above=0)
  return recipe._replace(
    epochs=epochs, optimizer=optimizer or _default(0.01, 5e-4)
  )


def _head(
  matching: Matching,
  recipe: Recipe,
  trains: bool,
  epochs: float | None,
  default_epochs: float,
  optimizer: optimizers.Optimizer | None,
) -> Method:
  """Returns the phase of the head, or no phase if the head does not train.

  Raises:
    UsageError: the head does not train, but has epochs or an optimizer.
  """
  if trains:
    return matching.head(
      _head_recipe(recipe, epochs, default_epochs, optimizer)
    )
  if epochs or optimizer is not None:
    name = 'head_epochs' if epochs else 'head_optimizer'
    raise UsageError(f'{name}: expected head=True with it, got head=False')
  return ()


def _head_recipe(
  recipe: Recipe,
  epochs: float | None,
  default_epochs: float,
  optimizer: optimizers.Optimizer | None,
) -> Recipe:
  """Returns the recipe of the head, which may have no epochs."""
  epochs = default_epochs if epochs is None else epochs
  checks.number('head_epochs', epochs, at_least=0)
  return recipe._replace(
    epochs=epochs, optimizer=optimizer or _default(0.1, 1e-4)
  )


def _default(rate: float, weight_decay: float) -> optimizers.Optimizer:
  """Returns the paper's optimizer."""
  schedule = optimizers.step(rate=rate, boundaries=DROPS)
  return optimizers.sgd(schedule, nesterov=False, weight_decay=weight_decay)
