"""Learning-rate schedules, whose times are fractions of the run."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.core import checks
from jaxdistill.core.types import Array


class Schedule(NamedTuple):
  """A learning rate that changes during training.

  Attributes:
    rate: num_steps -> (step -> learning rate).
    watch: a further scaling of the updates that depends on the loss, such as a
      plateau rule.
  """

  rate: Callable[[int], optax.Schedule]
  watch: optax.GradientTransformation = optax.identity()


class PlateauState(NamedTuple):
  """The state of a plateau rule.

  Attributes:
    rule: the state of `optax.contrib.reduce_on_plateau`.
    ended: whether the loss has stopped falling at the final rate too, bool.
  """

  rule: Any
  ended: Array


def ended(state: optax.OptState) -> bool:
  """Says whether a plateau rule in an optimizer's state has ended training.

  Args:
    state: the state of an optimizer made here, with or without such a rule.
  """
  return any(map(bool, ends(state)))


def ends(state: optax.OptState) -> list[Array]:
  """Returns whether each plateau rule in a state has ended training, bool.

  Unlike `ended` it can be traced.

  Args:
    state: see `ended`.
  """

  def is_rule(x: Any) -> bool:
    return isinstance(x, PlateauState)

  leaves = jax.tree.leaves(state, is_leaf=is_rule)
  return [x.ended for x in leaves if is_rule(x)]


def cosine(
  *, rate: float = 0.1, warmup: float = 0.0, final: float = 0.0
) -> Schedule:
  """Lowers the learning rate from `rate` to `final` along half a cosine.

  Args:
    rate: the highest learning rate.
    warmup: the fraction of the run over which the rate first rises linearly
      from 0.
    final: the last learning rate.

  Raises:
    UsageError: a number is out of its range.
  """
  _check(rate, warmup)
  checks.number('final', final, at_least=0)

  def make(num_steps: int) -> optax.Schedule:
    steps = num_steps - _warmup_steps(num_steps, warmup)
    main = optax.cosine_decay_schedule(rate, max(1, steps), final / rate)
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def linear(
  *, rate: float = 0.1, warmup: float = 0.0, final: float = 0.0
) -> Schedule:
  """Lowers the learning rate from `rate` to `final` linearly.

  Args:
    rate: the highest learning rate.
    warmup: the fraction of the run over which the rate first rises linearly
      from 0.
    final: the last learning rate.

  Raises:
    UsageError: a number is out of its range.
  """
  _check(rate, warmup)
  checks.number('final', final, at_least=0)

  def make(num_steps: int) -> optax.Schedule:
    steps = num_steps - _warmup_steps(num_steps, warmup)
    main = optax.linear_schedule(rate, final, max(1, steps))
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def polynomial(
  *,
  rate: float = 0.01,
  power: float = 0.9,
  warmup: float = 0.0,
  final: float = 0.0,
) -> Schedule:
  """Lowers the learning rate to `final` as a power of the steps that are left.

  At the fraction t of the run, the rate is
  `final + (rate - final) * (1 - t)**power`. It is the usual schedule of
  segmentation.

  Args:
    rate: the highest learning rate.
    power: the power.
    warmup: the fraction of the run over which the rate first rises linearly
      from 0.
    final: the last learning rate.

  Raises:
    UsageError: a number is out of its range.
  """
  _check(rate, warmup)
  checks.number('power', power, above=0)
  checks.number('final', final, at_least=0)

  def make(num_steps: int) -> optax.Schedule:
    steps = num_steps - _warmup_steps(num_steps, warmup)
    main = optax.polynomial_schedule(rate, final, power, max(1, steps))
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def step(
  *,
  rate: float = 0.05,
  boundaries: Sequence[float] = (0.625, 0.75, 0.875),
  factor: float = 0.1,
  warmup: float = 0.0,
) -> Schedule:
  """Multiplies the learning rate by `factor` at each boundary.

  Args:
    rate: the first learning rate.
    boundaries: fractions of the run; the default corresponds to epochs 150, 180
      and 210 of 240.
    factor: the factor, below 1.
    warmup: the fraction of the run over which the rate first rises linearly
      from 0.

  Raises:
    UsageError: a number is out of its range.
  """
  _check(rate, warmup)
  checks.number('factor', factor, above=0, below=1)
  for boundary in boundaries:
    checks.number('boundaries', boundary, at_least=0, at_most=1)

  def make(num_steps: int) -> optax.Schedule:
    before = _warmup_steps(num_steps, warmup)
    scales: dict[int, float] = {}
    # In a short run, several boundaries can fall on one step.
    for boundary in boundaries:
      at = round(boundary * num_steps) - before
      scales[at] = scales.get(at, 1.0) * factor
    main = optax.piecewise_constant_schedule(rate, scales)
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def constant(*, rate: float = 0.01, warmup: float = 0.0) -> Schedule:
  """Keeps the learning rate constant.

  Args:
    rate: the learning rate.
    warmup: the fraction of the run over which the rate first rises linearly
      from 0.

  Raises:
    UsageError: a number is out of its range.
  """
  _check(rate, warmup)

  def make(num_steps: int) -> optax.Schedule:
    main = optax.constant_schedule(rate)
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def plateau(
  *,
  rate: float = 0.01,
  factor: float = 0.1,
  patience: int = 5,
  threshold: float = 1e-3,
  window: int = 100,
  final: float = 1e-5,
) -> Schedule:
  """Multiplies the learning rate by `factor` when the loss stops falling.

  When the training loss has stopped falling at the final rate too, the phase
  ends with that epoch, even if it has steps left.

  Args:
    rate: the first learning rate.
    factor: the factor, between 0 and 1.
    patience: the number of windows without improvement after which the rate
      falls.
    threshold: the smallest relative change that counts as an improvement.
    window: the number of steps over which the loss is averaged, for example
      those of an epoch.
    final: the smallest learning rate.

  Raises:
    UsageError: a number is out of its range, so that the rate would never fall
      or fall immediately.
  """
  _check(rate)
  for name, value, least, most in (
    ('factor', factor, 0, 1),
    ('patience', patience, 0, None),
    ('threshold', threshold, 0, 1),
    ('window', window, 0, None),
    ('final', final, 0, rate),
  ):
    checks.number(name, value, above=least, below=most)
  lowest = final / rate
  rule = optax.contrib.reduce_on_plateau(
    factor=factor,
    patience=patience,
    rtol=threshold,
    accumulation_size=window,
    min_scale=lowest,
  )

  def init(params: optax.Params) -> PlateauState:
    return PlateauState(rule.init(params), jnp.array(False))

  def update(updates, state, params=None, *, value, **extra):
    del params, extra
    before = state.rule
    updates, after = rule.update(updates, before, value=value)
    # The rule's count restarts at each reduction. At the lowest scale a
    # reduction changes nothing, and a restart there means that it is exhausted.
    exhausted = (
      (before.scale <= lowest * 1.001)
      & (before.plateau_count == patience - 1)
      & (after.count == 0)
      & (after.best_value == before.best_value)
    )
    return updates, PlateauState(after, state.ended | exhausted)

  watch = optax.GradientTransformationExtraArgs(init, update)
  return Schedule(lambda num_steps: optax.constant_schedule(rate), watch)


def _check(rate: float, warmup: float = 0.0) -> None:
  """Checks the arguments that most schedules share."""
  checks.number('rate', rate, above=0, at_most=1e4)
  checks.number('warmup', warmup, at_least=0, below=1)


def _warmup_steps(num_steps: int, warmup: float) -> int:
  return round(warmup * num_steps)


def _warmed_up(
  main: optax.Schedule, rate: float, num_steps: int, warmup: float
) -> optax.Schedule:
  """Puts a linear rise from 0 before a schedule."""
  steps = _warmup_steps(num_steps, warmup)
  if not steps:
    return main
  rising = optax.linear_schedule(0.0, rate, steps)
  return optax.join_schedules([rising, main], [steps])
