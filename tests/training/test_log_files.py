"""The files of a log: what they hold, and how a write that fails ends."""

import errno
import os
import shutil

import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from jaxdistill.core.checks import UsageError
from jaxdistill.training import log as log_lib
from jaxdistill.training import log_files


def events_in(folder):
  """The events of all files of TensorBoard in a folder, in order."""
  events = []
  for path in sorted(folder.glob('events.out.tfevents.*')):
    content = path.read_bytes()
    while content:
      length = int.from_bytes(content[:8], 'little')
      event, rest = content[12 : 12 + length], content[12 + length :]
      for part, checksum in ((content[:8], content[8:12]), (event, rest[:4])):
        expected = record_writer.masked_crc32c(part)
        assert int.from_bytes(checksum, 'little') == expected
      events.append(event_pb2.Event.FromString(event))
      content = rest[4:]
  return events


def opened(folder):
  """A log in its first phase."""
  log = log_lib.Log(folder, name='row', show=False)
  log.begin(0, 'a', 0, 2, 0)
  return log


def test_the_steps_in_tensorboard_continue_from_phase_to_phase(tmp_path):
  log = opened(tmp_path)
  log.write(1, 'train', {'loss': 0.5})
  log.write(2, 'train', {'loss': 0.25})
  log.end()
  log.begin(1, 'b', 0, 2, 2)
  log.write(1, 'train', {'loss': 2.0})
  log.end()
  written = []
  for event in events_in(tmp_path / 'tensorboard' / 'row'):
    if event.HasField('session_log'):
      written.append(('start', event.step))
    for value in event.summary.value:
      written.append((value.tag, event.step, value.simple_value))
  assert written == [
    ('start', 0),
    ('a/train/loss', 1, 0.5),
    ('a/train/loss', 2, 0.25),
    ('start', 2),
    ('b/train/loss', 3, 2.0),
  ]


def test_a_part_that_does_not_fit_on_the_disk_is_not_half_written(
  tmp_path, monkeypatch
):
  path = tmp_path / 'metrics.jsonl'
  records = log_files.Records(path)
  records.write({'step': 1})
  before = path.read_bytes()

  class Full:
    """A file on a disk with room for five more bytes."""

    def __init__(self, file):
      self.file = file

    def write(self, part):
      if path.stat().st_size > len(before):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      return self.file.write(part[:5])

    def __getattr__(self, name):
      return getattr(self.file, name)

  monkeypatch.setattr(records, '_file', Full(records._file))
  with pytest.raises(UsageError, match=r'metrics\.jsonl: .*No space left'):
    records.write({'step': 2})
  records.close()
  assert path.read_bytes() == before


def test_a_log_whose_folder_vanished_names_the_file(tmp_path):
  log = opened(tmp_path / 'run')
  log.write(1, 'train', {'loss': 0.5})
  shutil.rmtree(tmp_path / 'run')
  with pytest.raises(UsageError, match=r'run/metrics\.jsonl: .*No such file'):
    log.write(2, 'train', {'loss': 0.25})
  log.close()


@pytest.mark.parametrize('blocked', ['metrics.jsonl', 'tensorboard'])
def test_a_log_that_cannot_be_opened_names_the_path(tmp_path, blocked):
  if blocked == 'tensorboard':
    (tmp_path / blocked).write_text('a file in place of the folder')
  else:
    (tmp_path / blocked).mkdir()
  with pytest.raises(UsageError, match=f'{tmp_path}/{blocked}.*be written'):
    opened(tmp_path).write(1, 'train', {'loss': 0.5})


def test_tensorboard_on_a_full_disk_ends_the_run_instead_of_waiting(tmp_path):
  folder = tmp_path / 'tensorboard'
  board = log_files.Board(folder, 0)
  board.add_scalar('a', 1.0, 1)
  events = board._events
  assert events is not None
  events._file.close()
  with open('/dev/full', 'ab', buffering=0) as full:
    events._file = full
    for step in range(2, 40):  # more than any queue holds
      with pytest.raises(UsageError, match='No space left on device'):
        board.add_scalar('a', 1.0, step)
    board.close()


def test_a_bar_says_that_the_program_compiles_until_the_first_step(monkeypatch):
  bar = log_lib._Bar()
  monkeypatch.setattr(type(bar._console), 'is_terminal', True)
  bar.begin('kd', 0, 10, ())
  (task,) = bar._progress.tasks
  assert task.fields['numbers'] == 'compiling'
  bar.advance(1, 8)
  assert task.fields['numbers'] == ''
  bar.stop()


def test_where_no_bar_shows_it_a_line_says_that_a_program_compiles(
  monkeypatch, capsys
):
  monkeypatch.setattr(log_lib, '_SECONDS', 0.01)
  bar = log_lib._Bar()
  bar.begin('kd', 0, 10, ())
  bar._waiting.join()
  line = 'kd: XLA compiles, before the first of 10 steps\n'
  assert capsys.readouterr().err == line
  # If the first step is fast, the line is not needed.
  monkeypatch.setattr(log_lib, '_SECONDS', 60.0)
  bar.begin('kd', 0, 10, ())
  bar.advance(1, 8)
  bar._waiting.join(1.0)
  assert not bar._waiting.is_alive()
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
  ('seconds', 'line'),
  [(30, 'kd: step 20 of 1000, about 26 minutes to go\n'), (1, '')],
)
def test_a_long_phase_says_once_how_long_it_takes(
  seconds, line, monkeypatch, capsys
):
  now = [100.0]
  monkeypatch.setattr(log_lib.time, 'monotonic', lambda: now[0])
  bar = log_lib._Bar()
  bar.begin('kd', 0, 1000, ())
  for step, passed in ((1, 50), (20, seconds), (40, seconds)):
    now[0] += passed
    bar.advance(step, 8 * step)
  assert capsys.readouterr().err == line
