"""Terms that compare features in the middle of the networks."""

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.losses import numerics
from jaxdistill.networks import staged
from jaxdistill.terms import helpers, pairs
from jaxdistill.types import Array, Model, Stage


def _of_maps(
  function: Callable[[Array, Array], Array], weight: float, cut: pairs.Pairs
) -> pairs.TermFactory:
  """A term that sums function(student map, teacher map) over a cut."""

  def make(pair: pairs.Pair) -> pairs.Term:
    chosen = pairs.middle_cut(pair, cut)

    def loss(features, batch, models):
      del batch, models
      return sum(
        function(features[f'student/{s}'], features[f'teacher/{t}'])
        for s, t in chosen
      )

    return pairs.Term(loss, weight)

  return make


def attention(
  *, weight: float = 1000.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """AT, `losses.attention_transfer_loss` summed over the pairs of a cut."""
  return _of_maps(losses.attention_transfer_loss, weight, cut)


def selectivity(
  *, weight: float = 50.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """NST, `losses.neuron_selectivity_loss` summed over the pairs of a cut."""
  return _of_maps(losses.neuron_selectivity_loss, weight, cut)


def hint(
  *, weight: float = 100.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """FitNets, `losses.hint_loss` behind a regressor.

  Args:
    weight: factor.
    cut: one pair; None: the second of the pairs that `middle_cut` gives.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    student, teacher = hint_cut(pair, cut)
    shape = pairs.map_shape(pair.teacher_shapes, teacher)
    regressor = Stage(
      'hint', helpers.HintRegressor(shape), (f'student/{student}',)
    )

    def loss(features, batch, models):
      del batch, models
      target = helpers.as_map(features[f'teacher/{teacher}'])
      return losses.hint_loss(features['hint'], target)

    return pairs.Term(loss, weight, (regressor,))

  return make


def hint_cut(pair: pairs.Pair, cut: pairs.Pairs) -> tuple[str, str]:
  """The pair of a hint; by default the second in the middle."""
  middle = pairs.middle_cut(pair, cut)
  return middle[0] if cut else middle[min(1, len(middle) - 1)]


def variational(
  *, weight: float = 1.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """VID, `losses.variational_information_loss` summed over the pairs."""

  def make(pair: pairs.Pair) -> pairs.Term:
    chosen = pairs.middle_cut(pair, cut)
    heads = tuple(
      Stage(
        f'vid{i}',
        helpers.VariationalHead(pairs.map_shape(pair.teacher_shapes, t)),
        (f'student/{s}',),
      )
      for i, (s, t) in enumerate(chosen)
    )

    def loss(features, batch, models):
      del batch, models
      total = 0.0
      for i, (_, t) in enumerate(chosen):
        mean, target = numerics.match_size(
          features[f'vid{i}'], helpers.as_map(features[f'teacher/{t}'])
        )
        total += losses.variational_information_loss(
          mean, target, features[f'vid{i}.raw_variance']
        )
      return total

    return pairs.Term(loss, weight, heads)

  return make


def boundaries(
  *, weight: float = 3e-3, margin: float = 1.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """AB, `losses.activation_boundary_loss`, halved from layer to layer.

  A regressor stands between where the shapes differ, and only there.

  Args:
    weight: factor; the deepest pair counts in full, the one before half, ...
    margin: see the loss.
    cut: pairs of features before their activation.
  """

  def connector(ours: tuple, theirs: tuple[int, int, int]):
    if ours == theirs:
      return None
    return helpers.HintRegressor(theirs, activation=False)

  def function(student, teacher):
    return losses.activation_boundary_loss(student, teacher, margin=margin)

  return _connected(function, connector, weight, cut, 'ab')


def overhaul(
  *, weight: float = 1e-3, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """OFD, `losses.margin_relu_loss`, halved from layer to layer.

  The margins, the expected negative responses of each channel, are measured on
  the batch, so that any teacher has them; the authors' code computes them from
  its last batch norm (`losses.batch_norm_margins`). The teacher is in
  inference mode, which theirs is not.

  Args:
    weight: factor; the deepest pair counts in full, the one before half, ...
    cut: pairs of features before their activation.
  """

  def function(student, teacher):
    negative = teacher < 0
    axes = tuple(range(teacher.ndim - 1))
    count = jnp.maximum(negative.sum(axes), 1)
    margin = jnp.where(negative, teacher, 0).sum(axes) / count
    return losses.margin_relu_loss(student, teacher, margin)

  def connector(ours: tuple, theirs: tuple[int, int, int]):
    del ours
    return helpers.Connector(theirs[-1], shape=theirs[:2])

  return _connected(function, connector, weight, cut, 'ofd')


def _connected(
  function: Callable[[Array, Array], Array],
  connector: Callable[[tuple, tuple[int, int, int]], nn.Module | None],
  weight: float,
  cut: pairs.Pairs,
  name: str,
) -> pairs.TermFactory:
  """Sums function(connected student, teacher), halved from layer to layer.

  `connector` makes the helper of two shapes (H, W, C); None: none is needed.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    chosen = pairs.middle_cut(pair, cut, pre=True)
    read, connectors = [], []
    for i, (s, t) in enumerate(chosen):
      module = connector(
        pairs.map_shape(pair.student_shapes, s),
        pairs.map_shape(pair.teacher_shapes, t),
      )
      read.append(f'student/{s}' if module is None else f'{name}{i}')
      if module is not None:
        connectors.append(Stage(read[-1], module, (f'student/{s}',)))

    def loss(features, batch, models):
      del batch, models
      return sum(
        2.0 ** (i + 1 - len(chosen))
        * function(
          helpers.as_map(features[read[i]]),
          helpers.as_map(features[f'teacher/{t}']),
        )
        for i, (_, t) in enumerate(chosen)
      )

    return pairs.Term(loss, weight, tuple(connectors))

  return make


def factor(
  *, weight: float = 200.0, attention: bool = True, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """FT, `losses.factor_transfer_loss` of a translator and the paraphraser.

  The model in the role 'paraphraser' reads the teacher's last map.

  Args:
    weight: factor.
    attention: see the loss; False with weight 500 is the authors' version.
    cut: one pair; None: the last maps of both.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    student, teacher = pairs.middle_cut(pair, cut)[-1]
    channels = pairs.map_shape(pair.teacher_shapes, teacher)[-1]
    translator = Stage(
      'translator', helpers.Factor(channels // 2), (f'student/{student}',)
    )

    def loss(features, batch, models):
      del batch
      network, variables = models['paraphraser']
      paraphrased, _ = staged.run(
        network, variables, {'image': features[f'teacher/{teacher}']}
      )
      return losses.factor_transfer_loss(
        features['translator'], paraphrased['factor'], attention=attention
      )

    return pairs.Term(loss, weight, (translator,))

  return make


def normalized(
  *, weight: float = 500.0, reduction: str = 'mean', cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """FD, `losses.normalized_l1_loss` behind a regressor.

  Of the last maps after their last ReLU; of two sizes, the larger is pooled.

  Args:
    weight: factor. That of the 1-norm which the paper prints, 'sum', is the
      smaller by the number of values: 500 is 0.12 for 8 x 8 x 64.
    reduction: see the loss.
    cut: one pair of features before their ReLU; None: the last maps.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    if cut is None:
      student, teacher = (
        pairs.before(shapes, pairs.maps(network, shapes)[-1])
        for network, shapes in (
          (pair.student, pair.student_shapes),
          (pair.teacher, pair.teacher_shapes),
        )
      )
    else:
      student, teacher = pairs.check(pair, cut)[0]
    channels = pairs.map_shape(pair.teacher_shapes, teacher)[-1]
    regressor = Stage(
      'regressor', helpers.Regressor(channels), (f'student/{student}',)
    )

    def loss(features, batch, models):
      del batch, models
      target = nn.relu(helpers.as_map(features[f'teacher/{teacher}']))
      ours, target = numerics.match_size(features['regressor'], target)
      return losses.normalized_l1_loss(ours, target, reduction=reduction)

    return pairs.Term(loss, weight, (regressor,))

  return make


def softmax_regression(
  *,
  weight: float = 1.0,
  regression_weight: float = 1.0,
) -> pairs.TermFactory:
  """SRRL, `losses.softmax_regression_loss` behind a connector.

  The student's last map is connected and pooled, and answered by the teacher's
  own last stage, which stays as it is.

  Args:
    weight: factor.
    regression_weight: of the answers.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    student = pairs.maps(pair.student, pair.student_shapes)[-1]
    pooled = pairs.vector(pair.teacher, 'teacher')
    answer = staged.output(pair.teacher)
    channels = pair.teacher_shapes[pooled].shape[-1]
    connector = Stage(
      'srrl', helpers.Connector(channels, True), (f'student/{student}',)
    )

    def loss(features, batch, models):
      del batch
      teacher: Model = models['teacher']
      ours = features['srrl'].mean((1, 2))
      answered, _ = staged.run(
        teacher.network, teacher.variables, {pooled: ours}, only=(answer,)
      )
      return losses.softmax_regression_loss(
        ours,
        features[f'teacher/{pooled}'],
        answered[answer],
        features[f'teacher/{answer}'],
        regression_weight=regression_weight,
      )

    return pairs.Term(loss, weight, (connector,))

  return make


def review(
  *,
  weight: float = 1.0,
  warmup: float = 1 / 12,
  inner: int = 512,
) -> pairs.TermFactory:
  """ReviewKD: attention-based fusion from deep to shallow, then HCL.

  The student's groups of maps (after their activation, as on CIFAR) and its
  pooled feature are fused and compared with the teacher's before their
  activation, by `losses.hierarchical_context_loss`. The weight rises step by
  step, in the authors' code epoch by epoch.

  Args:
    weight: factor; published: 0.6 to 8 by pair.
    warmup: share of the run; the default is 20 of 240 epochs.
    inner: most channels of the fused maps.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    levels = list(pairs.middle_cut(pair, None))
    levels = [(s, pairs.before(pair.teacher_shapes, t)) for s, t in levels]
    levels.append(pairs.last_cut(pair, None))
    deepest = pairs.map_shape(pair.student_shapes, levels[-1][0])[-1]
    stages = []
    for i, (s, t) in reversed(list(enumerate(levels))):
      shape = pairs.map_shape(pair.teacher_shapes, t)
      module = helpers.AttentionFusion(shape, min(inner, deepest))
      deeper = () if i == len(levels) - 1 else (f'review{i + 1}.residual',)
      stages.append(Stage(f'review{i}', module, (f'student/{s}', *deeper)))

    def loss(features, batch, models):
      del batch, models
      return sum(
        losses.hierarchical_context_loss(
          features[f'review{i}'], helpers.as_map(features[f'teacher/{t}'])
        )
        for i, (_, t) in enumerate(levels)
      )

    return pairs.Term(loss, weight, tuple(stages), warmup)

  return make
