"""Several processes that train together: results, signals, lost processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import main
from jaxdistill.training import log
from jaxdistill.training.distributed import hosts

CONFIG = """
import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.data = {{'name': 'npz', 'path': {path!r}, 'validation': 37}}
  config.teacher = {{'name': 'network_of_hosts:net', 'width': 6}}
  config.student = {{'name': 'network_of_hosts:net'}}
  config.augment = {{'name': 'crop_flip', 'padding': 1}}
  config.schedule = {{'name': 'constant', 'rate': 0.05}}
  config.batch_size = 16
  config.epochs = 2
  config.log_every = 5
  config.checkpoint_seconds = 1000.0
  config.methods = {{'kd': {{'name': 'network_of_hosts:slow_kd'}}}}
  return config
"""
STEPS = 20
NETWORK = """
import time

from jaxdistill.phases import joint
from jaxdistill.networks import layers
from jaxdistill.core.types import Method, Network, Recipe, Stage


def net(*, num_classes: int, width: int = 4) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def slow_kd(recipe: Recipe, *, seconds: float = 0.0) -> Method:
  (make,) = joint.kd(recipe)

  def static(step):
    time.sleep(seconds)

  return (lambda carry: make(carry)._replace(static=static),)
"""
# One of two processes, which prints a line when both have met.
LIGHT = """
import sys, time

from jaxdistill.training.distributed import hosts

index, port, timeout, seconds = (int(x) for x in sys.argv[1:])
hosts.join(f'127.0.0.1:{port}', 2, index, timeout)


def meet():
  hosts.meet()
  print('met', flush=True)
  time.sleep(seconds)
  assert hosts.gather(index, -5, 2**62 + index).tolist() == [
    [i, -5, 2**62 + i] for i in range(2)
  ]
  assert hosts.of_first(lambda: index == 0)
  assert hosts.any_of(False, index == 1) == [False, True]
  hosts.leave(0, together=True)


def fit():
  import jax.numpy as jnp
  import numpy as np

  from jaxdistill.data.sources import arrays
  from jaxdistill.data.transforms import augment
  from jaxdistill.training import log, loop
  from jaxdistill.core.types import Phase, Stream

  def step(state, frozen, batches, rng, static):
    return state, {'loss': batches['train']['label'].mean()}

  def static(step):
    if step == 20:
      print('met', flush=True)

  phase = Phase(
    name='endless',
    num_steps=10**9,
    streams={'train': Stream(8, augment.none())},
    init=lambda rng, carry: ({'w': jnp.zeros(())}, {}),
    step=step,
    finish=lambda state, frozen, carry: carry,
    static=static,
  )
  image = np.zeros((16, 1, 1, 1), np.uint8)
  split = image, np.arange(16) % 2
  data = arrays.from_arrays(*split, *split, validation=0)
  options = loop.FitOptions(log=log.Log(show=False), log_every=10**6)
  loop.fit((lambda carry: phase,), {}, data, options=options)


try:
  if seconds == -2:
    hosts.meet()
    print('met', flush=True)
    hosts.leave(2, together=False)
    sys.exit(2)
  fit() if seconds == -1 else meet()
except Exception:
  hosts.blame()
  raise
