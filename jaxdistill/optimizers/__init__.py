"""Optimizers and learning-rate schedules by their common names, from optax.

An `Optimizer` is a function from the number of steps of a phase to an optax
optimizer. `sgd`, `adamw` and `lars` return such functions, and so may your own:
`lambda num_steps: optax.adam(optax.cosine_decay_schedule(1e-3, num_steps))`.
Schedules say when things happen as fractions of the run, so that a shorter run
keeps the same shape.

  rules.py: the optimizers, and the step that all phases take with them.
  schedules.py: the schedules, and the plateau rule that watches the loss.
"""

from jaxdistill.core.types import Optimizer
from jaxdistill.optimizers.rules import adamw, lars, sgd, update
from jaxdistill.optimizers.schedules import (
  PlateauState,
  Schedule,
  constant,
  cosine,
  ended,
  ends,
  linear,
  plateau,
  polynomial,
  step,
)

__all__ = [
  'Optimizer',
  'PlateauState',
  'Schedule',
  'adamw',
  'constant',
  'cosine',
  'ended',
  'ends',
  'lars',
  'linear',
  'plateau',
  'polynomial',
  'sgd',
  'step',
  'update',
]
