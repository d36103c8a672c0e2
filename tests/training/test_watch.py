"""Who counts as lost, and how the end of a connection is heard."""

import socket
import threading
import time

import pytest

from jaxdistill.training import watch

PATIENCE = 20  # seconds


class Empty:
  """A store that keeps what is written, and of which nobody hears."""

  def __init__(self):
    self.written = {}

  def key_value_set(self, key, value, allow_overwrite):
    self.written[key] = value

  def key_value_dir_get(self, key):
    return []


@pytest.fixture
def judge():
  """(process -> (beats, points), seconds) -> who is lost, of three."""
  made = watch.Watch(Empty(), 0, 3, timeout=100)
  begun = time.monotonic()

  def lost(places, seconds):
    said = {i: f'{beats} {points}' for i, (beats, points) in places.items()}
    return made._lost(said, begun + seconds)

  lost.watch = made
  yield lost
  made._parting.set()


def test_processes_that_are_all_at_one_place_may_take_their_time(judge):
  """They compile, say."""
  for beats in range(50):
    assert judge({i: (beats, 7) for i in range(3)}, 10 * beats) == []


def test_one_that_says_nothing_is_lost(judge):
  """Though it is where the others are."""
  for beats in range(11):
    places = {0: (beats, 7), 1: (0, 7), 2: (beats, 7)}
    assert judge(places, 10 * beats) == []
  assert judge({0: (11, 7), 1: (0, 7), 2: (11, 7)}, 110) == [1]


def test_one_that_never_said_a_word_is_lost(judge):
  assert judge({0: (1, 0), 1: (1, 0)}, 99) == []
  assert judge({0: (2, 0), 1: (2, 0)}, 101) == [2]


def test_one_behind_is_lost_once_none_comes_on(judge):
  for beats in range(11):
    places = {0: (beats, 7), 1: (beats, 7), 2: (beats, 6)}
    assert judge(places, 10 * beats) == []
  # Another one still moves.
  assert judge({0: (11, 8), 1: (11, 7), 2: (11, 6)}, 110) == []
  assert judge({0: (12, 8), 1: (12, 7), 2: (12, 6)}, 200) == []
  assert judge({0: (13, 8), 1: (13, 7), 2: (13, 6)}, 211) == [1, 2]


def test_after_an_error_silence_is_judged_sooner(judge):
  judge.watch._hurry = True
  for beats in range(4):
    places = {0: (beats, 7), 1: (beats, 7), 2: (0, 7)}
    assert judge(places, 5 * beats) == []
  assert judge({0: (4, 7), 1: (4, 7), 2: (0, 7)}, 20) == [2]


class Ended(BaseException):
  """In the place of the end of a process."""


@pytest.mark.parametrize(
  ('code', 'alike', 'accused'),
  [
    (0, True, []),
    (75, True, []),
    (2, False, ['process 1 ended with code 2']),
    (75, False, ['process 1 ended with code 75']),
  ],
)
def test_one_that_parts_keeps_its_code_where_the_first_goes_sooner(
  monkeypatch, code, alike, accused
):
  def end(*codes):
    raise Ended(*codes)

  store = Empty()
  made = watch.Watch(store, 1, 2, timeout=0.1)
  made.part(code, alike)
  said = [v for k, v in store.written.items() if watch.VERDICT in k]
  assert said == accused
  monkeypatch.setattr('os._exit', end)
  with pytest.raises(Ended) as ended:
    made.first_is_gone()
  assert ended.value.args == (code,)


@pytest.fixture
def ends():
  """(this side, the other side, whether the other is said to have ended)."""
  gone = threading.Event()
  server = socket.create_server(('127.0.0.1', 0))
  host, port = server.getsockname()
  address = watch.relay(f'{host}:{port}', gone.set)
  near = socket.create_connection(address.split(':'), PATIENCE)
  far, _ = server.accept()
  with server, near, far:
    far.settimeout(PATIENCE)
    yield near, far, gone


def test_a_relay_hands_on_what_both_sides_say(ends):
  near, far, gone = ends
  for sender, hearer in ((near, far), (far, near)):
    sender.sendall(b'x' * 100_000)
    heard = b''
    while len(heard) < 100_000:
      heard += hearer.recv(1 << 20)
    assert heard == b'x' * 100_000
  assert not gone.is_set()


def test_a_relay_tells_when_the_other_side_ends(ends):
  _, far, gone = ends
  far.close()
  assert gone.wait(PATIENCE)


def test_a_relay_says_nothing_when_this_side_ends(ends):
  near, far, gone = ends
  near.close()
  assert far.recv(1) == b''
  far.close()
  assert not gone.wait(0.3)


def test_a_relay_to_one_that_is_not_there_yet_lets_ask_again():
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