"""
# For float32, after 20 steps that move parameters by 0.05 and more.
TOLERANCE = 1e-5
PATIENCE = 240  # seconds


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def start(place, workdir, port, index, *arguments):
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'jaxdistill.main'),
      f'--config={place}/config.py',
      f'--workdir={workdir}',
      f'--coordinator=127.0.0.1:{port}',
      '--num_processes=2',
      f'--process_id={index}',
      *arguments,
    ],
    cwd=place,
    env={
      **os.environ,
      'XDG_CACHE_HOME': str(place / 'cache'),
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def pair(place, workdir, *arguments):
  port = free_port()
  return [start(place, workdir, port, i, *arguments) for i in range(2)]


def wait_for_row(processes, workdir, label):
  """Waits for the first record of a row."""
  end = time.monotonic() + PATIENCE
  file = workdir / 'metrics.jsonl'
  while not any(r['row'] == label for r in log.read_records(file)):
    assert time.monotonic() < end
    for process in processes:
      assert process.poll() is None, process.communicate()[1]
    time.sleep(0.01)


def ends(processes):
  """(exit code, stdout, stderr) of each."""
  results = []
  for process in processes:
    out, err = process.communicate(timeout=PATIENCE)
    results.append((process.returncode, out, err))
  return results


def weights(workdir, label):
  path = workdir / 'rows' / label / '0' / 'phase0.safetensors'
  return safetensors.numpy.load_file(path)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with data, a network and a config."""
  folder = tmp_path_factory.mktemp('place')
  rng = np.random.default_rng(0)
  label = np.arange(227) % 3
  centers = rng.uniform(60, 190, (3, 8, 8, 1))
  image = centers[label] + rng.normal(0, 40, (227, 8, 8, 1))
  image = image.clip(0, 255).astype(np.uint8)
  np.savez(
    folder / 'data.npz',
    train_image=image[:197],
    train_label=label[:197],
    test_image=image[197:],
    test_label=label[197:],
  )
  (folder / 'network_of_hosts.py').write_text(NETWORK)
  text = CONFIG.format(path=str(folder / 'data.npz'))
  (folder / 'config.py').write_text(text)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield folder


@pytest.fixture(scope='module')
def alone(place):
  """The work directory of a run in one process."""
  workdir = place / 'alone'
  arguments = [f'--config={place}/config.py', f'--workdir={workdir}']
  assert main.run(arguments) == 0
  return workdir


@pytest.fixture(scope='module')
def stopped(place):
  """(work directory, results) of two processes; the second is interrupted.

  At that time they have trained the teacher and are training the row 'kd'.
  """
  workdir = place / 'stopped'
  processes = pair(place, workdir, '--config.methods.kd.seconds=0.1')
  wait_for_row(processes, workdir, 'kd')
  processes[1].send_signal(signal.SIGTERM)
  return workdir, ends(processes)


def assert_close(arrays, expected):
  assert sorted(arrays) == sorted(expected)
  for name in arrays:
    np.testing.assert_allclose(
      arrays[name], expected[name], rtol=0, atol=TOLERANCE, err_msg=name
    )


def test_two_processes_end_with_the_weights_of_one(alone, stopped):
  assert_close(weights(stopped[0], 'teacher'), weights(alone, 'teacher'))
  path = stopped[0] / 'rows' / 'teacher' / '0' / 'result.json'
  result = json.loads(path.read_text())
  assert result['steps'] == STEPS
  assert result['device'].endswith(' x2')


def test_only_the_first_process_writes_and_prints(alone, stopped):
  workdir, ((_, _, first), (_, _, second)) = stopped
  assert 'teacher: top1' in first
  assert len(second.splitlines()) == 2
  seen = log.read_records(workdir / 'metrics.jsonl')
  expected = log.read_records(alone / 'metrics.jsonl')
  assert [{**r, 'loss': 0} for r in seen if r['row'] == 'teacher'] == [
    {**r, 'loss': 0} for r in expected if r['row'] == 'teacher'
  ]


def test_a_signal_to_one_process_stops_both_at_the_same_step(stopped):
  workdir, results = stopped
  for code, _, err in results:
    assert code == 75, err
    assert 'the same command' in err.splitlines()[-1]
  steps = {err.splitlines()[-1] for _, _, err in results}
  assert len(steps) == 1
  folder = workdir / 'rows' / 'kd' / '0' / 'checkpoints0'
  (kept,) = [int(p.name) for p in folder.iterdir() if p.name.isdigit()]
  assert f'at step {kept} ' in steps.pop()
  assert kept % 5 == 0


def test_one_process_can_finish_the_run_of_two(place, alone, stopped, capfd):
  workdir, _ = stopped
  arguments = [f'--config={place}/config.py', f'--workdir={workdir}']
  assert main.run([*arguments, '--config.methods.kd.seconds=0.1']) == 0
  assert 'resuming at step' in capfd.readouterr().err
  assert_close(weights(workdir, 'kd'), weights(alone, 'kd'))


