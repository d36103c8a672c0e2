"""Objectives that compare features before their activation: AB and OFD."""

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.core import checks, marks
from jaxdistill.core.types import Array, FeaturePairs, Stage
from jaxdistill.objectives import adapters, maps, pairs
from jaxdistill.objectives.types import Objective, Pair, Term


def ab(
  *,
  weight: float = 3e-3,
  margin: float = 1.0,
  feature_pairs: FeaturePairs | None = None,
) -> Objective:
  """AB: activation boundaries, `losses.activation_boundary_loss`.

  The loss is summed over the feature pairs. The deepest pair has the full
  weight, and each pair before it half the weight of the next. If the shapes of
  a pair differ, a regressor maps the student's feature to the teacher's shape.

  Args:
    weight: the factor of the loss.
    margin: the distance from zero beyond which the loss is 0.
    feature_pairs: pairs of features before their activation; None means those
      of `middle_pairs`.
  """
  checks.number('margin', margin, above=0)

  def regressor(
    student: maps.MapShape, teacher: maps.MapShape
  ) -> nn.Module | None:
    if student == teacher:
      return None
    return adapters.HintRegressor(teacher, activation=False)

  def feature_loss(student: Array, teacher: Array) -> Array:
    return losses.activation_boundary_loss(student, teacher, margin=margin)

  return _halving(feature_loss, regressor, weight, feature_pairs, 'ab')


def ofd(
  *, weight: float = 1e-3, feature_pairs: FeaturePairs | None = None
) -> Objective:
  """OFD: overhaul of feature distillation, `losses.margin_relu_loss`.

  The loss is summed over the feature pairs. The deepest pair has the full
  weight, and each pair before it half the weight of the next. The margins, the
  expected negative response of each channel, are measured on the batch, so that
  the method works with any teacher; the authors' code computes them from the
  teacher's last batch norm (`losses.batch_norm_margins`). The teacher is in
  inference mode, whereas in the authors' code it is in training mode.

  Args:
    weight: the factor of the loss.
    feature_pairs: pairs of features before their activation; None means those
      of `middle_pairs`.
  """

  def feature_loss(student: Array, teacher: Array) -> Array:
    negative = teacher < 0
    axes = tuple(range(teacher.ndim - 1))
    count = jnp.maximum(negative.sum(axes), 1)
    margin = jnp.where(negative, teacher, 0).sum(axes) / count
    return losses.margin_relu_loss(student, teacher, margin)

  def connector(student: maps.MapShape, teacher: maps.MapShape) -> nn.Module:
    del student
    return adapters.Connector(teacher[-1], shape=teacher[:2])

  return _halving(feature_loss, connector, weight, feature_pairs, 'ofd')


def _halving(
  feature_loss: Callable[[Array, Array], Array],
  make_adapter: Callable[[maps.MapShape, maps.MapShape], nn.Module | None],
  weight: float,
  feature_pairs: FeaturePairs | None,
  name: str,
) -> Objective:
  """Makes an objective whose weight is halved from layer to layer.

  Args:
    feature_loss: (adapted student feature, teacher feature) -> losses `[B]`.
    make_adapter: (student shape, teacher shape) -> the adapter of the student's
      feature, or None if it needs none.
    weight: the factor of the deepest pair.
    feature_pairs: what the user chose, or None.
    name: the beginning of the adapters' names.
  """
  checks.weights(weight=weight)

  @marks.any_classes
  def objective(pair: Pair) -> Term:
    chosen = pairs.map_pairs(pair, feature_pairs, pre=True)
    adapted_names, stages = [], []
    for i, (student, teacher) in enumerate(chosen):
      module = make_adapter(
        pairs.map_shape(pair.student_shapes, student),
        pairs.map_shape(pair.teacher_shapes, teacher),
      )
      if module is None:
        adapted_names.append(f'student/{student}')
      else:
        adapted_names.append(f'{name}{i}')
        stages.append(Stage(f'{name}{i}', module, (f'student/{student}',)))

    def loss(features, batch, models):
      del batch, models
      return sum(
        2.0 ** (i + 1 - len(chosen))
        * feature_loss(
          maps.as_map(features[adapted_names[i]]),
          maps.as_map(features[f'teacher/{teacher}']),
        )
        for i, (_, teacher) in enumerate(chosen)
      )

    return Term(loss, weight, tuple(stages))

  return objective
