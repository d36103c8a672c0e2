"""Optimisers and schedules by their common names, on top of optax.

Schedules are functions of the number of steps, and say when things happen as
shares of the run: a shorter run keeps its shape.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.types import Array, UsageError

Optimizer = Callable[[int], optax.GradientTransformation]  # of num_steps


class Schedule(NamedTuple):
  """A learning rate.

  Attributes:
    rate: num_steps -> (step -> rate).
    watch: what scales the updates besides, such as a plateau rule.
  """

  rate: Callable[[int], optax.Schedule]
  watch: optax.GradientTransformation = optax.identity()


class PlateauState(NamedTuple):
  """State of a plateau rule.

  Attributes:
    rule: of `optax.contrib.reduce_on_plateau`.
    ended: whether the loss has stopped falling at the final rate too, bool.
  """

  rule: Any
  ended: Array


def ended(state: optax.OptState) -> bool:
  """Whether a plateau rule in an optimiser's state has come to its end."""

  def is_rule(x: Any) -> bool:
    return isinstance(x, PlateauState)

  found = jax.tree.leaves(state, is_leaf=is_rule)
  return any(bool(x.ended) for x in found if is_rule(x))


def sgd(
  schedule: Schedule,
  *,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 5e-4,
  clip: float | None = None,
) -> Optimizer:
  """SGD; weight decay is added to the gradient of every parameter.

  Args:
    schedule: the rate.
    momentum: below 1; 0: none.
    nesterov: the kind of momentum.
    weight_decay: coupled, as PyTorch's SGD does it.
    clip: largest global norm of the gradient, before weight decay.

  Raises:
    UsageError: a number that is out of its range.
  """

  _check_share('momentum', momentum)
  _check_decay(weight_decay, clip)

  def make(num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
      _clip(clip),
      optax.add_decayed_weights(weight_decay),
      optax.sgd(schedule.rate(num_steps), momentum or None, nesterov),
      schedule.watch,
    )

  return make


def lars(
  schedule: Schedule,
  *,
  trust: float = 0.1,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
) -> Optimizer:
  """SGD whose gradient of each kernel is `trust` times as long as the kernel.

  So one rate suits kernels of any size; biases and norms learn as by `sgd`.

  Args:
    schedule: the rate.
    trust: above 0.
    momentum: below 1; 0: none. It is Nesterov's.
    weight_decay: added to the gradient before it is scaled.

  Raises:
    UsageError: a number that is out of its range.

  References:
    You et al., Large Batch Training of Convolutional Networks, 2017,
    https://arxiv.org/abs/1708.03888
  """

  if not 0 < trust < math.inf:
    raise UsageError(f'optimizer.trust: {trust} is no number above 0')
  _check_share('momentum', momentum)
  _check_decay(weight_decay, None)

  def kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda x: x.ndim > 1, params)

  def make(num_steps: int) -> optax.GradientTransformation:
    scaled = optax.scale_by_trust_ratio(trust_coefficient=trust)
    return optax.chain(
      optax.add_decayed_weights(weight_decay),
      optax.masked(scaled, kernels),
      optax.sgd(schedule.rate(num_steps), momentum or None, nesterov=True),
      schedule.watch,
    )

  return make


def adamw(
  schedule: Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  weight_decay: float = 0.05,
  clip: float | None = None,
) -> Optimizer:
  """AdamW; weight decay is decoupled.

  Args:
    schedule: the rate.
    b1: decay of the first moment.
    b2: decay of the second moment.
    weight_decay: times the rate.
    clip: largest global norm of the gradient.

  Raises:
    UsageError: a number that is out of its range.
  """

  for name, value in (('b1', b1), ('b2', b2)):
    _check_share(name, value)
  _check_decay(weight_decay, clip)

  def make(num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
      _clip(clip),
      optax.adamw(schedule.rate(num_steps), b1, b2, weight_decay=weight_decay),
      schedule.watch,
    )

  return make