def test_processes_with_different_configs_are_rejected(
  place, tmp_path, monkeypatch, capfd
):
  gathered = []

  def other(*numbers):
    gathered.append(numbers)
    return np.array([numbers, [n ^ 1 for n in numbers]])

  monkeypatch.setattr(hosts, 'gather', other)
  text = (place / 'config.py').read_text()
  two = tmp_path / 'two.py'
  two.write_text(
    text.replace("{'kd': ", "{'alone': {'name': 'supervised'}, 'kd': ")
  )
  arguments = [f'--config={two}', f'--workdir={tmp_path}/x']
  for also in ([], ['--row=kd'], ['--row=alone'], ['--config.log_every=3']):
    assert main.run([*arguments, *also]) == 2
    assert 'process 1 runs another config' in capfd.readouterr().err
  assert len({*gathered}) == 4
  assert not (tmp_path / 'x').exists()


CASES = {
  # For each process the seconds between two meetings (-1: it trains, -2: it
  # ends), then which process receives which signal.
  'the first process dies': (100, 100, 0, signal.SIGKILL),
  'the first process hangs': (0, 100, 0, signal.SIGSTOP),
  'a process hangs in a step': (-1, -1, 1, signal.SIGSTOP),
  'a process ends by itself': (0, -2, None, None),
  'a process lives but does not come': (0, 100, None, None),
}


@pytest.fixture(scope='module')
def light(place):
  """Case -> results of its processes, except the one that got a signal."""
  (place / 'light.py').write_text(LIGHT)
  pairs = {}
  for case, (*seconds, _, _) in CASES.items():
    port = free_port()
    pairs[case] = [
      subprocess.Popen(
        [sys.executable, 'light.py', *map(str, (i, port, 3, seconds[i]))],
        cwd=place,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for i in range(2)
    ]
  for case, (_, _, index, number) in CASES.items():
    for process in pairs[case]:
      while process.stdout.readline() not in ('met\n', ''):
        pass
    if index is not None:
      pairs[case][index].send_signal(number)
  results = {}
  for case, (_, _, index, _) in CASES.items():
    if index is not None:
      ended = pairs[case].pop(1 - index), pairs[case].pop()
      results[case] = ends(ended[:1])
      ended[1].kill()
      ends(ended[1:])
    else:
      results[case] = ends(pairs[case])
  return results


@pytest.mark.parametrize(
  ('case', 'line'),
  [
    ('the first process dies', 'process 0 is gone'),
    ('the first process hangs', 'process 0 has not answered for 3 seconds'),
    (
      'a process hangs in a step',
      'process 1 has not answered for 3 seconds',
    ),
    (
      'a process lives but does not come',
      'process 1 has not answered for 3 seconds',
    ),
  ],
)
def test_the_others_name_the_lost_process_wherever_they_are(light, case, line):
  for code, _, err in light[case]:
    assert (code, err) == (2, f'jaxdistill: {line}\n')


def test_a_process_that_ends_by_itself_ends_the_others(light):
  (code, _, err), (second_code, _, second_err) = light[
    'a process ends by itself'
  ]
  assert (code, err) == (2, 'jaxdistill: process 1 ended with code 2\n')
  assert (second_code, second_err) == (2, '')


def test_a_process_that_never_arrives_is_reported(place, tmp_path):
  process = start(place, tmp_path / 'x', free_port(), 0, '--timeout=2')
  ((code, _, err),) = ends([process])
  assert code == 2
  assert err == ('jaxdistill: another process has not answered for 2 seconds\n')
  assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--coordinator=127.0.0.1:1'], ['--num_processes', 'all or none']),
    (['--distributed', '--process_id=1'], ['--coordinator', 'all or none']),
    (['--num_processes=2'], ['--coordinator', 'all or none']),
    (['--distributed', '--mode=export'], ['--mode=export', 'one process']),
  ],
)
def test_an_incomplete_cluster_is_rejected_in_one_line(capfd, arguments, words):
  assert main.run(['--config=none.py', *arguments]) == 2
  (line,) = capfd.readouterr().err.splitlines()
  for word in words:
    assert word in line
