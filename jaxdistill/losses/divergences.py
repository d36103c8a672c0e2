"""Divergences of softened probabilities, accurate at all temperatures.

At a high temperature, all classes are almost equally likely, and a divergence
is a sum of terms that nearly cancel: at T = 1000, the terms of the usual sum
are a thousand times larger than the result, and the factor T**2 that follows
enlarges their rounding errors. Therefore, above the temperature `_HIGH`, log
probabilities are computed relative to those of equal logits, where they are
small, and the divergence as a sum of terms that are never negative::

  KL(p || q) = sum_c p_c * (exp(-d_c) - 1 + d_c),   d = log p - log q

The two forms are equal, because p and q both sum to 1. Up to `_HIGH`, the usual
sum has at least four correct digits and takes half the time. If the temperature
is an array, the program chooses between the two forms when it runs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_HIGH = 10.0
# exp(-d) - 1 + d cancels below this |d|, and its series ends where it does not.
_SMALL = 0.2
# 1/2! - d/3! + d**2/4! - ..., the highest power first.
_SERIES = (-1 / 5040, 1 / 720, -1 / 120, 1 / 24, -1 / 6, 1 / 2)


def softened(
  student: jax.Array, teacher: jax.Array, temperature: float | jax.Array
) -> jax.Array:
  """Returns KL(softmax(teacher / T) || softmax(student / T)).

  Args:
    student: logits in at least float32, `[..., num_classes]`.
    teacher: logits, likewise.
    temperature: `T`.

  Returns:
    The divergences, `[...]`.
  """

  def usual() -> jax.Array:
    return _usual(
      jax.nn.log_softmax(student / temperature),
      jax.nn.log_softmax(teacher / temperature),
    )

  def accurate() -> jax.Array:
    q, p = _tempered(student, temperature), _tempered(teacher, temperature)
    return _accurate(
      q - _log_mean_exp(q),
      p - _log_mean_exp(p),
      jnp.full(q.shape, 1 / q.shape[-1], q.dtype),
    )

  loss: jax.Array = _chosen(temperature, usual, accurate)
  return loss


def decoupled(
  student: jax.Array,
  teacher: jax.Array,
  label: jax.Array,
  temperature: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the divergences of the labelled class and of the other classes.

  Args:
    student: logits in at least float32, `[..., num_classes]`.
    teacher: logits, likewise.
    label: the true classes, integers, `[...]`.
    temperature: `T`.

  Returns:
    (the divergence of the pair (probability of the label, probability of any
    other class) `[...]`, the divergence of the softmax over the other classes
    `[...]`).
  """

  def usual() -> tuple[jax.Array, jax.Array]:
    s_pair, s_others = _split(student / temperature, label)
    t_pair, t_others = _split(teacher / temperature, label)
    return _usual(s_pair, t_pair), _usual(s_others, t_others)

  def accurate() -> tuple[jax.Array, jax.Array]:
    s_pair, s_others = _split_relative(_tempered(student, temperature), label)
    t_pair, t_others = _split_relative(_tempered(teacher, temperature), label)
    num_others = student.shape[-1] - 1
    equal = jnp.array([1, num_others], student.dtype) / (num_others + 1)
    return (
      _accurate(s_pair, t_pair, jnp.broadcast_to(equal, s_pair.shape)),
      _accurate(
        s_others,
        t_others,
        jnp.full(s_others.shape, 1 / num_others, equal.dtype),
      ),
    )

  target, others = _chosen(temperature, usual, accurate)
  return target, others


def _chosen(
  temperature: float | jax.Array,
  usual: Callable[[], Any],
  accurate: Callable[[], Any],
) -> Any:
  """Returns the result of the form that suits the temperature."""
  if isinstance(temperature, jax.Array):
    return jax.lax.cond(temperature <= _HIGH, usual, accurate)
  return usual() if temperature <= _HIGH else accurate()


def _usual(student_log: jax.Array, teacher_log: jax.Array) -> jax.Array:
  """Returns the divergence of two sets of log probabilities `[..., K]`."""
  return jnp.sum(jnp.exp(teacher_log) * (teacher_log - student_log), axis=-1)


def _accurate(
  student_log: jax.Array, teacher_log: jax.Array, equal: jax.Array
) -> jax.Array:
  """Returns the divergence without cancellation, `[...]`.

  Args:
    student_log: log probabilities relative to those of equal logits,
      `[..., K]`.
    teacher_log: the teacher's, likewise.
    equal: the probabilities of equal logits, `[..., K]`.
  """
  q, p = equal * jnp.exp(student_log), equal * jnp.exp(teacher_log)
  ratio = teacher_log - student_log
  is_small = jnp.abs(ratio) < _SMALL
  # The inner `where` keeps overflows of the series out of the backward pass.
  small = jnp.where(is_small, ratio, 0.0)
  series = p * small**2 * jnp.polyval(jnp.array(_SERIES, p.dtype), small)
  return jnp.sum(jnp.where(is_small, series, q - p + p * ratio), axis=-1)


def _tempered(logits: jax.Array, temperature: float | jax.Array) -> jax.Array:
  """Divides logits by a temperature after moving their largest to 0.

  Otherwise, rounding would lose small differences between large logits.
  """
  largest = jnp.max(logits, axis=-1, keepdims=True)
  return (logits - jax.lax.stop_gradient(largest)) / temperature


def _log_mean_exp(x: jax.Array) -> jax.Array:
  """Returns the log of the mean of exp(x), exact near 0, `[..., 1]`."""
  largest = jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
  mean = jnp.mean(jnp.expm1(x - largest), axis=-1, keepdims=True)
  return largest + jnp.log1p(mean)


def _separate(
  logits: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the logit of the label `[..., 1]` and the others `[..., K - 1]`."""
  others = jnp.arange(logits.shape[-1] - 1)
  others = others.reshape((1,) * label.ndim + (-1,))
  others = others + (others >= label[..., None])
  return (
    jnp.take_along_axis(logits, label[..., None], axis=-1),
    jnp.take_along_axis(logits, others, axis=-1),
  )


def _split(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Separates the labelled class from the other classes.

  Returns:
    (log probabilities of the label and of any other class `[..., 2]`, log
    softmax over the other classes `[..., num_classes - 1]`).
  """
  target, others = _separate(logits, label)
  log_odds = target[..., 0] - jax.nn.logsumexp(others, axis=-1)
  # Log probabilities from log odds are finite even if one rounds to 0.
  pair = jax.nn.log_sigmoid(jnp.stack([log_odds, -log_odds], axis=-1))
  return pair, jax.nn.log_softmax(others)


def _split_relative(
  logits: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Like `_split`, but relative to the log probabilities of equal logits."""
  target, others = _separate(logits, label)
  mean_others = _log_mean_exp(others)
  pair = jnp.concatenate([target, mean_others], axis=-1)
  return pair - _log_mean_exp(logits), others - mean_others
