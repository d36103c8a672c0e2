"""Terms that compare answers: soft targets and their kin."""

from collections.abc import Callable

import jax

from jaxdistill import losses
from jaxdistill.terms import pairs
from jaxdistill.types import Array


def _of_answers(
  function: Callable[..., Array], weight: float, warmup: float = 0.0
) -> pairs.TermFactory:
  """A term of function(student logits, teacher logits, batch)."""

  def make(pair: pairs.Pair) -> pairs.Term:
    student, teacher = pairs.answers(pair)
    jax.eval_shape(  # refuses wrong numbers before anything is trained
      function,
      pair.student_shapes[student],
      pair.teacher_shapes[teacher],
      pair.recipe.example,
    )

    def loss(features, batch, models):
      del models
      return function(
        features[f'student/{student}'], features[f'teacher/{teacher}'], batch
      )

    return pairs.Term(loss, weight, warmup=warmup)

  return make


def soft_target(
  *, weight: float = 0.9, temperature: float = 4.0
) -> pairs.TermFactory:
  """KD, `losses.soft_target_loss`.

  Args:
    weight: factor.
    temperature: `T`.
  """
  return _of_answers(
    lambda s, t, b: losses.soft_target_loss(s, t, temperature=temperature),
    weight,
  )


def tempered(
  *, weight: float = 1.0, temperature: float = 2.5
) -> pairs.TermFactory:
  """Softened classes without T**2, `losses.tempered_cross_entropy`.

  With the labels beside it, Equation (3) of Neighbourhood Distillation.

  Args:
    weight: factor.
    temperature: `T`.
  """
  return _of_answers(
    lambda s, t, b: losses.tempered_cross_entropy(
      s, t, temperature=temperature
    ),
    weight,
  )


def logits(*, weight: float = 1.0) -> pairs.TermFactory:
  """Squared error of the logits, `losses.logit_squared_error`."""
  return _of_answers(lambda s, t, b: losses.logit_squared_error(s, t), weight)


def refinery(*, weight: float = 1.0) -> pairs.TermFactory:
  """Label Refinery, `losses.refinery_loss`."""
  return _of_answers(lambda s, t, b: losses.refinery_loss(s, t), weight)


def decoupled(
  *,
  weight: float = 1.0,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
  warmup: float = 1 / 12,
) -> pairs.TermFactory:
  """DKD, `losses.decoupled_kd_loss`.

  Args:
    weight: factor.
    alpha: of the target class.
    beta: of the other classes.
    temperature: `T`.
    warmup: share of the run; the default is 20 of 240 epochs.
  """
  return _of_answers(
    lambda s, t, b: losses.decoupled_kd_loss(
      s, t, _classes(b), alpha=alpha, beta=beta, temperature=temperature
    ),
    weight,
    warmup,
  )


def correlation(
  *,
  weight: float = 1.0,
  beta: float = 1.0,
  gamma: float = 1.0,
  tau: float = 1.0,
) -> pairs.TermFactory:
  """DIST, `losses.correlation_kd_loss`.

  Args:
    weight: factor.
    beta: of the relations between classes.
    gamma: of the relations within a class.
    tau: temperature.
  """
  return _of_answers(
    lambda s, t, b: losses.correlation_kd_loss(
      s, t, beta=beta, gamma=gamma, tau=tau
    ),
    weight,
  )


def _classes(batch):
  """The label `[B]`, of a mixed one the largest part."""
  label = batch['label']
  return label.argmax(-1) if label.ndim == 2 else label
