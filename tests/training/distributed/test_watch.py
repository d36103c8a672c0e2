"""Which processes count as lost, and how the end of a connection is noticed."""

import socket
import threading
import time

import pytest

from jaxdistill.training.distributed import watch

PATIENCE = 20  # seconds


class UnreadStore:
  """Keeps what is written; reading returns nothing."""

  def __init__(self):
    self.written = {}

  def key_value_set(self, key, value, allow_overwrite):
    self.written[key] = value

  def key_value_dir_get(self, key):
    return []


@pytest.fixture
def judge():
  """(process -> (beats, points), seconds) -> the lost ones of 3 processes."""
  guard = watch.Watch(UnreadStore(), 0, 3, timeout=100)
  begun = time.monotonic()

  def lost(places, seconds):
    reports = {i: f'{beats} {points}' for i, (beats, points) in places.items()}
    return guard._lost(reports, begun + seconds)

  lost.watch = guard
  yield lost
  guard._parting.set()


def test_processes_that_are_all_at_the_same_point_may_take_their_time(judge):
  """For example while they compile."""
  for beats in range(50):
    assert judge({i: (beats, 7) for i in range(3)}, 10 * beats) == []


def test_a_silent_process_is_lost(judge):
  """Even if it is at the same point as the others."""
  for beats in range(11):
    places = {0: (beats, 7), 1: (0, 7), 2: (beats, 7)}
    assert judge(places, 10 * beats) == []
  assert judge({0: (11, 7), 1: (0, 7), 2: (11, 7)}, 110) == [1]


def test_a_process_that_never_reported_is_lost(judge):
  assert judge({0: (1, 0), 1: (1, 0)}, 99) == []
  assert judge({0: (2, 0), 1: (2, 0)}, 101) == [2]


def test_a_process_behind_is_lost_once_nobody_makes_progress(judge):
  for beats in range(11):
    places = {0: (beats, 7), 1: (beats, 7), 2: (beats, 6)}
    assert judge(places, 10 * beats) == []
  # Another process still makes progress.
  assert judge({0: (11, 8), 1: (11, 7), 2: (11, 6)}, 110) == []
  assert judge({0: (12, 8), 1: (12, 7), 2: (12, 6)}, 200) == []
  assert judge({0: (13, 8), 1: (13, 7), 2: (13, 6)}, 211) == [1, 2]


def test_after_an_error_a_silent_process_is_lost_sooner(judge):
  judge.watch._hurry = True
  for beats in range(4):
    places = {0: (beats, 7), 1: (beats, 7), 2: (0, 7)}
    assert judge(places, 5 * beats) == []
  assert judge({0: (4, 7), 1: (4, 7), 2: (0, 7)}, 20) == [2]


class Ended(BaseException):
  """Raised instead of ending the process."""


@pytest.mark.parametrize(
  ('code', 'together', 'accused'),
  [
    (0, True, []),
    (75, True, []),
    (2, False, ['process 1 ended with code 2']),
    (75, False, ['process 1 ended with code 75']),
  ],
)
def test_a_parting_process_keeps_its_exit_code_if_the_first_is_gone(
  monkeypatch, code, together, accused
):
  def end(*codes):
    raise Ended(*codes)

  store = UnreadStore()
  guard = watch.Watch(store, 1, 2, timeout=0.1)
  guard.part(code, together)
  verdicts = [v for k, v in store.written.items() if watch.VERDICT in k]
  assert verdicts == accused
  monkeypatch.setattr('os._exit', end)
  with pytest.raises(Ended) as ended:
    guard.first_is_gone()
  assert ended.value.args == (code,)


@pytest.fixture
def ends():
  """(near socket, far socket, event set when the far side has ended)."""
  gone = threading.Event()
  server = socket.create_server(('127.0.0.1', 0))
  host, port = server.getsockname()
  address = watch.relay(f'{host}:{port}', gone.set)
  near = socket.create_connection(address.split(':'), PATIENCE)
  far, _ = server.accept()
  with server, near, far:
    far.settimeout(PATIENCE)
    yield near, far, gone


def test_a_relay_copies_bytes_in_both_directions(ends):
  near, far, gone = ends
  for sender, receiver in ((near, far), (far, near)):
    sender.sendall(b'x' * 100_000)
    received = b''
    while len(received) < 100_000:
      received += receiver.recv(1 << 20)
    assert received == b'x' * 100_000
  assert not gone.is_set()


def test_a_relay_reports_that_the_far_side_ended(ends):
  _, far, gone = ends
  far.close()
  assert gone.wait(PATIENCE)


def test_a_relay_does_not_report_that_the_near_side_ended(ends):
  near, far, gone = ends
  near.close()
  assert far.recv(1) == b''
  far.close()
  assert not gone.wait(0.3)


def test_a_relay_accepts_new_attempts_until_the_far_side_listens():
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  address = watch.relay(f'127.0.0.1:{port}', lambda: None).split(':')
  with socket.create_connection(address, PATIENCE) as near:
    assert near.recv(1) == b''
  with (
    socket.create_server(('127.0.0.1', port)) as server,
    socket.create_connection(address, PATIENCE) as near,
  ):
    far, _ = server.accept()
    with far:
      near.sendall(b'x')
      assert far.recv(1) == b'x'
