"""The file that a finished phase leaves in the directory of its run."""

import os
import pathlib

from jaxdistill.core.types import Carry
from jaxdistill.training import checkpoint
from jaxdistill.training.options import FitOptions, Fitted, PhaseCost


def path(options: FitOptions, name: str) -> pathlib.Path | None:
  """Returns a path in the directory of a run; None if it is not stored."""
  return (
    None if options.directory is None else pathlib.Path(options.directory, name)
  )


def save(path: str | os.PathLike[str], fitted: Fitted, before: Fitted) -> None:
  """Writes what a phase changed, with the best models beside the carry.

  Args:
    path: the file.
    fitted: the result after the phase.
    before: the result before it.
  """
  meta = {
    'best_step': fitted.best_step,
    'steps': fitted.steps,
    'seconds': fitted.seconds,
    'reports': fitted.reports,
    'costs': [cost._asdict() for cost in fitted.costs],
  }
  checkpoint.save_carry(path, _entries(fitted), _entries(before), meta)


def load(path: str | os.PathLike[str], before: Fitted) -> Fitted:
  """Returns the result after a phase, from the file that `save` wrote.

  Args:
    path: the file.
    before: the result before the phase.
  """
  carry, meta = checkpoint.load_carry(path, _entries(before))
  best = {role: carry.pop(f'{role}@best') for role in meta['best_step']}
  return Fitted(
    carry,
    best,
    meta['best_step'],
    meta['steps'],
    meta['seconds'],
    meta['reports'],
    tuple(PhaseCost(**cost) for cost in meta.get('costs', ())),
  )


def _entries(fitted: Fitted) -> Carry:
  best = {f'{role}@best': model for role, model in fitted.best.items()}
  return {**fitted.carry, **best}