def cosine(
  *, rate: float = 0.1, warmup: float = 0.0, final: float = 0.0
) -> Schedule:
  """Half a cosine from `rate` to `final`.

  Args:
    rate: the highest.
    warmup: share of the run in which the rate rises from 0 in a line.
    final: the last.
  """

  _check(rate, warmup)

  def make(num_steps: int) -> optax.Schedule:
    steps = num_steps - _warmup_steps(num_steps, warmup)
    main = optax.cosine_decay_schedule(rate, max(1, steps), final / rate)
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def linear(
  *, rate: float = 0.1, warmup: float = 0.0, final: float = 0.0
) -> Schedule:
  """A line from `rate` to `final`; arguments as `cosine`."""

  _check(rate, warmup)

  def make(num_steps: int) -> optax.Schedule:
    steps = num_steps - _warmup_steps(num_steps, warmup)
    main = optax.linear_schedule(rate, final, max(1, steps))
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def step(
  *,
  rate: float = 0.05,
  boundaries: Sequence[float] = (0.625, 0.75, 0.875),
  factor: float = 0.1,
  warmup: float = 0.0,
) -> Schedule:
  """The rate is multiplied by `factor` at each boundary.

  Args:
    rate: the first.
    boundaries: shares of the run; the default is epochs 150, 180, 210 of 240.
    factor: below 1.
    warmup: share of the run in which the rate rises from 0 in a line.
  """

  _check(rate, warmup)

  def make(num_steps: int) -> optax.Schedule:
    before = _warmup_steps(num_steps, warmup)
    scales: dict[int, float] = {}
    for boundary in boundaries:  # in a short run, several at one step
      at = round(boundary * num_steps) - before
      scales[at] = scales.get(at, 1.0) * factor
    main = optax.piecewise_constant_schedule(rate, scales)
    return _warmed_up(main, rate, num_steps, warmup)

  return Schedule(make)


def constant(*, rate: float = 0.01, warmup: float = 0.0) -> Schedule:
  """The same rate throughout; `warmup` as `cosine`."""

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
  """The rate is multiplied by `factor` when the training loss stops falling.

  When it has stopped falling at the final rate too, the phase ends with the
  epoch, whatever is left of its steps.

  Args:
    rate: the first.
    factor: between 0 and 1.
    patience: windows without improvement.
    threshold: smallest relative improvement.
    window: steps over which the loss is averaged, such as an epoch's.
    final: smallest rate.

  Raises:
    UsageError: a number with which the rate never falls, or falls at once.
  """
  _check(rate)
  for name, value, least, most in (
    ('factor', factor, 0, 1),
    ('patience', patience, 0, math.inf),
    ('threshold', threshold, 0, 1),
    ('window', window, 0, math.inf),
    ('final', final, 0, rate),
  ):
    if not least < value < most:
      raise UsageError(
        f'schedule.{name}: {value} is not above {least} and below {most}'
      )
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
    # The count begins anew at a reduction, which at the lowest scale is none.
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
  if not 0 < rate < math.inf:
    raise UsageError(f'schedule.rate: {rate} is no number above 0')
  if not 0 <= warmup < 1:
    raise UsageError(f'schedule.warmup: {warmup} is no share in [0, 1)')


def _check_share(name: str, value: float) -> None:
  if not 0 <= value < 1:
    raise UsageError(f'optimizer.{name}: {value} is not in [0, 1)')


def _check_decay(weight_decay: float, clip: float | None) -> None:
  if not 0 <= weight_decay < math.inf:
    raise UsageError(
      f'optimizer.weight_decay: {weight_decay} is no number from 0'
    )
  if clip is not None and not 0 < clip < math.inf:
    raise UsageError(f'optimizer.clip: {clip} is no number above 0, nor None')


def _clip(norm: float | None) -> optax.GradientTransformation:
  return optax.identity() if norm is None else optax.clip_by_global_norm(norm)


def _warmup_steps(num_steps: int, warmup: float) -> int:
  return round(warmup * num_steps)


def _warmed_up(
  main: optax.Schedule, rate: float, num_steps: int, warmup: float
) -> optax.Schedule:
  steps = _warmup_steps(num_steps, warmup)
  if not steps:
    return main
  rising = optax.linear_schedule(0.0, rate, steps)
  return optax.join_schedules([rising, main], [steps])
