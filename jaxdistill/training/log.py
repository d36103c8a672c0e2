"""Where the numbers of a run go: metrics.jsonl, TensorBoard, a progress bar."""

from collections.abc import Mapping, Sequence
import copy
import json
import os
import pathlib
import sys
import threading
import time
from typing import Any

from jaxdistill.core import writing
from jaxdistill.training.log_files import Board, Records
from jaxdistill.training.trackers import TrackedRun


class Log:
  """Writes the records of one run; each has 'phase', 'step' and 'split'.

  The `labels` (such as row and seed) tell which run a record belongs to, so
  several runs may share one metrics.jsonl.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str] | None = None,
    *,
    name: str = '',
    labels: Mapping[str, Any] | None = None,
    show: bool = True,
    tracked: Sequence[TrackedRun] = (),
  ):
    """Opens a log.

    Args:
      directory: the folder of metrics.jsonl and tensorboard/; None: nothing is
        written.
      name: the name of the progress bar and of the run in TensorBoard.
      labels: entries that every record gets.
      show: whether to show progress.
      tracked: the run in each tracker; whoever started these runs ends them.
    """
    self._tracked = tuple(tracked)
    self._labels = dict(labels or {})
    self._directory = None if directory is None else pathlib.Path(directory)
    self._name = name
    self._bar = _Bar() if show else None
    self._records: Records | None = None
    self._board: Board | None = None
    self._offset = 0

  def silent(self) -> 'Log':
    """Returns a log of the same run that shows no progress."""
    log = copy.copy(self)
    log._bar = None
    return log

  def begin(
    self,
    order: int,
    phase: str,
    step: int,
    num_steps: int,
    offset: int,
    score: str = '',
  ) -> None:
    """Starts a phase at a step and removes this run's later records.

    Args:
      order: the position of the phase in its method, from 0.
      phase: the name of the phase.
      step: how many of its steps are done.
      num_steps: how many steps the phase has.
      offset: the number of steps of the phases before it.
      score: the metric that the progress bar shows besides the loss.
    """
    self._place = {**self._labels, 'order': order, 'phase': phase}
    self._offset = offset
    if self._directory is not None:
      self._close_files()
      path = self._directory / 'metrics.jsonl'
      drop_records(path, self._labels, order, step)
      folder = self._directory / 'tensorboard' / self._name.replace('/', '-')
      self._board = Board(folder, offset + step)
    if self._bar:
      is_named = self._name.startswith(phase) or not self._name
      title = (self._name or phase) if is_named else f'{self._name}: {phase}'
      self._bar.begin(title, step, num_steps, ('loss', score))
      if step:
        self._bar.say(f'{title}: resuming at step {step} of {num_steps}')

  def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
    """Adds a record.

    Args:
      step: the number of steps that the phase has taken.
      split: the split of the data that the metrics belong to.
      metrics: {name: value}.
    """
    if self._directory is not None and self._board is not None:
      if self._records is None:
        # The file is opened only here, because other logs replace it when they
        # begin.
        self._records = Records(self._directory / 'metrics.jsonl')
      place = {**self._place, 'step': step, 'split': split}
      self._records.write({**place, **metrics})
      for key, value in metrics.items():
        self._board.add_scalar(
          f'{self._place["phase"]}/{split}/{key}', value, self._offset + step
        )
    for run in self._tracked:
      phase = self._place['phase']
      named = {f'{phase}/{split}/{key}': v for key, v in metrics.items()}
      run.log(self._offset + step, named)
    if self._bar:
      self._bar.show(split, metrics)

  def advance(self, step: int, images: int = 0) -> None:
    """Moves the progress bar to a step.

    Args:
      step: the number of steps that the phase has taken.
      images: how many images this process has seen since it began the phase.
    """
    if self._bar:
      self._bar.advance(step, images)

  def say(self, text: str) -> None:
    """Prints a line above the progress bar."""
    if self._bar:
      self._bar.say(text)

  def end(self) -> None:
    """Ends a phase."""
    self._close_files()
    if self._bar:
      self._bar.end()

  def close(self) -> None:
    """Leaves a phase that may not have ended, and restores the terminal."""
    self._close_files()
    if self._bar:
      self._bar.stop()

  def _close_files(self) -> None:
    for file in (self._records, self._board):
      if file is not None:
        file.close()
    self._records = self._board = None


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the records of a metrics.jsonl, without lines cut short."""
  path = pathlib.Path(path)
  if not path.exists():
    return []
  records = []
  for line in path.read_text(errors='replace').splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:  # the process was killed while writing it
      continue
    if isinstance(record, dict):
      records.append(record)
  return records


