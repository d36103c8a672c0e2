"""Parts of a phase that jobs of their own have trained.

Each job trains in a folder of its own in the directory of the run, and leaves
the file of its phase there.
"""

import os
import pathlib

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import PhaseBuilder
from jaxdistill.phases import parts as parts_lib
from jaxdistill.training import phase_files
from jaxdistill.training.distributed import hosts
from jaxdistill.training.options import FitOptions, Fitted, PhaseCost

# A part's role -> stages, and the result of its job.
Trained = tuple[parts_lib.Trained, Fitted]


def folder(directory: str | os.PathLike[str], index: int) -> pathlib.Path:
  """Returns the folder in which a job trains one part.

  Args:
    directory: the directory of the run.
    index: the position of the part, from 0.
  """
  return pathlib.Path(directory, 'pieces', str(index))


def trained(
  build: PhaseBuilder, order: int, before: Fitted, options: FitOptions
) -> list[Trained]:
  """Returns the parts of a phase that jobs have trained: all of them, or none.

  Args:
    build: builds the phase.
    order: its position in the method.
    before: the result before it.
    options: name the directory of the run.

  Raises:
    UsageError: only some of the parts have been trained.
  """
  if options.directory is None or not isinstance(build, parts_lib.InParts):
    return []
  parts = build.parts(before.carry)
  files = {
    name: folder(options.directory, i) / f'phase{order}.safetensors'
    for i, name in enumerate(parts)
  }
  missing = [
    f'{i} ({name})'
    for i, (name, file) in enumerate(files.items())
    if not hosts.of_first(file.exists)
  ]
  if len(missing) == len(files):
    return []
  if missing:
    raise UsageError(
      f'{options.directory}: expected all pieces or none, got no piece '
      f'{", ".join(missing)}; train them with --piece, or delete '
      f'{folder(options.directory, 0).parent}'
    )
  return [(parts[k], phase_files.load(f, before)) for k, f in files.items()]


def joined(before: Fitted, parts: list[Trained]) -> Fitted:
  """Returns the result of a phase whose parts were trained apart.

  Its steps are those of the longest part, and its costs the sums over parts.

  Args:
    before: the result before the phase.
    parts: what `trained` returned.
  """
  carry = before.carry
  for part, fitted in parts:
    carry = parts_lib.joined(carry, fitted.carry, part)
  costs = [fitted.costs[-1] for _, fitted in parts]
  cost = PhaseCost(
    costs[0].phase,
    max(cost.steps for cost in costs),
    *(
      sum(getattr(cost, field) for cost in costs)
      for field in ('seconds', 'compile_seconds', 'device_seconds')
    ),
  )
  return before._replace(
    carry=carry,
    steps=before.steps + cost.steps,
    seconds=before.seconds + cost.seconds,
    costs=(*before.costs, cost),
  )
