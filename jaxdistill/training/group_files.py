"""The file that says which runs train together: seeds, rows, or trials.

Each of their checkpoints holds the arrays of all of these runs, so training can
only continue with the same ones. A run is known by its seed, or by its label if
there are several rows.
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
  options: FitOptions, runs: Sequence[int | str]
) -> dict[int | str, NonFiniteLossError]:
  """Notes which runs train together, if there are several.

  Args:
    options: name the directory of their checkpoints.
    runs: their seeds or labels.

  Returns:
    Name -> how it failed, for the runs that are known to diverge.

  Raises:
    UsageError: other runs began together in this directory.
  """
  if options.directory is None or len(runs) == 1:
    return {}
  path = pathlib.Path(options.directory, FILE)
  if not path.exists():
    checkpoint.write_json(path, {'runs': list(runs), 'diverged': {}})
  check(options.directory, runs)
  content = json.loads(path.read_text())
  by_text = {str(name): name for name in runs}
  return {
    by_text[name]: NonFiniteLossError(message)
    for name, message in content['diverged'].items()
  }


def check(directory: str | os.PathLike[str], runs: Sequence[int | str]) -> None:
  """Checks that runs are those which began together in a directory.

  Raises:
    UsageError: other runs began together there.
  """
  begun = names(directory)
  if begun and begun != tuple(runs):
    what = 'seeds' if isinstance(begun[0], int) else 'runs'
    raise UsageError(
      f'together: expected the {what} {list(begun)}, which began together, got '
      f'{list(runs)}; to begin again, delete {directory}'
    )


def keep(options: FitOptions, outcomes: Mapping[int | str, Any]) -> None:
  """Notes which runs have diverged, so that they are not tried again."""
  diverged = {
    str(name): str(outcome)
    for name, outcome in outcomes.items()
    if isinstance(outcome, NonFiniteLossError)
  }
  if options.directory is not None and len(outcomes) > 1 and diverged:
    path = pathlib.Path(options.directory, FILE)
    content = {'runs': list(outcomes), 'diverged': diverged}
    checkpoint.write_json(path, content)


def names(directory: str | os.PathLike[str]) -> tuple[int | str, ...]:
  """Returns the runs that began together in a directory, or ()."""
  path = pathlib.Path(directory, FILE)
  if not path.exists():
    return ()
  return tuple(json.loads(path.read_text())['runs'])
