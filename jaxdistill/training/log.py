"""Where a run's numbers go: metrics.jsonl, TensorBoard, a progress bar."""

from collections.abc import Mapping
import json
import os
import pathlib
import sys
import time
from typing import Any

import rich.console
import rich.progress
import tensorboardX


class Log:
  """Writes the records of one run; each has 'phase', 'step' and 'split'.

  A record belongs to the run that its `labels` name ('row' and 'seed', say);
  runs may share one metrics.jsonl.
  """

  def __init__(
    self,
    directory: str | os.PathLike | None = None,
    *,
    name: str = '',
    labels: Mapping[str, Any] | None = None,
    show: bool = True,
  ):
    """Opens a log.

    Args:
      directory: holds metrics.jsonl and tensorboard/; None: nothing is written.
      name: what the progress bar and the TensorBoard run are called.
      labels: written into every record.
      show: whether to show progress.
    """
    self._labels = dict(labels or {})
    self._directory = None if directory is None else pathlib.Path(directory)
    self._name = name
    self._bar = _Bar() if show else None
    self._file: Any = None
    self._board: Any = None
    self._offset = 0

  def begin(
    self, order: int, phase: str, step: int, num_steps: int, offset: int
  ) -> None:
    """Starts a phase at a step; records of this run behind it are dropped.

    Args:
      order: place of the phase in its method.
      phase: its name.
      step: how many of its steps are done.
      num_steps: how many there are.
      offset: steps of the phases before.
    """
    self._place = {**self._labels, 'order': order, 'phase': phase}
    self._offset = offset
    if self._directory is not None:
      self._close_files()
      path = self._directory / 'metrics.jsonl'
      path.parent.mkdir(parents=True, exist_ok=True)
      drop_records(path, self._labels, order, step)
      self._file = path.open('a')
      self._board = tensorboardX.SummaryWriter(
        str(self._directory / 'tensorboard' / self._name.replace('/', '-')),
        purge_step=offset + step,
        write_to_disk=True,
      )
    if self._bar:
      named = self._name.startswith(phase) or not self._name
      title = (self._name or phase) if named else f'{self._name}: {phase}'
      self._bar.begin(title, step, num_steps)
      if step:
        self._bar.say(f'{title}: going on from step {step} of {num_steps}')

  def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Adds a record."""
    if self._file is not None:
      record = {**self._place, 'step': step, 'split': split, **metrics}
      self._file.write(json.dumps(record) + '\n')
      self._file.flush()
      for key, value in metrics.items():
        self._board.add_scalar(
          f'{self._place["phase"]}/{split}/{key}', value, self._offset + step
        )
    if self._bar:
      self._bar.show(split, metrics)

  def advance(self, step: int, images: int = 0) -> None:
    """Moves the progress bar to a step; `images` were seen since the start."""
    if self._bar:
      self._bar.advance(step, images)

  def say(self, text: str) -> None:
    """Prints a line beside the progress bar."""
    if self._bar:
      self._bar.say(text)

  def end(self) -> None:
    """Ends a phase."""
    self._close_files()
    if self._bar:
      self._bar.end()

  def close(self) -> None:
    """Leaves a phase that has not ended, with the terminal as it was."""
    self._close_files()
    if self._bar:
      self._bar.stop()

  def _close_files(self) -> None:
    if self._file is not None:
      self._file.close()
      self._board.close()
      self._file = self._board = None


def read_records(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The records of a metrics.jsonl, but for a last line cut short."""
  path = pathlib.Path(path)
  if not path.exists():
    return []
  records = []
  for line in path.read_text(errors='replace').splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:  # the process died while it wrote
      continue
    if isinstance(record, dict):
      records.append(record)
  return records


def drop_records(
  path: str | os.PathLike, labels: Mapping[str, Any], order: int, step: int
) -> None:
  """Removes a run's records behind a step of a phase, other runs' stay."""
  path = pathlib.Path(path)
  kept = []
  for record in read_records(path):
    own = all(record.get(k) == v for k, v in labels.items())
    if not own or (record['order'], record['step']) <= (order, step):
      kept.append(json.dumps(record) + '\n')
  partial = path.with_name(path.name + '.partial')
  partial.write_text(''.join(kept))
  os.replace(partial, path)


class _Bar:
  """A progress bar on a terminal, a line per phase elsewhere."""

  def __init__(self):
    self._console = rich.console.Console(file=sys.stderr)
    self._progress = None
    self._latest: dict[str, str] = {}

  def begin(self, title: str, step: int, num_steps: int) -> None:
    self.stop()
    self._title, self._num_steps = title, num_steps
    self._speed, self._begun = 0.0, (0.0, 0)
    self._latest = {}
    if self._console.is_terminal:
      self._progress = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}', markup=False),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.fields[numbers]}'),
        console=self._console,
        transient=True,
      )
      self._task = self._progress.add_task(
        title, total=num_steps, completed=step, numbers=''
      )
      self._progress.start()

  def show(self, split: str, metrics: Mapping[str, float]) -> None:
    for key in ('loss', 'top1'):
      if key in metrics:
        self._latest[f'{split} {key}'] = f'{metrics[key]:.3f}'

  def advance(self, step: int, images: int) -> None:
    now = time.monotonic()
    if not self._begun[1]:  # the first step compiles
      self._begun = (now, images)
    elif now > self._begun[0]:
      self._speed = (images - self._begun[1]) / (now - self._begun[0])
    if self._progress is not None:
      self._progress.update(
        self._task, completed=step, numbers=', '.join(self._numbers())
      )

  def say(self, text: str) -> None:
    self._console.print(text, markup=False, highlight=False, soft_wrap=True)

  def end(self) -> None:
    self.stop()
    if self._num_steps:
      numbers = self._numbers()
      self.say(', '.join([f'{self._title}: {self._num_steps} steps', *numbers]))
    self._latest = {}

  def stop(self) -> None:
    if self._progress is not None:
      self._progress.stop()
      self._progress = None

  def _numbers(self) -> list[str]:
    speed = [f'{self._speed:.0f} images/s'] if self._speed else []
    return [f'{k} {v}' for k, v in self._latest.items()] + speed
