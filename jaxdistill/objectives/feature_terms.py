"""Objectives that compare features in the middle of the networks."""

from collections.abc import Callable

from flax import linen as nn

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, FeaturePairs, Stage
from jaxdistill.losses import numerics
from jaxdistill.networks import graph
from jaxdistill.objectives import adapters, maps, pairs
from jaxdistill.objectives.types import Objective, Pair, Term
from jaxdistill.tasks import requirements


def at(
  *, weight: float = 1000.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """AT: attention transfer, `losses.attention_transfer_loss`.

  The loss is summed over the feature pairs.

  Args:
    weight: the factor of the loss.
    feature_pairs: pairs of maps; None means those of `middle_pairs`.
  """
  return _of_maps(losses.attention_transfer_loss, weight, feature_pairs)


def nst(
  *, weight: float = 50.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """NST: neuron selectivity transfer, `losses.neuron_selectivity_loss`.

  The loss is summed over the feature pairs.

  Args:
    weight: the factor of the loss.
    feature_pairs: pairs of maps; None means those of `middle_pairs`.
  """
  return _of_maps(losses.neuron_selectivity_loss, weight, feature_pairs)


def hint(
  *,
  weight: float = 100.0,
  activation: bool = True,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """FitNets: a hint, `losses.hint_loss` after a regressor.

  The loss is summed over the feature pairs.

  Args:
    weight: the factor of the loss.
    activation: whether the regressors end with a ReLU. This suits features that
      come after a ReLU, but not those with negative values, such as the levels
      of a pyramid.
    feature_pairs: pairs of maps; None means the second of the pairs that
      `middle_pairs` returns.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    chosen = pairs.map_pairs(pair, feature_pairs)
    if feature_pairs is None:
      chosen = (hint_pair(pair, None),)
    regressors = tuple(
      Stage(
        f'hint{i}',
        adapters.HintRegressor(
          pairs.map_shape(pair.teacher_shapes, teacher), activation
        ),
        (f'student/{student}',),
      )
      for i, (student, teacher) in enumerate(chosen)
    )

    def loss(features, batch, models):
      del batch, models
      return sum(
        losses.hint_loss(
          features[f'hint{i}'], maps.as_map(features[f'teacher/{teacher}'])
        )
        for i, (_, teacher) in enumerate(chosen)
      )

    return Term(loss, weight, regressors)

  return objective


def hint_pair(
  pair: Pair, feature_pairs: FeaturePairs | None
) -> tuple[str, str]:
  """Returns the last pair of a hint; the default is that of `hint`."""
  middle = pairs.map_pairs(pair, feature_pairs)
  return middle[-1] if feature_pairs else middle[min(1, len(middle) - 1)]


def vid(
  *, weight: float = 1.0, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """VID: mutual information, `losses.variational_information_loss`.

  The loss is summed over the feature pairs. An adapter predicts the mean and
  the variance of each of the teacher's features.

  Args:
    weight: the factor of the loss.
    feature_pairs: pairs of features; None means those of `middle_pairs`.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    chosen = pairs.map_pairs(pair, feature_pairs)
    heads = tuple(
      Stage(
        f'vid{i}',
        adapters.VariationalHead(pairs.map_shape(pair.teacher_shapes, teacher)),
        (f'student/{student}',),
      )
      for i, (student, teacher) in enumerate(chosen)
    )

    def loss(features, batch, models):
      del batch, models
      total = 0.0
      for i, (_, teacher) in enumerate(chosen):
        mean, target = numerics.match_size(
          features[f'vid{i}'], maps.as_map(features[f'teacher/{teacher}'])
        )
        total += losses.variational_information_loss(
          mean, target, features[f'vid{i}.raw_variance']
        )
      return total

    return Term(loss, weight, heads)

  return objective


def ft(
  *,
  weight: float = 200.0,
  attention: bool = True,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """FT: factor transfer, `losses.factor_transfer_loss`.

  A translator, which is an adapter, reads the student's feature. The model in
  the role 'paraphraser', which is trained before, reads the teacher's.

  Args:
    weight: the factor of the loss.
    attention: whether the loss compares attention maps, as in RepDistiller;
      False with a weight of 500 is the authors' version.
    feature_pairs: one pair; None means the last of `middle_pairs`.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    student, teacher = pairs.map_pairs(pair, feature_pairs)[-1]
    channels = pairs.map_shape(pair.teacher_shapes, teacher)[-1]
    translator = Stage(
      'translator', adapters.Factor(channels // 2), (f'student/{student}',)
    )

    def loss(features, batch, models):
      del batch
      network, variables = models['paraphraser']
      paraphrased, _ = graph.run(
        network, variables, {'image': features[f'teacher/{teacher}']}
      )
      return losses.factor_transfer_loss(
        features['translator'], paraphrased['factor'], attention=attention
      )

    return Term(loss, weight, (translator,))

  return objective


def fd(
  *,
  weight: float = 500.0,
  reduction: str = 'mean',
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """FD: feature distillation, `losses.normalized_l1_loss` after a regressor.

  The loss compares the last maps after their last ReLU. If their sizes differ,
  the larger map is pooled.

  Args:
    weight: the factor of the loss. With the reduction 'sum', which is the
      paper's 1-norm, divide it by the number of entries: 500 becomes 0.12 for
      8 x 8 x 64.
    reduction: 'mean' or 'sum' over the entries.
    feature_pairs: one pair of features before their ReLU; None means the last
      maps of both networks.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    if feature_pairs is None:
      student, teacher = pairs.last_maps(pair)
    else:
      student, teacher = pairs.check(pair, feature_pairs)[0]
    pairs.check_maps(pair, ((student, teacher),))
    channels = pairs.map_shape(pair.teacher_shapes, teacher)[-1]
    regressor = Stage(
      'regressor', adapters.Regressor(channels), (f'student/{student}',)
    )

    def loss(features, batch, models):
      del batch, models
      target = nn.relu(maps.as_map(features[f'teacher/{teacher}']))
      regressed, target = numerics.match_size(features['regressor'], target)
      return losses.normalized_l1_loss(regressed, target, reduction=reduction)

    return Term(loss, weight, (regressor,))

  return objective


def srrl(*, weight: float = 1.0, regression_weight: float = 1.0) -> Objective:
  """SRRL: softmax regression representation learning.

  The loss is `losses.softmax_regression_loss`. A connector brings the student's
  last map to the teacher's channels; the map is pooled and passed through the
  last stage of the teacher, which is not trained.

  Args:
    weight: the factor of the loss.
    regression_weight: the weight of the squared error of the logits.
  """
  checks.weights(weight=weight, regression_weight=regression_weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    requirements.image_classes('srrl', pair.recipe.task)
    student = pairs.map_groups(pair.student, pair.student_shapes)[-1:]
    pooled = pairs.pooled_feature(pair.teacher, 'teacher')
    output = graph.main_output(pair.teacher)
    shape = pair.teacher_shapes[pooled].shape
    if not student or len(shape) != 2:
      raise UsageError(
        'SRRL: expected a student with groups of maps and a teacher whose last '
        f"stage reads a vector, got the student's features "
        f'{", ".join(pair.student_shapes)} and {shape[1:]} for {pooled!r} of '
        'the teacher'
      )
    connector = Stage(
      'srrl', adapters.Connector(shape[-1], True), (f'student/{student[0]}',)
    )

    def loss(features, batch, models):
      del batch
      teacher = models['teacher']
      connected = features['srrl'].mean((1, 2))
      outputs, _ = graph.run(
        teacher.network, teacher.variables, {pooled: connected}, only=(output,)
      )
      return losses.softmax_regression_loss(
        connected,
        features[f'teacher/{pooled}'],
        outputs[output],
        features[f'teacher/{output}'],
        regression_weight=regression_weight,
      )

    return Term(loss, weight, (connector,))

  return objective


def reviewkd(
  *,
  weight: float = 1.0,
  warmup: float = 1 / 12,
  inner: int = 512,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """ReviewKD: attention-based fusion from deep to shallow, followed by HCL.

  The student's groups of maps (after their activation, as on CIFAR) and its
  pooled feature are fused and compared with the teacher's features before their
  activation by `losses.hierarchical_context_loss`. The weight rises step by
  step; in the authors' code, it rises epoch by epoch.

  Args:
    weight: the factor of the loss; the authors use 0.6 to 8, depending on the
      pair of networks.
    warmup: the fraction of the training during which the weight rises; the
      default is 20 of 240 epochs.
    inner: the largest number of channels of the fused maps.
    feature_pairs: the levels, the shallowest first, from which the deepest
      gives the channels of the fused maps. Tokens count as maps, see
      `maps.as_map`. None means the groups and the pooled features.
  """
  checks.weights(weight=weight)
  checks.integer('inner', inner)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    levels = _review_levels(pair, feature_pairs)
    deepest = pairs.map_shape(pair.student_shapes, levels[-1][0])[-1]
    stages = []
    for i, (student, teacher) in reversed(list(enumerate(levels))):
      shape = pairs.map_shape(pair.teacher_shapes, teacher)
      module = adapters.AttentionFusion(shape, min(inner, deepest))
      deeper = () if i == len(levels) - 1 else (f'review{i + 1}.residual',)
      stages.append(
        Stage(f'review{i}', module, (f'student/{student}', *deeper))
      )

    def loss(features, batch, models):
      del batch, models
      return sum(
        losses.hierarchical_context_loss(
          features[f'review{i}'],
          maps.as_map(features[f'teacher/{teacher}']),
        )
        for i, (_, teacher) in enumerate(levels)
      )

    return Term(loss, weight, tuple(stages), warmup)

  return objective


def _review_levels(
  pair: Pair, feature_pairs: FeaturePairs | None
) -> FeaturePairs:
  """Returns the levels of a review, the shallowest first."""
  chosen = pairs.map_pairs(pair, feature_pairs)
  if feature_pairs is not None:
    return chosen
  groups = (
    (student, pairs.pre_activation(pair.teacher_shapes, teacher))
    for student, teacher in chosen
  )
  return (*groups, pairs.last_pair(pair, None))


def _of_maps(
  map_loss: Callable[[Array, Array], Array],
  weight: float,
  feature_pairs: FeaturePairs | None,
) -> Objective:
  """Makes an objective that sums a loss of two maps over the feature pairs."""
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    chosen = pairs.map_pairs(pair, feature_pairs)
    pairs.check_positions(pair, chosen)

    def loss(features, batch, models):
      del batch, models
      return sum(
        map_loss(
          maps.as_map(features[f'student/{student}']),
          maps.as_map(features[f'teacher/{teacher}']),
        )
        for student, teacher in chosen
      )

    return Term(loss, weight)

  return objective
