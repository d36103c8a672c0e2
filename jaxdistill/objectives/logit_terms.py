"""Objectives that compare the outputs of student and teacher."""

from collections.abc import Callable
from typing import Protocol

import jax

from jaxdistill import losses
from jaxdistill.core import checks
from jaxdistill.core.types import Array, Batch, Task
from jaxdistill.losses import numerics
from jaxdistill.objectives import pairs
from jaxdistill.objectives.types import Objective, Pair, Term
from jaxdistill.tasks import requirements


class OutputLoss(Protocol):
  """A loss of the outputs of student and teacher."""

  def __call__(self, student: Array, teacher: Array, batch: Batch, /) -> Array:
    """Returns one loss per example, `[B]`, or a scalar.

    Args:
      student: the student's logits, `[B, ..., num_classes]`.
      teacher: the teacher's logits, `[B, ..., num_classes]`.
      batch: the batch, with its targets.
    """


def kd(*, weight: float = 0.9, temperature: float = 4.0) -> Objective:
  """KD: soft targets, `losses.soft_target_loss`.

  Args:
    weight: the factor of the loss.
    temperature: the temperature of both softmax functions.
  """
  numerics.check_temperature('temperature', temperature)

  def loss(student, teacher, batch):
    del batch
    return losses.soft_target_loss(student, teacher, temperature=temperature)

  return _of_outputs('kd', loss, weight, requirements.class_scores)


def tempered(*, weight: float = 1.0, temperature: float = 2.5) -> Objective:
  """Soft targets without the factor T**2, `losses.tempered_cross_entropy`.

  Together with the loss on the labels, it is Equation (3) of Neighbourhood
  Distillation.

  Args:
    weight: the factor of the loss.
    temperature: the temperature of both softmax functions.
  """
  numerics.check_temperature('temperature', temperature)

  def loss(student, teacher, batch):
    del batch
    return losses.tempered_cross_entropy(
      student, teacher, temperature=temperature
    )

  return _of_outputs('tempered', loss, weight, requirements.class_scores)


def pixel_kd(*, weight: float = 10 / 19, temperature: float = 1.0) -> Objective:
  """Pixel-wise KD, `losses.pixel_soft_target_loss`, for segmentation.

  Unlike `kd`, it leaves out the pixels that the mask ignores.

  Args:
    weight: the factor of the loss; the default is that of IFVD for 19 classes.
    temperature: the temperature of both softmax functions.
  """
  numerics.check_temperature('temperature', temperature)

  def loss(student, teacher, batch):
    return losses.pixel_soft_target_loss(
      student, teacher, batch['mask'], temperature=temperature
    )

  return _of_outputs('pixel_kd', loss, weight, requirements.masks)


def logits(*, weight: float = 1.0) -> Objective:
  """Squared error of the logits, `losses.logit_squared_error`.

  Args:
    weight: the factor of the loss.
  """

  def loss(student, teacher, batch):
    del batch
    return losses.logit_squared_error(student, teacher)

  return _of_outputs('logits', loss, weight)


def depth_kd(*, weight: float = 1.0) -> Objective:
  """KD of depths, `losses.map_absolute_error`.

  The teacher's map of depths takes the place of the true one, even where the
  true depth is unknown.

  Args:
    weight: the factor of the loss.
  """

  def loss(student, teacher, batch):
    del batch
    return losses.map_absolute_error(student, teacher)

  return _of_outputs('depth_kd', loss, weight, requirements.depths)


def refinery(*, weight: float = 1.0) -> Objective:
  """Label Refinery, `losses.refinery_loss`.

  Args:
    weight: the factor of the loss.
  """

  def loss(student, teacher, batch):
    del batch
    return losses.refinery_loss(student, teacher)

  return _of_outputs('refinery', loss, weight, requirements.class_scores)


def dkd(
  *,
  weight: float = 1.0,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
  warmup: float = 1 / 12,
) -> Objective:
  """DKD: decoupled soft targets, `losses.decoupled_kd_loss`.

  Args:
    weight: the factor of the loss.
    alpha: the weight of the labelled class.
    beta: the weight of the other classes.
    temperature: the temperature of both softmax functions.
    warmup: the fraction of the training during which the weight rises; the
      default is 20 of 240 epochs.
  """
  checks.weights(alpha=alpha, beta=beta)

  def loss(student, teacher, batch):
    return losses.decoupled_kd_loss(
      student,
      teacher,
      _classes(batch),
      alpha=alpha,
      beta=beta,
      temperature=temperature,
    )

  return _of_outputs('dkd', loss, weight, requirements.image_classes, warmup)


def dist(
  *,
  weight: float = 1.0,
  beta: float = 1.0,
  gamma: float = 1.0,
  tau: float = 1.0,
) -> Objective:
  """DIST: correlation of the predictions, `losses.dist_loss`.

  Args:
    weight: the factor of the loss.
    beta: the weight of the relations between classes within an example.
    gamma: the weight of the relations between examples within a class.
    tau: the temperature of both softmax functions.
  """
  checks.weights(beta=beta, gamma=gamma)

  def loss(student, teacher, batch):
    del batch
    return losses.dist_loss(student, teacher, beta=beta, gamma=gamma, tau=tau)

  return _of_outputs('dist', loss, weight, requirements.image_classes)


def _of_outputs(
  name: str,
  output_loss: OutputLoss,
  weight: float,
  require: Callable[[str, Task], None] | None = None,
  warmup: float = 0.0,
) -> Objective:
  """Makes an objective from a loss of the outputs of both networks."""
  checks.weights(weight=weight)

  def objective(pair: Pair) -> Term:
    if require is not None:
      require(name, pair.recipe.task)
    student, teacher = pairs.output_names(pair)
    # This reports numbers that are out of range before any training starts.
    jax.eval_shape(
      output_loss,
      pair.student_shapes[student],
      pair.teacher_shapes[teacher],
      pair.recipe.example,
    )

    def loss(features, batch, models):
      del models
      return output_loss(
        features[f'student/{student}'], features[f'teacher/{teacher}'], batch
      )

    return Term(loss, weight, warmup=warmup)

  return objective


def _classes(batch: Batch) -> Array:
  """Returns the classes `[B]`; of a mixed label, the class with most weight."""
  label = batch['label']
  return label.argmax(-1) if label.ndim == 2 else label
