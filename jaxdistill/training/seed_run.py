"""One seed of a running phase: its records, its best models and its result."""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.types import Model, Phase, PhaseBuilder, PyTree
from jaxdistill.training.distributed import sharding
from jaxdistill.training.log import Log
from jaxdistill.training.options import (
  FitOptions,
  Fitted,
  NonFiniteLossError,
  PhaseCost,
)


class Best(NamedTuple):
  """When a role was best so far; the model itself is on the devices.

  Attributes:
    quality: its score; with the opposite sign if lower scores are better.
    step: the step at the end of that epoch.
  """

  quality: float
  step: int


class SeedRun:
  """The state of one seed, apart from its arrays, while its phase runs."""

  def __init__(
    self,
    name: int | str,
    seed: int,
    build: PhaseBuilder,
    phase: Phase,
    before: Fitted,
    log: Log,
  ):
    """Prepares the run.

    Args:
      name: its name among runs that train together, a number for a seed.
      seed: the seed.
      build: the function that built the phase.
      phase: the phase, built from what the phase before handed on.
      before: the result of the phases before it.
      log: where its metrics go.
    """
    self.name = f'seed {name}' if isinstance(name, int) else name
    self.seed = seed
    self.build = build
    self.phase = phase
    self.before = before
    self.log = log
    self.frozen: PyTree = None
    self.ended: int | None = None  # the number of steps taken, once it is done
    self.failure: NonFiniteLossError | None = None
    self._best: dict[str, Best] = {}
    self.best_variables: dict[str, PyTree] = {}

  @property
  def is_active(self) -> bool:
    """Whether it still takes steps."""
    return self.ended is None and self.failure is None

  def fail(self, what: str, step: int, saved: int) -> None:
    """Ends the seed because its loss or state is not finite.

    Args:
      what: what is not finite, 'loss' or 'state'.
      step: the number of steps after which it was seen.
      saved: the step of the last checkpoint; 0: there is none.
    """
    self.failure = NonFiniteLossError(
      f'the {what} is not finite at step {step} of phase '
      f'{self.phase.name!r}; last good checkpoint of this phase: '
      f'{saved or "none"}; a lower rate of the schedule or the key clip of the '
      'optimizer may help'
    )

  def start_best(self, state: PyTree, frozen: PyTree) -> None:
    """Begins to keep the best model of each role in the carry."""
    self.best_variables = {
      name: sharding.copied(eval_model(state, frozen).variables)
      for name, eval_model in self.phase.eval_models.items()
      if name in self.before.carry
    }
    self._best = {name: Best(-np.inf, 0) for name in self.best_variables}

  def kept(self) -> dict[str, Any]:
    """Returns what a checkpoint holds besides arrays, as JSON."""
    return {
      'best': {name: list(best) for name, best in self._best.items()},
      'ended': self.ended,
      'failure': None if self.failure is None else str(self.failure),
    }

  def restore(self, kept: dict[str, Any], best_variables: PyTree) -> None:
    """Continues from what `kept` returned."""
    self._best = {name: Best(*best) for name, best in kept['best'].items()}
    self.best_variables = best_variables
    self.ended = kept.get('ended')
    if kept.get('failure') is not None:
      self.failure = NonFiniteLossError(kept['failure'])

  def evaluate(
    self, state: PyTree, frozen: PyTree, step: int, options: FitOptions
  ) -> dict[str, dict[str, float]]:
    """Evaluates the phase's models, and keeps each role's best one.

    A model whose loss is not finite is never the best one.

    Args:
      state: the state of this seed.
      frozen: what is frozen.
      step: the number of steps taken.
      options: how models are evaluated.

    Returns:
      Name of the split in the log -> metrics.
    """
    assert options.evaluate is not None
    records = {}
    for name, eval_model in self.phase.eval_models.items():
      model = eval_model(state, frozen)
      metrics = options.evaluate(model)
      is_only_one = list(self._best) == [name]
      split = 'validation' if is_only_one else f'validation/{name}'
      records[split] = {**metrics}
      best = self._best.get(name)
      if best is None:
        continue
      checks.choice('score', options.score.name, metrics)
      quality = options.score.quality(metrics[options.score.name])
      is_valid = math.isfinite(metrics.get('loss', 0.0))
      if is_valid and quality > best.quality:
        self._best[name] = Best(quality, step)
        self.best_variables[name] = sharding.copied(model.variables)
    return records

  def result(
    self,
    state: PyTree,
    best_variables: dict[str, PyTree],
    cost: PhaseCost,
  ) -> Fitted:
    """Finishes the phase and adds it to the result of the phases before.

    Args:
      state: the last state of this seed, on one device.
      best_variables: the variables of the best models, on one device.
      cost: what the phase cost.
    """
    phase, before = self.phase, self.before
    carry = phase.finish(state, self.frozen, before.carry)
    report = phase.report(state, carry)
    best: dict[str, Model] = {}
    for name, eval_model in phase.eval_models.items():
      if name in self._best:
        network = eval_model(state, self.frozen).network
        best[name] = Model(network, best_variables[name])
    best_step = {name: entry.step for name, entry in self._best.items()}
    return Fitted(
      carry=carry,
      best={**before.best, **best},
      best_step={**before.best_step, **best_step},
      steps=before.steps + cost.steps,
      seconds=before.seconds + cost.seconds,
      reports={**before.reports, **report},
      costs=(*before.costs, cost) if cost.steps else before.costs,
    )
