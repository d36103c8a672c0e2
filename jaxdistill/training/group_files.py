"""The file that says which seeds of a run train together.

Each of their checkpoints holds the arrays of all of these seeds, so training
can only continue with the same seeds.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from jaxdistill.core.checks import UsageError
from jaxdistill.training import checkpoint
from jaxdistill.training.options import FitOptions, NonFiniteLossError

FILE = 'together.json'


def begin(
  options: FitOptions, seeds: Sequence[int]
) -> dict[int, NonFiniteLossError]:
  """Notes which seeds train together, if there are several.

  Args:
    options: name the directory of their checkpoints.
    seeds: the seeds.

  Returns:
    Seed -> how it failed, for the seeds that are known to diverge.

  Raises:
    UsageError: other seeds began together in this directory.
  """
  if options.directory is None or len(seeds) == 1:
    return {}
  path = pathlib.Path(options.directory, FILE)
  if not path.exists():
    checkpoint.write_json(path, {'seeds': list(seeds), 'diverged': {}})
  content = json.loads(path.read_text())
  if content['seeds'] != list(seeds):
    raise UsageError(
      f'together: expected the seeds {content["seeds"]}, which began together '
      f'in {options.directory}, got {list(seeds)}'
    )
  return {
    int(seed): NonFiniteLossError(message)
    for seed, message in content['diverged'].items()
  }


def keep(options: FitOptions, outcomes: Mapping[int, Any]) -> None:
  """Notes which seeds have diverged, so that they are not tried again."""
  diverged = {
    str(seed): str(outcome)
    for seed, outcome in outcomes.items()
    if isinstance(outcome, NonFiniteLossError)
  }
  if options.directory is not None and len(outcomes) > 1 and diverged:
    path = pathlib.Path(options.directory, FILE)
    content = {'seeds': list(outcomes), 'diverged': diverged}
    checkpoint.write_json(path, content)


def seeds(directory: str | os.PathLike[str]) -> tuple[int, ...]:
  """Returns the seeds that began together in a directory, or ()."""
  path = pathlib.Path(directory, FILE)
  if not path.exists():
    return ()
  return tuple(json.loads(path.read_text())['seeds'])