def drop_records(
  path: str | os.PathLike[str], labels: Mapping[str, Any], order: int, step: int
) -> None:
  """Removes the records of a run that come after a step of a phase.

  Args:
    path: the metrics.jsonl; records of other runs are kept.
    labels: the entries that tell which records belong to the run.
    order: the position of the phase in its method.
    step: the last step of that phase whose records are kept.
  """
  path = pathlib.Path(path)
  lines = []
  with writing.reported(path):
    records = read_records(path)
  for record in records:
    is_of_run = all(record.get(k) == v for k, v in labels.items())
    if not is_of_run or (record['order'], record['step']) <= (order, step):
      lines.append(json.dumps(record) + '\n')
  writing.write(path, ''.join(lines))


# The time of a phase is estimated from so many seconds and steps at least. If
# the first step takes longer, a line says why.
_SECONDS, _STEPS = 10.0, 10


class _Bar:
  """A progress bar on a terminal, and one line per phase elsewhere."""

  def __init__(self) -> None:
    import rich.console  # only those who watch a run need it

    self._console = rich.console.Console(file=sys.stderr)
    self._progress: Any = None
    self._latest: dict[str, str] = {}
    self._waiting = threading.Timer(0, lambda: None)

  def begin(
    self, title: str, step: int, num_steps: int, shown: tuple[str, ...]
  ) -> None:
    self.stop()
    self._title, self._num_steps, self._shown = title, num_steps, shown
    self._speed, self._begun = 0.0, (0.0, 0, 0)
    self._latest, self._is_estimated = {}, False
    if self._console.is_terminal:
      import rich.progress

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
        title, total=num_steps, completed=step, numbers='compiling'
      )
      self._progress.start()
    else:
      first = f'{title}: XLA compiles, before the first of {num_steps} steps'
      self._waiting = threading.Timer(_SECONDS, self.say, (first,))
      self._waiting.daemon = True
      self._waiting.start()

  def show(self, split: str, metrics: Mapping[str, float]) -> None:
    for key in self._shown:
      if key in metrics:
        self._latest[f'{split} {key}'] = f'{metrics[key]:.3f}'

  def advance(self, step: int, images: int) -> None:
    now = time.monotonic()
    self._waiting.cancel()
    if not self._begun[1]:  # the first step includes the compilation
      self._begun = (now, images, step)
    elif now > self._begun[0]:
      self._speed = (images - self._begun[1]) / (now - self._begun[0])
      self._estimate(now - self._begun[0], step)
    if self._progress is not None:
      self._progress.update(
        self._task, completed=step, numbers=', '.join(self._numbers())
      )

  def _estimate(self, seconds: float, step: int) -> None:
    """Says once how long a long phase takes, where no bar shows it.

    Args:
      seconds: the time since the first step.
      step: the number of steps that the phase has taken.
    """
    steps = step - self._begun[2]
    if self._is_estimated or self._progress is not None:
      return
    if seconds < _SECONDS or steps < _STEPS:
      return
    self._is_estimated = True
    minutes = seconds / steps * (self._num_steps - step) / 60
    if minutes > 1:
      self.say(
        f'{self._title}: step {step} of {self._num_steps}, about '
        f'{minutes:.0f} minutes to go'
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
    self._waiting.cancel()
    if self._progress is not None:
      self._progress.stop()
      self._progress = None

  def _numbers(self) -> list[str]:
    speed = [f'{self._speed:.0f} images/s'] if self._speed else []
    return [f'{k} {v}' for k, v in self._latest.items()] + speed
